//! What the hubs tell each other of a room, on its channel.
//!
//! ```text
//! M epoch from to (4 bytes of length, message)*   committed: the messages after `from` up to `to`, dense
//! L epoch done                                    committed up to `done`, too much to send: read it
//! E epoch                                         a new epoch has begun
//! ```
//!
//! An epoch is 1 byte of length and its text, a place 8 bytes; numbers are big-endian. Redis' scripts
//! write them (`commit.lua`, `install.lua`).

use twine_protocol::{Epoch, InvalidPosition, Offset, Position};

use crate::store::Record;
use crate::store::packed::{self, Unreadable};

/// What was told.
#[derive(Debug, Clone)]
pub(crate) enum Chunk {
    /// These messages are durable and follow each other. The first follows `from`.
    Messages {
        /// The place before the first.
        from: Position,
        /// At least one.
        records: Vec<Record>,
    },
    /// Everything up to here is durable; the messages are to be read.
    Done(Position),
    /// A new epoch has begun.
    Epoch(Epoch),
}

/// Why bytes are none of these. Another program publishes to the channel, or a later version of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedChunk {
    #[error("it ends in the middle")]
    Short,
    #[error("it begins with {kind:#04x}, which this version does not know")]
    Kind { kind: u8 },
    #[error("its place is none")]
    Place(#[from] InvalidPosition),
    #[error("its epoch is not UTF-8")]
    Utf8,
    #[error("it has {found} messages, but says {said}")]
    Count { said: u64, found: u64 },
    #[error("bytes follow its end")]
    Long,
    #[error(transparent)]
    Record(#[from] Unreadable),
}

impl Chunk {
    /// Reads what was published on a room's channel.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MalformedChunk> {
        let (&kind, mut rest) = bytes.split_first().ok_or(MalformedChunk::Short)?;
        let (&len, left) = rest.split_first().ok_or(MalformedChunk::Short)?;
        rest = left;
        let epoch =
            std::str::from_utf8(take(&mut rest, usize::from(len))?).map_err(|_| MalformedChunk::Utf8)?;
        let epoch = Epoch::new(epoch)?;
        let chunk = match kind {
            b'M' => {
                let from = Offset::new(number(&mut rest)?)?;
                let to = Offset::new(number(&mut rest)?)?;
                let records = messages(&mut rest, from)?;
                let (said, found) = (to.get().saturating_sub(from.get()), records.len() as u64);
                if said != found || found == 0 {
                    return Err(MalformedChunk::Count { said, found });
                }
                Self::Messages { from: Position { epoch, offset: from }, records }
            }
            b'L' => Self::Done(Position { epoch, offset: Offset::new(number(&mut rest)?)? }),
            b'E' => Self::Epoch(epoch),
            kind => return Err(MalformedChunk::Kind { kind }),
        };
        if rest.is_empty() { Ok(chunk) } else { Err(MalformedChunk::Long) }
    }
}

fn messages(rest: &mut &[u8], from: Offset) -> Result<Vec<Record>, MalformedChunk> {
    let mut records = Vec::new();
    let mut offset = from;
    while !rest.is_empty() {
        let mut len = [0; 4];
        len.copy_from_slice(take(rest, 4)?);
        let len = usize::try_from(u32::from_be_bytes(len)).map_err(|_| MalformedChunk::Short)?;
        offset = offset.next();
        records.push(packed::unpack(offset, take(rest, len)?)?);
    }
    Ok(records)
}

fn number(rest: &mut &[u8]) -> Result<u64, MalformedChunk> {
    let mut number = [0; 8];
    number.copy_from_slice(take(rest, 8)?);
    Ok(u64::from_be_bytes(number))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], MalformedChunk> {
    let (taken, left) = rest.split_at_checked(len).ok_or(MalformedChunk::Short)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(kind: u8, epoch: &str, numbers: &[u64], messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![kind, u8::try_from(epoch.len()).unwrap()];
        bytes.extend_from_slice(epoch.as_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
        for message in messages {
            bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(message);
        }
        bytes
    }

    fn message() -> Vec<u8> {
        let mut bytes = 5_u64.to_be_bytes().to_vec();
        packed::pack_untimed(None, None, "[1]", &mut bytes);
        bytes
    }

    #[test]
    fn messages_get_the_offsets_after_their_start() {
        let message = message();
        let Ok(Chunk::Messages { from, records }) =
            Chunk::decode(&chunk(b'M', "e", &[7, 9], &[&message, &message]))
        else {
            panic!("not read");
        };
        assert_eq!(from, Position::new("e", 7).unwrap());
        assert_eq!(records.iter().map(|record| record.offset.get()).collect::<Vec<_>>(), [8, 9]);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let message = message();
        let whole = chunk(b'M', "e", &[7, 9], &[&message, &message]);
        for cut in 0..whole.len() {
            assert!(Chunk::decode(&whole[..cut]).is_err(), "{cut}");
        }
        let refused = |bytes: &[u8]| Chunk::decode(bytes).err();
        assert_eq!(
            refused(&chunk(b'M', "e", &[7, 8], &[])),
            Some(MalformedChunk::Count { said: 1, found: 0 })
        );
        assert_eq!(
            refused(&chunk(b'M', "e", &[7, 7], &[])),
            Some(MalformedChunk::Count { said: 0, found: 0 })
        );
        assert_eq!(refused(&chunk(b'Q', "e", &[], &[])), Some(MalformedChunk::Kind { kind: b'Q' }));
        assert_eq!(refused(&chunk(b'E', "e", &[1], &[])), Some(MalformedChunk::Long));
        assert!(matches!(refused(&chunk(b'E', "!", &[], &[])), Some(MalformedChunk::Place(_))));
        assert!(matches!(refused(&chunk(b'L', "e", &[u64::MAX], &[])), Some(MalformedChunk::Place(_))));
        assert!(matches!(refused(&chunk(b'M', "e", &[0, 1], &[b"x"])), Some(MalformedChunk::Record(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in prop::sample::select(b"MLEx".to_vec()), rest: Vec<u8>) {
            let _read_or_refused = Chunk::decode(&[&[kind, 1, b'e'], rest.as_slice()].concat());
        }
    }
}
