//! What hubs tell each other about sessions, on a channel of each. A letter may get lost: whoever waits for
//! an answer waits for so long only, and who was not told finds out when it saves.

use redis::Cmd;
use serde::{Deserialize, Serialize};
use twine_protocol::SessionId;

use super::row::HubId;
use super::shelf::lease_of;
use crate::broker::redis::{Link, RedisError, Request};
use crate::session::{Lost, Ticket};

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Letter {
    /// An attachment of yours is over.
    Lose { session: SessionId, ticket: Ticket, why: Lost },
    /// Is the connection of this attachment of yours alive? `from` wants to know.
    Probe { session: SessionId, ticket: Ticket, from: HubId },
    /// It is.
    Alive { session: SessionId },
    /// There is no such attachment.
    Gone { session: SessionId },
}

/// How it is written.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Written<'a> {
    Lose { session: &'a str, ticket: u64, forgotten: bool },
    Probe { session: &'a str, ticket: u64, from: &'a str },
    Alive { session: &'a str },
    Gone { session: &'a str },
}

impl Letter {
    fn write(&self) -> String {
        let written = match self {
            Self::Lose { session, ticket, why } => Written::Lose {
                session: session.as_str(),
                ticket: ticket.0,
                forgotten: *why == Lost::Forgotten,
            },
            Self::Probe { session, ticket, from } => {
                Written::Probe { session: session.as_str(), ticket: ticket.0, from: from.as_str() }
            }
            Self::Alive { session } => Written::Alive { session: session.as_str() },
            Self::Gone { session } => Written::Gone { session: session.as_str() },
        };
        // Texts and numbers: always JSON.
        #[allow(clippy::expect_used)]
        serde_json::to_string(&written).expect("texts and numbers are JSON")
    }

    /// Reads a letter; `None` where it is none, or of a later version.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let id = |session: &str| SessionId::new(session).ok();
        Some(match serde_json::from_slice(bytes).ok()? {
            Written::Lose { session, ticket, forgotten } => Self::Lose {
                session: id(session)?,
                ticket: Ticket(ticket),
                why: if forgotten { Lost::Forgotten } else { Lost::TakenOver },
            },
            Written::Probe { session, ticket, from } => {
                Self::Probe { session: id(session)?, ticket: Ticket(ticket), from: HubId::read(from)? }
            }
            Written::Alive { session } => Self::Alive { session: id(session)? },
            Written::Gone { session } => Self::Gone { session: id(session)? },
        })
    }

    /// Sends it to a hub, if that is there.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn post(&self, link: &Link, to: &HubId) -> Result<(), RedisError> {
        let channel = lease_of(to);
        let mut command = Cmd::new();
        command.arg("SPUBLISH").arg(channel.name()).arg(self.write());
        link.ask(channel.slot(), &Request::plain(command)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let session = SessionId::new("s1").unwrap();
        let (ticket, from) = (Ticket(u64::MAX), HubId::new());
        let letters = [
            Letter::Lose { session: session.clone(), ticket, why: Lost::TakenOver },
            Letter::Lose { session: session.clone(), ticket, why: Lost::Forgotten },
            Letter::Probe { session: session.clone(), ticket, from },
            Letter::Alive { session: session.clone() },
            Letter::Gone { session },
        ];
        for letter in letters {
            assert_eq!(Letter::read(letter.write().as_bytes()), Some(letter));
        }
    }

    #[test]
    fn what_is_no_letter_is_left_aside() {
        for bytes in ["", "{}", r#"{"type":"later"}"#, r#"{"type":"alive","session":""}"#, "\u{0}"] {
            assert_eq!(Letter::read(bytes.as_bytes()), None, "{bytes:?}");
        }
    }
}
