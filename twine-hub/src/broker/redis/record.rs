//! A message as bytes, in the log of a room and on the bus.
//!
//! ```text
//! time   8 bytes   milliseconds since 1970, big-endian; written by the server that assigned the offset
//! flags  1 byte    1: has an id, 2: has a sender
//! id     1 byte of length, then UTF-8
//! sender 2 bytes of length, big-endian, then UTF-8
//! data   the rest: JSON
//! ```
//!
//! The offset stands beside it. The server reads and writes the time, and nothing else.

use serde_json::value::RawValue;
use twine_protocol::{MessageId, Offset};

use crate::store::Record;

const HAS_ID: u8 = 1;
const HAS_SENDER: u8 = 2;
const TIME_BYTES: usize = 8;

/// Why bytes are no message. Another program writes to the room's keys, or a later version of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedRecord {
    #[error("the message ends in the middle")]
    Short,
    #[error("the message has flags that this version does not know: {flags:#04x}")]
    Flags { flags: u8 },
    #[error("a text of the message is not UTF-8")]
    Utf8,
    #[error("the message has an id that is none")]
    Id,
    #[error("the message's data is not JSON")]
    Data,
}

/// A sender that is too long to be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sender has at most {limit} bytes, this one has {len}", limit = u16::MAX)]
pub(crate) struct SenderTooLong {
    pub(crate) len: usize,
}

/// Packs all but the time, which the server puts before it.
pub(crate) fn pack_untimed(
    id: Option<&MessageId>,
    sender: Option<&str>,
    data: &str,
) -> Result<Vec<u8>, SenderTooLong> {
    let id = id.map(MessageId::as_str);
    let mut bytes = Vec::with_capacity(
        1 + id.map_or(0, |id| 1 + id.len()) + sender.map_or(0, |s| 2 + s.len()) + data.len(),
    );
    bytes.push(id.map_or(0, |_| HAS_ID) | sender.map_or(0, |_| HAS_SENDER));
    if let Some(id) = id {
        // An id has at most 128 bytes.
        bytes.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(id.as_bytes());
    }
    if let Some(sender) = sender {
        let len = u16::try_from(sender.len()).map_err(|_| SenderTooLong { len: sender.len() })?;
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(sender.as_bytes());
    }
    bytes.extend_from_slice(data.as_bytes());
    Ok(bytes)
}

/// Packs a whole message.
pub(crate) fn pack(record: &Record) -> Result<Vec<u8>, SenderTooLong> {
    let untimed = pack_untimed(record.id.as_ref(), record.sender.as_deref(), record.data.get())?;
    Ok([&record.time.to_be_bytes(), untimed.as_slice()].concat())
}

/// Reads a whole message, which stands at `offset`.
pub(crate) fn unpack(offset: Offset, bytes: &[u8]) -> Result<Record, MalformedRecord> {
    let mut rest = bytes;
    let mut time = [0; TIME_BYTES];
    time.copy_from_slice(take(&mut rest, TIME_BYTES)?);
    let flags = take_byte(&mut rest)?;
    if flags & !(HAS_ID | HAS_SENDER) != 0 {
        return Err(MalformedRecord::Flags { flags });
    }
    let id = if flags & HAS_ID == 0 {
        None
    } else {
        let len = take_byte(&mut rest)?;
        let id = text(take(&mut rest, usize::from(len))?)?;
        Some(MessageId::new(id).map_err(|_| MalformedRecord::Id)?)
    };
    let sender = if flags & HAS_SENDER == 0 {
        None
    } else {
        let len = u16::from_be_bytes([take_byte(&mut rest)?, take_byte(&mut rest)?]);
        Some(text(take(&mut rest, usize::from(len))?)?.to_owned())
    };
    // It was valid JSON when it was published; what is not now would break every subscriber's frame.
    let data = RawValue::from_string(text(rest)?.to_owned()).map_err(|_| MalformedRecord::Data)?;
    Ok(Record { offset, time: u64::from_be_bytes(time), id, sender, data })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], MalformedRecord> {
    let (taken, left) = rest.split_at_checked(len).ok_or(MalformedRecord::Short)?;
    *rest = left;
    Ok(taken)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, MalformedRecord> {
    let (&byte, left) = rest.split_first().ok_or(MalformedRecord::Short)?;
    *rest = left;
    Ok(byte)
}

fn text(bytes: &[u8]) -> Result<&str, MalformedRecord> {
    std::str::from_utf8(bytes).map_err(|_| MalformedRecord::Utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_read(
            time: u64,
            id in proptest::option::of("[^\\p{Cc}]{1,32}"),
            sender in proptest::option::of(".{0,300}"),
            payload in ".*",
        ) {
            let record = Record {
                offset: Offset::new(7).unwrap(),
                time,
                id: id.map(|id| MessageId::new(&id).unwrap()),
                sender,
                data: RawValue::from_string(serde_json::to_string(&payload).unwrap()).unwrap(),
            };
            let read = unpack(record.offset, &pack(&record).unwrap()).unwrap();
            prop_assert_eq!(read.time, record.time);
            prop_assert_eq!(read.id, record.id);
            prop_assert_eq!(read.sender, record.sender);
            prop_assert_eq!(read.data.get(), record.data.get());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _read_or_refused = unpack(Offset::ZERO, &bytes);
        }

        #[test]
        fn a_message_cut_short_is_refused(cut in 0_usize..20) {
            let whole = [&[0; 8][..], &pack_untimed(
                Some(&MessageId::new("an-id").unwrap()), Some("me"), "[1]",
            ).unwrap()].concat();
            prop_assert!(unpack(Offset::ZERO, &whole).is_ok());
            prop_assert!(unpack(Offset::ZERO, &whole[..whole.len() - 1 - cut]).is_err());
        }
    }

    #[test]
    fn what_is_no_message_is_named() {
        let with = |end: &[u8]| unpack(Offset::ZERO, &[&[0; 8], end].concat()).map(|_| ());
        assert_eq!(unpack(Offset::ZERO, &[0; 7]).map(|_| ()), Err(MalformedRecord::Short));
        assert_eq!(with(&[]), Err(MalformedRecord::Short));
        assert_eq!(with(&[4, b'1']), Err(MalformedRecord::Flags { flags: 4 }));
        assert_eq!(with(&[1, 0, b'1']), Err(MalformedRecord::Id));
        assert_eq!(with(&[1, 1, 7, b'1']), Err(MalformedRecord::Id));
        assert_eq!(with(&[2, 0, 1, 0xff, b'1']), Err(MalformedRecord::Utf8));
        assert_eq!(with(&[0, b'{']), Err(MalformedRecord::Data));
        assert_eq!(with(&[0]), Err(MalformedRecord::Data));
    }

    #[test]
    fn a_sender_that_does_not_fit_is_refused() {
        let sender = "s".repeat(usize::from(u16::MAX) + 1);
        assert_eq!(pack_untimed(None, Some(&sender), "1"), Err(SenderTooLong { len: sender.len() }));
    }
}
