//! Messages as items, and back.
//!
//! An item holds messages of one room and one epoch. Their offsets may have holes, where other hubs
//! wrote what lies between: readers merge items by offset.
//!
//! | attribute | type | |
//! | --- | --- | --- |
//! | `room` | S | partition key |
//! | `at` | S | sort key: `EPOCH#LAST#NUMBER`, the offset of the last message as 16 hexadecimal digits and a number of this write |
//! | `first` | N | the offset of the first message |
//! | `time` | N | the time of the last message, in milliseconds |
//! | `m` | B | the messages: for each its offset less `first` (2 bytes), the length of what follows (4 bytes), and what [`packed`] makes of it |
//! | `z` | BOOL | `m` is compressed (DEFLATE) |
//! | `expires` | N | when DynamoDB may delete it, in seconds; without it the item is kept for good |
//!
//! The number keeps a write that arrives late from replacing another that ends at the same message.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use miniz_oxide::{deflate, inflate};
use twine_protocol::{Epoch, Offset, RoomName};

use crate::store::Record;
use crate::store::packed::{self, Unreadable};

/// What an item is in the SDK's eyes.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// Offsets from an item's first to its last, at most: who has read the items up to `n` more than an
/// offset has seen every item that could hold it.
pub(super) const MAX_SPAN: u64 = 1_024;

/// Bytes of messages in one item, at most, before they are compressed: DynamoDB takes 400 KiB, names
/// and keys among them.
const MAX_BYTES: usize = 400_000;

/// The largest `data` that surely fits into an item, in bytes: what `max_data` may be with this store.
pub(crate) const MAX_DATA: usize = 384 << 10;

/// Below this, compressing saves no write unit: they are counted by the KB.
const COMPRESS_FROM: usize = 1_024;

/// How hard to compress, of 10: beyond this, much time brings few per cent.
const COMPRESSION: u8 = 3;

/// Bytes before each message: its offset, and its length.
const HEAD: usize = 2 + 4;

/// Parts of `records`, which are in order, that fit into one item each.
pub(super) fn split(records: &[Record]) -> impl Iterator<Item = &[Record]> {
    let (mut first, mut bytes) = (None, 0);
    // Where a message begins a new item, the two before it and after it don't belong together.
    let mut fits = move |record: &Record| {
        let (offset, len) = (record.offset.get(), HEAD + packed::packed_len(record));
        bytes += len;
        let fits = first.is_some_and(|first| offset - first <= MAX_SPAN && bytes <= MAX_BYTES);
        if !fits {
            (first, bytes) = (Some(offset), len);
        }
        fits
    };
    if let Some(record) = records.first() {
        fits(record);
    }
    records.chunk_by(move |_, next| fits(next))
}

/// The sort key of items whose last message is `last`, without their numbers.
pub(super) fn key(epoch: &Epoch, last: Offset) -> String {
    format!("{epoch}#{:016x}#", last.get())
}

/// A sort key that comes after those of [`key`] with the same arguments, whatever their numbers, and
/// before all others.
pub(super) fn key_after(epoch: &Epoch, last: Offset) -> String {
    format!("{epoch}#{:016x}#~", last.get())
}

/// The item of these messages, which are one part of [`split`]: at least one.
pub(super) fn encode(
    room: &RoomName,
    epoch: &Epoch,
    number: u64,
    records: &[Record],
    expires: Option<u64>,
) -> Attributes {
    let first = records.first().map_or(Offset::ZERO, |record| record.offset);
    let last = records.last().map_or(Offset::ZERO, |record| record.offset);
    let time = records.last().map_or(0, |record| record.time);
    let mut bytes = Vec::new();
    for record in records {
        // `split` sees to it that neither is greater.
        let step = u16::try_from(record.offset.get() - first.get()).unwrap_or(u16::MAX);
        let len = u32::try_from(packed::packed_len(record)).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&step.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        packed::pack(record, &mut bytes);
    }
    let compressed = (bytes.len() >= COMPRESS_FROM)
        .then(|| deflate::compress_to_vec(&bytes, COMPRESSION))
        .filter(|compressed| compressed.len() < bytes.len());
    let is_compressed = compressed.is_some();
    let mut item = Attributes::from([
        ("room".into(), text(room.as_str())),
        ("at".into(), text(format!("{}{number:016x}", key(epoch, last)))),
        ("first".into(), number_value(first.get())),
        ("time".into(), number_value(time)),
        ("m".into(), AttributeValue::B(Blob::new(compressed.unwrap_or(bytes)))),
    ]);
    if is_compressed {
        item.insert("z".into(), AttributeValue::Bool(true));
    }
    if let Some(expires) = expires {
        item.insert("expires".into(), number_value(expires));
    }
    item
}

