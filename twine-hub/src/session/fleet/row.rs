//! A session as it is written in Redis.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use twine_protocol::{InstanceId, SessionId};
use uuid::Uuid;

use crate::session::store::Session;
use crate::session::{CookieHash, Ticket};

/// A hub, as long as its process lives: 32 hexadecimal digits, made up at its start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HubId(Arc<str>);

impl HubId {
    pub(super) fn new() -> Self {
        Self(Uuid::new_v4().simple().to_string().into())
    }

    /// Reads one; `None` where it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_one = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_one.then(|| Self(text.into()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Its first digits, as ids are shown in the log.
impl fmt::Debug for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..8).unwrap_or(&self.0))
    }
}

/// One attachment of a session, among those of all hubs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holding {
    pub(super) hub: HubId,
    pub(super) ticket: Ticket,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.hub.as_str(), self.ticket.0)
    }
}

/// One attachment, and its place among those of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) by: Holding,
    /// Later ones are greater.
    pub(super) generation: u64,
}

/// What is known of a session beside its rooms and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// Without the time of its detaching: the row has that.
    pub(super) session: Session,
    /// Whom the client object that it is attached to came after.
    pub(super) prev: Option<InstanceId>,
    /// When it began, in milliseconds by some hub's clock: which of a cookie's sessions is the older one.
    pub(super) created: u64,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) about: About,
    /// Which of the session's attachments it is of: later ones are greater.
    pub(super) generation: u64,
    /// Which one that is, as long as it is in force.
    pub(super) held_by: Option<Holding>,
    /// When something was written of it last, in milliseconds by Redis' clock.
    pub(super) touched: u64,
}

/// The last line of a row.
#[derive(Serialize, Deserialize)]
struct What {
    origin: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Box<str>>,
    scope: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prev: Option<String>,
    created: u64,
}

impl About {
    /// The last line of its row.
    pub(super) fn write(&self) -> String {
        let Session { origin, subject, scope, instance, .. } = &self.session;
        let text = |id: &Option<InstanceId>| id.as_ref().map(|id| id.as_str().to_owned());
        let what = What {
            origin: (**origin).into(),
            subject: subject.clone(),
            scope: scope.clone(),
            instance: text(instance),
            prev: text(&self.prev),
            created: self.created,
        };
        // Texts and numbers: always JSON.
        #[allow(clippy::expect_used)]
        serde_json::to_string(&what).expect("texts and numbers are JSON")
    }
}

impl Row {
    /// Reads a row; `None` where it is none: it is damaged, or of a later version.
    pub(super) fn read(cookie: CookieHash, id: &str, row: &[u8]) -> Option<Self> {
        let (first, rest) = std::str::from_utf8(row).ok()?.split_once('\n')?;
        let (touched, what) = rest.split_once('\n')?;
        let (generation, holder) = first.split_once(' ')?;
        let held_by = match holder {
            "-" => None,
            holder => {
                let (hub, ticket) = holder.split_once(' ')?;
                Some(Holding { hub: HubId::read(hub)?, ticket: Ticket(ticket.parse().ok()?) })
            }
        };
        let What { origin, subject, scope, instance, prev, created } = serde_json::from_str(what).ok()?;
        let instance_id = |text: Option<String>| text.map(|text| InstanceId::new(&text)).transpose().ok();
        let session = Session {
            id: SessionId::new(id).ok()?,
            cookie,
            origin: origin.into(),
            subject,
            scope,
            instance: instance_id(instance)?,
            detached: None,
        };
        let about = About { session, prev: instance_id(prev)?, created };
        let (generation, touched) = (generation.parse().ok()?, touched.parse().ok()?);
        Some(Self { about, generation, held_by, touched })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOKIE: CookieHash = CookieHash([7; 16]);

    fn rows() -> impl Strategy<Value = Row> {
        let text = "[^\\p{Cc}]{0,20}";
        let optional = || prop::option::of("[a-z0-9]{1,20}");
        (text, prop::option::of(text), text, optional(), optional(), any::<(u32, u32, Option<u64>)>())
            .prop_map(|(origin, subject, scope, instance, prev, (time, generation, ticket))| {
                let id = |text: Option<String>| text.map(|text| InstanceId::new(&text).unwrap());
                let session = Session {
                    id: SessionId::new("0123456789abcdef").unwrap(),
                    cookie: COOKIE,
                    origin: origin.into(),
                    subject: subject.map(Into::into),
                    scope: scope.into(),
                    instance: id(instance),
                    detached: None,
                };
                let about = About { session, prev: id(prev), created: u64::from(time) };
                let held_by = ticket.map(|ticket| Holding { hub: HubId::new(), ticket: Ticket(ticket) });
                Row { about, generation: generation.into(), held_by, touched: u64::from(time) }
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(row in rows()) {
            let holder = row.held_by.as_ref().map_or("-".to_owned(), Holding::to_string);
            let written = format!("{} {holder}\n{}\n{}", row.generation, row.touched, row.about.write());
            let read = Row::read(COOKIE, row.about.session.id.as_str(), written.as_bytes());
            prop_assert_eq!(read, Some(row));
        }

        #[test]
        fn any_bytes_are_a_row_or_none(id in "\\PC{0,40}", row: Vec<u8>, lines in "[0-9]{0,25} (-|[a-f0-9]{32} [0-9]{0,25})\n[0-9]{0,25}\n.{0,40}") {
            let _read_or_none = Row::read(COOKIE, &id, &row);
            let _read_or_none = Row::read(COOKIE, &id, lines.as_bytes());
        }
    }
}
