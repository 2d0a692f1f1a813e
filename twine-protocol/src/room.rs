//! Names of rooms.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a room: 1 to 255 bytes of UTF-8 without control characters (PROTOCOL.md, "Rooms").
///
/// Clones are cheap: they share the text.
///
/// ```
/// use twine_protocol::RoomName;
///
/// let room: RoomName = "chat".parse()?;
/// assert_eq!(room.as_str(), "chat");
/// assert!(RoomName::new("").is_err());
/// # Ok::<(), twine_protocol::InvalidRoomName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoomName(Arc<str>);

/// Why a text is not the name of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoomName {
    /// The empty text names no room.
    #[error("a room name must not be empty")]
    Empty,
    /// Longer than [`RoomName::MAX_BYTES`].
    #[error("a room name has at most 255 bytes of UTF-8, this one has {len}")]
    TooLong {
        /// Bytes of UTF-8 in the refused text.
        len: usize,
    },
    /// Holds a control character (Unicode category Cc).
    #[error("a room name must not hold control characters, this one has U+{:04X}", u32::from(*found))]
    Control {
        /// The first such character.
        found: char,
    },
}

impl RoomName {
    /// The longest name, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 255;

    /// Checks `name` and makes it a room's name.
    ///
    /// # Errors
    /// [`InvalidRoomName`] says which rule `name` breaks.
    pub fn new(name: &str) -> Result<Self, InvalidRoomName> {
        if name.is_empty() {
            return Err(InvalidRoomName::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(InvalidRoomName::TooLong { len: name.len() });
        }
        match name.chars().find(|c| c.is_control()) {
            Some(found) => Err(InvalidRoomName::Control { found }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for RoomName {
    type Err = InvalidRoomName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<&str> for RoomName {
    type Error = InvalidRoomName;

    fn try_from(name: &str) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl TryFrom<String> for RoomName {
    type Error = InvalidRoomName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::new(&name)
    }
}

impl From<RoomName> for String {
    fn from(room: RoomName) -> Self {
        room.as_str().to_owned()
    }
}

impl AsRef<str> for RoomName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_255_bytes() {
        assert_eq!(RoomName::new(""), Err(InvalidRoomName::Empty));
        assert!(RoomName::new("x").is_ok());
        assert!(RoomName::new(&"x".repeat(255)).is_ok());
        assert_eq!(RoomName::new(&"é".repeat(128)), Err(InvalidRoomName::TooLong { len: 256 }));
    }

    #[test]
    fn control_characters_are_refused_wherever_they_stand() {
        for bad in ["\0", "a\nb", "tab\t", "\u{7f}", "\u{85}"] {
            assert!(matches!(RoomName::new(bad), Err(InvalidRoomName::Control { .. })), "{bad:?}");
        }
        assert!(RoomName::new("a room/with spaces, ünïcode and \"quotes\"").is_ok());
    }
}