/// An item of messages as it was read.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) epoch: Epoch,
    pub(super) last: Offset,
    /// The time of the last message.
    pub(super) time: u64,
    first: Offset,
    messages: Vec<u8>,
    is_compressed: bool,
}

impl Item {
    /// Reads all of an item but its messages.
    ///
    /// # Errors
    /// Where something is missing, or is no part of an item.
    pub(super) fn read(attributes: &mut Attributes) -> Result<Self, Unreadable> {
        let (epoch, last) = parts(string(attributes, "at")?)?;
        Ok(Self {
            epoch: Epoch::new(epoch).map_err(|_| Unreadable("its epoch is none"))?,
            last,
            time: number(attributes, "time")?,
            first: offset(number(attributes, "first")?)?,
            is_compressed: attributes.contains_key("z"),
            messages: match attributes.remove("m") {
                Some(AttributeValue::B(messages)) => messages.into_inner(),
                _ => return Err(Unreadable("it has no messages")),
            },
        })
    }

    /// Its messages, in order.
    ///
    /// # Errors
    /// Where they are damaged.
    pub(super) fn records(self) -> Result<Vec<Record>, Unreadable> {
        let bytes = if self.is_compressed {
            inflate::decompress_to_vec_with_limit(&self.messages, MAX_BYTES)
                .map_err(|_| Unreadable("its messages can't be decompressed"))?
        } else {
            self.messages
        };
        let mut rest = bytes.as_slice();
        let mut records: Vec<Record> = Vec::new();
        while !rest.is_empty() {
            let step = u16::from_be_bytes(packed::take(&mut rest)?);
            let len = u32::from_be_bytes(packed::take(&mut rest)?);
            let split = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
            let (message, left) = split.ok_or(Unreadable("its messages are cut short"))?;
            rest = left;
            let record = packed::unpack(offset(self.first.get() + u64::from(step))?, message)?;
            if records.last().is_some_and(|before| before.offset >= record.offset) {
                return Err(Unreadable("its messages are in disorder"));
            }
            records.push(record);
        }
        if records.last().is_none_or(|record| record.offset != self.last) {
            return Err(Unreadable("its messages end elsewhere than its key says"));
        }
        Ok(records)
    }
}

/// The last message that a sort key names.
pub(super) fn last_of(at: &str) -> Result<Offset, Unreadable> {
    parts(at).map(|(_, last)| last)
}

/// A sort key's epoch, and its last message.
fn parts(at: &str) -> Result<(&str, Offset), Unreadable> {
    let mut parts = at.split('#');
    let (Some(epoch), Some(last), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unreadable("its sort key has other parts"));
    };
    let last = u64::from_str_radix(last, 16).map_err(|_| Unreadable("its last offset is no number"))?;
    Ok((epoch, offset(last)?))
}

pub(super) fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number_value(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn string<'a>(attributes: &'a Attributes, name: &str) -> Result<&'a str, Unreadable> {
    match attributes.get(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        _ => Err(Unreadable("a text is missing")),
    }
}

pub(super) fn number(attributes: &Attributes, name: &str) -> Result<u64, Unreadable> {
    match attributes.get(name) {
        Some(AttributeValue::N(number)) => number.parse().map_err(|_| Unreadable("a number is none")),
        _ => Err(Unreadable("a number is missing")),
    }
}

