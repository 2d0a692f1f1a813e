//! What hubs tell each other about sessions, on a channel of each. A letter may get lost: whoever waits for
//! an answer waits for so long only, and who was not told finds out when it saves.

use redis::Cmd;
use serde::{Deserialize, Serialize};
use twine_protocol::SessionId;

use super::asks::Sign;
use super::row::{Holding, HubId};
use super::shelf::{cookie_of, hex, lease_of};
use crate::broker::redis::{Link, RedisError, Request};
use crate::session::{CookieHash, Lost, Ticket};

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Letter {
    /// An attachment of yours is over.
    Lose { session: SessionId, ticket: Ticket, why: Lost },
    /// Is the connection of this attachment of yours alive? `from` wants to know.
    Probe { session: SessionId, cookie: CookieHash, ticket: Ticket, from: HubId },
    /// What you asked of an attachment of `by`.
    Answer { session: SessionId, by: Holding, sign: Sign },
}

/// How it is written.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Written<'a> {
    Lose { session: &'a str, ticket: u64, forgotten: bool },
    Probe { session: &'a str, cookie: String, ticket: u64, from: &'a str },
    Answer { session: &'a str, hub: &'a str, ticket: u64, alive: bool },
}

impl Letter {
    fn write(&self) -> String {
        let written = match self {
            Self::Lose { session, ticket, why } => Written::Lose {
                session: session.as_str(),
                ticket: ticket.0,
                forgotten: *why == Lost::Forgotten,
            },
            Self::Probe { session, cookie, ticket, from } => Written::Probe {
                session: session.as_str(),
                cookie: hex(*cookie),
                ticket: ticket.0,
                from: from.as_str(),
            },
            Self::Answer { session, by, sign } => Written::Answer {
                session: session.as_str(),
                hub: by.hub.as_str(),
                ticket: by.ticket.0,
                alive: *sign == Sign::Alive,
            },
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
            Written::Probe { session, cookie, ticket, from } => Self::Probe {
                session: id(session)?,
                cookie: cookie_of(&cookie)?,
                ticket: Ticket(ticket),
                from: HubId::read(from)?,
            },
            Written::Answer { session, hub, ticket, alive } => Self::Answer {
                session: id(session)?,
                by: Holding { hub: HubId::read(hub)?, ticket: Ticket(ticket) },
                sign: if alive { Sign::Alive } else { Sign::Gone },
            },
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
        let (ticket, hub) = (Ticket(u64::MAX), HubId::new());
        let by = Holding { hub: hub.clone(), ticket };
        let letters = [
            Letter::Lose { session: session.clone(), ticket, why: Lost::TakenOver },
            Letter::Lose { session: session.clone(), ticket, why: Lost::Forgotten },
            Letter::Probe {
                session: session.clone(),
                cookie: CookieHash([1; 16]),
                ticket,
                from: hub.clone(),
            },
            Letter::Answer { session: session.clone(), by: by.clone(), sign: Sign::Alive },
            Letter::Answer { session, by, sign: Sign::Gone },
        ];
        for letter in letters {
            assert_eq!(Letter::read(letter.write().as_bytes()), Some(letter));
        }
    }

    #[test]
    fn what_is_no_letter_is_left_aside() {
        for bytes in ["", "{}", r#"{"type":"later"}"#, r#"{"type":"lose","session":""}"#, "\u{0}"] {
            assert_eq!(Letter::read(bytes.as_bytes()), None, "{bytes:?}");
        }
    }
}
