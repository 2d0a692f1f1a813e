//! Reading structs from objects only.
//!
//! What serde derives for a struct also takes a list of its fields in order. The wire knows objects,
//! and a list that this implementation took would be refused by the next one.

use serde::Deserializer;
use serde::de::Visitor;

/// Asks the deserializer inside for an object, whatever a struct's derived code would take.
pub(crate) struct Object<D>(pub(crate) D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
