//! What a page may post, checked where it is read: what exists of these types is valid.

use serde::{Deserialize, Serialize};
use twine_server_sdk::MessageId;

/// A message that someone wrote.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostedMessage {
    /// Named by the page, so that a post that is repeated is one message. Anyone may leave it out.
    pub(crate) id: Option<MessageId>,
    /// Tells two people of one name apart. It proves nothing: this chat has no accounts.
    pub(crate) author: Option<Author>,
    pub(crate) name: Name,
    pub(crate) text: Text,
}

/// Someone is writing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostedTyping {
    pub(crate) author: Author,
    pub(crate) name: Name,
}

/// What a person is called: 1 to 40 characters on one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

/// What a person says: 1 to 2,000 characters, on lines.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Text(String);

/// A page's name for the person in front of it: 1 to 64 characters on one line.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Author(String);

impl Author {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is none of the above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidText {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {len} characters, at most {limit} are allowed")]
    TooLong { what: &'static str, len: usize, limit: usize },
    #[error("{what} has a control character")]
    Control { what: &'static str },
}

/// `text` without white space around it, if it then has 1 to `limit` characters, all of them allowed.
fn checked(
    what: &'static str,
    text: &str,
    limit: usize,
    is_allowed: fn(char) -> bool,
) -> Result<String, InvalidText> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err(InvalidText::Empty { what }),
        len if len > limit => Err(InvalidText::TooLong { what, len, limit }),
        _ if !text.chars().all(is_allowed) => Err(InvalidText::Control { what }),
        _ => Ok(text.to_owned()),
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        checked("a name", &text, 40, |c| !c.is_control()).map(Self)
    }
}

impl TryFrom<String> for Text {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        checked("a text", &text, 2_000, |c| matches!(c, '\n' | '\t') || !c.is_control()).map(Self)
    }
}

impl TryFrom<String> for Author {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        checked("an author", &text, 64, |c| !c.is_control()).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_a_text_is_no_part_of_it() {
        assert_eq!(Text::try_from("  two\nlines \n".to_owned()).unwrap().0, "two\nlines");
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(Name::try_from("ü".repeat(40)).is_ok());
        assert_eq!(
            Name::try_from("ü".repeat(41)).unwrap_err().to_string(),
            "a name has 41 characters, at most 40 are allowed"
        );
    }

    #[test]
    fn a_name_fits_on_a_line() {
        assert_eq!(
            Name::try_from("two\nlines".to_owned()).unwrap_err(),
            InvalidText::Control { what: "a name" }
        );
        assert_eq!(Name::try_from(" \t".to_owned()).unwrap_err(), InvalidText::Empty { what: "a name" });
    }
}
