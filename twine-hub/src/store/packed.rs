//! A message as bytes: how the stream and the table of a fleet keep it.
//!
//! ```text
//! time    8 bytes, milliseconds since 1970
//! id      1 byte: its length, 0 without one; then the id
//! sender  2 bytes: its length and one more, 0 without one; then the sender
//! data    the rest
//! ```
//!
//! Numbers are big-endian: what `struct.pack(">I8s..")` makes in a Redis script. The offset is not in
//! it: it stands beside, as the entry's id or in the item.

use serde_json::value::RawValue;
use twine_protocol::{MessageId, Offset};

use super::Record;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored message can't be read: {0}")]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// Appends what `record` is as bytes.
pub(crate) fn pack(record: &Record, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&record.time.to_be_bytes());
    pack_untimed(record.id.as_ref(), record.sender.as_deref(), record.data.get(), bytes);
}

/// Appends a message's bytes without its time, which the server that gives it its place puts before
/// them.
pub(crate) fn pack_untimed(id: Option<&MessageId>, sender: Option<&str>, data: &str, bytes: &mut Vec<u8>) {
    let id = id.map_or("", MessageId::as_str);
    // Both are bounded by the protocol: an id has up to 128 bytes, a sender up to 255.
    bytes.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(id.as_bytes());
    let sender_len = sender.map_or(0, |sender| sender.len() + 1);
    bytes.extend_from_slice(&u16::try_from(sender_len).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(sender.unwrap_or_default().as_bytes());
    bytes.extend_from_slice(data.as_bytes());
}

/// How many bytes [`pack`] appends.
pub(crate) fn packed_len(record: &Record) -> usize {
    8 + 1
        + record.id.as_ref().map_or(0, |id| id.as_str().len())
        + 2
        + record.sender.as_ref().map_or(0, String::len)
        + record.data.get().len()
}

/// The message that [`pack`] made `bytes` of; they are all its own.
///
/// # Errors
/// Where they are cut short, or hold what no message may hold.
pub(crate) fn unpack(offset: Offset, bytes: &[u8]) -> Result<Record, Unreadable> {
    let mut rest = bytes;
    let time = u64::from_be_bytes(take(&mut rest)?);
    let [id_len] = take(&mut rest)?;
    let id = match text(&mut rest, id_len.into())? {
        "" => None,
        id => Some(MessageId::new(id).map_err(|_| Unreadable("its id is none"))?),
    };
    let sender_len: usize = u16::from_be_bytes(take(&mut rest)?).into();
    let sender = match sender_len.checked_sub(1) {
        Some(len) => Some(text(&mut rest, len)?.to_owned()),
        None => None,
    };
    let len = rest.len();
    let data = text(&mut rest, len)?.to_owned();
    let data = RawValue::from_string(data).map_err(|_| Unreadable("its data is no JSON"))?;
    Ok(Record { offset, time, id, sender, data })
}

/// Takes the next `N` bytes off `rest`.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Unreadable> {
    let (taken, left) = rest.split_first_chunk().ok_or(CUT)?;
    *rest = left;
    Ok(*taken)
}

fn text<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a str, Unreadable> {
    let (taken, left) = rest.split_at_checked(len).ok_or(CUT)?;
    *rest = left;
    std::str::from_utf8(taken).map_err(|_| Unreadable("it is no UTF-8"))
}

const CUT: Unreadable = Unreadable("it is cut short");

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Any message, with an offset that matters to no byte of it.
        pub(in crate::store) fn records()(
            offset in 0..=Offset::MAX.get(),
            time in any::<u64>(),
            id in prop::option::of("[a-zA-Z0-9é ]{1,40}"),
            sender in prop::option::of("[a-zé]{0,40}"),
            data in prop_oneof![
                any::<u64>().prop_map(|n| n.to_string()),
                ".{0,60}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            ],
        ) -> Record {
            Record {
                offset: Offset::new(offset).unwrap(),
                time,
                id: id.map(|id| MessageId::new(&id).unwrap()),
                sender,
                data: RawValue::from_string(data).unwrap(),
            }
        }
    }

    /// All that two records can differ in.
    pub(in crate::store) fn parts(record: &Record) -> (u64, u64, Option<&str>, Option<&str>, &str) {
        let id = record.id.as_ref().map(MessageId::as_str);
        (record.offset.get(), record.time, id, record.sender.as_deref(), record.data.get())
    }

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was(record in records()) {
            let mut bytes = Vec::new();
            pack(&record, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_len(&record));
            let back = unpack(record.offset, &bytes).unwrap();
            prop_assert_eq!(parts(&back), parts(&record));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = unpack(Offset::ZERO, &bytes);
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let record = Record {
            offset: Offset::ZERO,
            time: 0x0102_0304,
            id: Some(MessageId::new("id").unwrap()),
            sender: Some(String::new()),
            data: RawValue::from_string("{}".to_owned()).unwrap(),
        };
        let mut bytes = Vec::new();
        pack(&record, &mut bytes);
        assert_eq!(bytes, *b"\0\0\0\0\x01\x02\x03\x04\x02id\0\x01{}");
        assert_eq!(unpack(Offset::ZERO, &bytes[..10]).unwrap_err(), CUT);
        assert_eq!(unpack(Offset::ZERO, &bytes[..14]).unwrap_err(), Unreadable("its data is no JSON"));
    }
}
