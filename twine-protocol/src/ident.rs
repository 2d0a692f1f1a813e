//! Ids of messages, sessions and pages.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The empty text is no id.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than this kind of id may be.
    #[error("this id has {len} bytes, at most {limit} are allowed")]
    TooLong {
        /// Bytes of the refused text.
        len: usize,
        /// The most bytes this kind of id has.
        limit: usize,
    },
    /// Holds a character that this kind of id can't hold.
    #[error("this id holds {found:?}, which is not allowed in it")]
    Character {
        /// The first such character.
        found: char,
    },
}

// One function for all kinds: in a browser, each copy would be loaded.
fn check(text: &str, limit: usize, allowed: fn(char) -> bool) -> Result<Arc<str>, InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > limit {
        return Err(InvalidId::TooLong { len: text.len(), limit });
    }
    match text.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(InvalidId::Character { found }),
        None => Ok(text.into()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest id of this kind, in bytes of UTF-8.
            pub const MAX_BYTES: usize = $max;

            /// Checks `text` and makes it an id.
            ///
            /// # Errors
            /// [`InvalidId`] says which rule `text` breaks.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                check(text, Self::MAX_BYTES, $allowed).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.as_str().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A publisher's name for a message; publishing it again within the window stores nothing
    /// (PROTOCOL.md, "Publishing"). 1 to 128 bytes of UTF-8 without control characters.
    #[derive(Debug)]
    MessageId, 128, |c| !c.is_control()
}

id! {
    /// What outlives a connection, named by the hub (PROTOCOL.md, "Sessions"). 1 to 64 ASCII
    /// letters, digits, `_` and `-`. `Debug` shows its first four characters only.
    SessionId, 64, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

id! {
    /// A client object in a page, named at random by itself (PROTOCOL.md, "Sessions"). 1 to 64
    /// ASCII letters, digits, `_` and `-`.
    #[derive(Debug)]
    InstanceId, 64, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:.4}…)", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_and_plain() {
        assert_eq!(MessageId::new(""), Err(InvalidId::Empty));
        assert!(MessageId::new("order 4711: paid ✓").is_ok());
        assert_eq!(MessageId::new(&"x".repeat(129)), Err(InvalidId::TooLong { len: 129, limit: 128 }));
        assert_eq!(SessionId::new("a b"), Err(InvalidId::Character { found: ' ' }));
    }

    #[test]
    fn a_session_id_is_not_printed_whole() {
        assert_eq!(format!("{:?}", SessionId::new("abcdefgh").unwrap()), "SessionId(abcd…)");
    }
}
