//! Places in a room's log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::object::Object;

/// One incarnation of a room's log, named by a text the hub makes (PROTOCOL.md, "Positions").
///
/// At most 64 bytes of ASCII letters, digits, `.`, `_` and `-`. A later epoch of a room compares
/// greater as text. The empty epoch is allowed and matches no log. Clones share the text.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(Arc<str>);

/// The place of a message inside its epoch: 1, 2, 3 … without holes; 0 is the place before the first.
///
/// Below 2^53, so that it is exact as a JavaScript number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Offset(u64);

/// A place in a room's log: after the message with this offset of this epoch.
///
/// Positions of one room are totally ordered, by epoch and then by offset.
///
/// ```
/// use twine_protocol::Position;
///
/// let earlier = Position::new("000000000001-a", 41)?;
/// let later = Position::new("000000000002-b", 3)?;
/// assert!(earlier < later);
/// # Ok::<(), twine_protocol::InvalidPosition>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Which incarnation of the log.
    pub epoch: Epoch,
    /// Which message of it; 0 is before the first.
    pub offset: Offset,
}

/// Why a value is no part of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPosition {
    /// An epoch longer than [`Epoch::MAX_BYTES`].
    #[error("an epoch has at most 64 bytes, this one has {len}")]
    EpochTooLong {
        /// Bytes of the refused text.
        len: usize,
    },
    /// An epoch with a character outside ASCII letters, digits, `.`, `_` and `-`.
    #[error("an epoch holds ASCII letters, digits, '.', '_' and '-' only, this one has {found:?}")]
    EpochCharacter {
        /// The first such character.
        found: char,
    },
    /// An offset of 2^53 or more.
    #[error("an offset is below 2^53, this one is {offset}")]
    OffsetTooLarge {
        /// The refused number.
        offset: u64,
    },
}

impl Epoch {
    /// The longest epoch, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Checks `text` and makes it an epoch.
    ///
    /// # Errors
    /// [`InvalidPosition`] where `text` is too long or holds another character than allowed.
    pub fn new(text: &str) -> Result<Self, InvalidPosition> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidPosition::EpochTooLong { len: text.len() });
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
            Some(found) => Err(InvalidPosition::EpochCharacter { found }),
            None => Ok(Self(text.into())),
        }
    }

    /// The epoch as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the empty epoch, which matches no log.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Offset {
    /// Before the first message of an epoch.
    pub const ZERO: Self = Self(0);
    /// The greatest offset, 2^53 - 1.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Checks `offset` and makes it one.
    ///
    /// # Errors
    /// [`InvalidPosition::OffsetTooLarge`] from 2^53 on.
    pub const fn new(offset: u64) -> Result<Self, InvalidPosition> {
        if offset > Self::MAX.0 {
            return Err(InvalidPosition::OffsetTooLarge { offset });
        }
        Ok(Self(offset))
    }

    /// The offset as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset of the message after this one. It stays at [`Offset::MAX`], which a room that
    /// takes a million messages a second reaches after 285 years.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 < Self::MAX.0 { Self(self.0 + 1) } else { self }
    }
}

impl Position {
    /// The position after message `offset` of `epoch`.
    ///
    /// # Errors
    /// [`InvalidPosition`] where one of the two is not valid.
    pub fn new(epoch: &str, offset: u64) -> Result<Self, InvalidPosition> {
        Ok(Self { epoch: Epoch::new(epoch)?, offset: Offset::new(offset)? })
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            epoch: Epoch,
            offset: Offset,
        }
        let Fields { epoch, offset } = Fields::deserialize(Object(deserializer))?;
        Ok(Self { epoch, offset })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidPosition;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.as_str().to_owned()
    }
}

impl TryFrom<u64> for Offset {
    type Error = InvalidPosition;

    fn try_from(offset: u64) -> Result<Self, Self::Error> {
        Self::new(offset)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> Self {
        offset.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stop_where_javascript_numbers_stop_being_exact() {
        assert_eq!(Offset::new((1 << 53) - 1), Ok(Offset::MAX));
        assert_eq!(Offset::new(1 << 53), Err(InvalidPosition::OffsetTooLarge { offset: 1 << 53 }));
        assert_eq!(Offset::MAX.next(), Offset::MAX);
        assert_eq!(Offset::ZERO.next().get(), 1);
    }

    #[test]
    fn an_epoch_is_short_and_plain() {
        assert!(Epoch::new("").unwrap().is_empty());
        assert!(Epoch::new(&"e".repeat(64)).is_ok());
        assert_eq!(Epoch::new(&"e".repeat(65)), Err(InvalidPosition::EpochTooLong { len: 65 }));
        assert_eq!(Epoch::new("a b"), Err(InvalidPosition::EpochCharacter { found: ' ' }));
    }

    #[test]
    fn positions_order_by_epoch_and_then_by_offset() {
        let at = |epoch, offset| Position::new(epoch, offset).unwrap();
        assert!(at("1", 9) < at("2", 1));
        assert!(at("2", 1) < at("2", 2));
    }
}