pub(super) fn offset(number: u64) -> Result<Offset, Unreadable> {
    Offset::new(number).map_err(|_| Unreadable("an offset is too large"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::store::packed::tests::{parts, records};

    fn numbered(mut records: Vec<Record>, steps: &[u64]) -> Vec<Record> {
        let mut next = 0;
        for (record, step) in records.iter_mut().zip(steps) {
            next += step;
            record.offset = Offset::new(next).unwrap();
        }
        records
    }

    fn room() -> RoomName {
        "a".parse().unwrap()
    }

    fn epoch() -> Epoch {
        Epoch::new("0123456789ab-01234567").unwrap()
    }

    /// What DynamoDB counts: names and values, a number as its digits at most.
    fn size(item: &Attributes) -> usize {
        let value = |value: &AttributeValue| match value {
            AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
            AttributeValue::B(bytes) => bytes.as_ref().len(),
            _ => 1,
        };
        item.iter().map(|(name, of)| name.len() + value(of)).sum()
    }

    proptest! {
        #[test]
        fn items_hold_every_message_once_and_in_order(
            records in prop::collection::vec(records(), 0..40),
            steps in prop::collection::vec(prop_oneof![4 => 1u64..3, 1 => 300u64..2_000], 40),
        ) {
            let records = numbered(records, &steps);
            let mut back = Vec::new();
            for part in split(&records) {
                prop_assert!(part[part.len() - 1].offset.get() - part[0].offset.get() <= MAX_SPAN);
                let mut attributes = encode(&room(), &epoch(), 7, part, Some(1));
                let item = Item::read(&mut attributes).unwrap();
                prop_assert_eq!(&item.epoch, &epoch());
                prop_assert_eq!(item.time, part[part.len() - 1].time);
                prop_assert!(item.last == part[part.len() - 1].offset);
                back.extend(item.records().unwrap());
            }
            prop_assert_eq!(back.iter().map(parts).collect::<Vec<_>>(), records.iter().map(parts).collect::<Vec<_>>());
        }

        #[test]
        fn a_damaged_item_is_an_error(
            records in prop::collection::vec(records(), 1..40),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let records = numbered(records, &[1; 40]);
            let mut attributes = encode(&room(), &epoch(), 7, &records, None);
            let Some(AttributeValue::B(messages)) = attributes.get("m").cloned() else { unreachable!() };
            let mut messages = messages.into_inner();
            let at = at.index(messages.len());
            messages[at] ^= flip;
            attributes.insert("m".into(), AttributeValue::B(Blob::new(messages)));
            // Some damage is in a text, and passes; none makes it panic.
            let _ = Item::read(&mut attributes).and_then(Item::records);
        }
    }

    /// A message whose data can't be compressed.
    fn noise(n: u64, bytes: usize) -> Record {
        let mut random = fastrand::Rng::with_seed(n);
        let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(bytes - 2).collect();
        let data = RawValue::from_string(format!("\"{text}\"")).unwrap();
        let sender = Some("s".repeat(255));
        let id = Some("i".repeat(128).parse().unwrap());
        Record { offset: Offset::new(n).unwrap(), time: n, id, sender, data }
    }

    #[test]
    fn an_item_is_never_larger_than_dynamodb_takes() {
        let room: RoomName = "r".repeat(255).parse().unwrap();
        let epoch = Epoch::new(&"e".repeat(64)).unwrap();
        for (count, bytes) in [(3, MAX_DATA), (30, 60 << 10), (3_000, 300)] {
            let records: Vec<_> = (1..=count).map(|n| noise(n, bytes)).collect();
            let items: Vec<_> =
                split(&records).map(|part| encode(&room, &epoch, u64::MAX, part, Some(1 << 40))).collect();
            assert!(items.iter().all(|item| size(item) <= 400 << 10), "{count} of {bytes} bytes");
            let fewest = records.iter().map(packed::packed_len).sum::<usize>() / MAX_BYTES;
            assert!(items.len() <= fewest * 2 + 1, "{} items", items.len());
        }
    }

    #[test]
    fn what_repeats_is_compressed_and_little_is_not() {
        let record = |n| Record {
            offset: Offset::new(n).unwrap(),
            time: 1_700_000_000_000 + n,
            id: None,
            sender: None,
            data: RawValue::from_string(format!("{{\"price\":{n}.25,\"symbol\":\"TWNE\"}}")).unwrap(),
        };
        let records: Vec<_> = (1..=100).map(record).collect();
        let plain = encode(&room(), &epoch(), 0, &records[..10], None);
        assert!(!plain.contains_key("z"));
        let compressed = encode(&room(), &epoch(), 0, &records, None);
        assert!(compressed.contains_key("z") && size(&compressed) * 3 < size(&plain) * 10);
        let incompressible = encode(&room(), &epoch(), 0, &[noise(1, 4_000)], None);
        assert!(size(&incompressible) < 4_000 + 700);
    }

    #[test]
    fn sort_keys_are_in_order_of_offsets() {
        let (low, high) = (Offset::new(255).unwrap(), Offset::new(256).unwrap());
        let mut item = encode(&room(), &epoch(), u64::MAX, &[noise(255, 10)], None);
        let Some(AttributeValue::S(at)) = item.remove("at") else { unreachable!() };
        assert!(key(&epoch(), low) < at && at < key_after(&epoch(), low));
        assert!(key_after(&epoch(), low) < key(&epoch(), high));
    }
}
