//! Which sessions the connections of this hub hold, as far as it knows.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use twine_protocol::{InstanceId, SessionId};

use super::row::{About, HubId};
use crate::connection::Key;
use crate::session::store::Session;
use crate::session::{CookieHash, Holder, Lost, Ticket};

/// The connection that a session is attached to.
pub(super) struct Attachment {
    pub(super) ticket: Ticket,
    /// Its place among the attachments of its session.
    pub(super) generation: u64,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) key: Key,
    pub(super) about: Arc<About>,
    pub(super) kept: Kept,
    /// Hubs that want to know whether the connection is alive.
    pub(super) asked_by: Vec<HubId>,
    /// When it last said something of its session.
    pub(super) saved: Instant,
}

/// Whether a session is in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is, as far as this hub knows.
    Shared,
    /// It has no room yet, or there was no place for it: it goes with its connection.
    Here {
        /// Whose new session it is; `None` for one that was shared before.
        newcomer: Option<IpAddr>,
    },
}

impl Attachment {
    pub(super) fn lose(&self, why: Lost) {
        self.holder.lose(self.key, self.ticket, why);
    }
}

/// All attachments of this hub.
#[derive(Default)]
pub(super) struct Held {
    attachments: HashMap<SessionId, Attachment>,
    /// Of each cookie, oldest first.
    of_cookie: HashMap<CookieHash, Vec<SessionId>>,
    /// Attachments that may be in force in Redis already. Each is the one that a claim is about: those of a
    /// cookie have their turns.
    expected: HashMap<SessionId, Expected>,
}

/// An attachment that is about to be.
struct Expected {
    ticket: Ticket,
    /// Whether another hub has taken it over before this one knew that it was.
    is_lost: bool,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.attachments.len()
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<&Attachment> {
        self.attachments.get(id)
    }

    /// The attachment with this ticket, if it is still in force.
    pub(super) fn current(&mut self, id: &SessionId, ticket: Ticket) -> Option<&mut Attachment> {
        self.attachments.get_mut(id).filter(|attachment| attachment.ticket == ticket)
    }

    /// Whom the connection that holds a session said it came after.
    pub(super) fn prev(&self, id: &SessionId) -> Option<InstanceId> {
        self.attachments.get(id)?.about.prev.clone()
    }

    /// Attaches a session. Gives back the attachment that this ends.
    pub(super) fn insert(&mut self, attachment: Attachment) -> Option<Attachment> {
        let Session { id, cookie, .. } = attachment.about.session.clone();
        let before = self.remove(&id);
        self.of_cookie.entry(cookie).or_default().push(id.clone());
        self.attachments.insert(id, attachment);
        before
    }

    /// Expects an attachment.
    pub(super) fn expect(&mut self, id: SessionId, ticket: Ticket) {
        self.expected.insert(id, Expected { ticket, is_lost: false });
    }

    /// Whether this attachment is expected.
    pub(super) fn expects(&self, id: &SessionId, ticket: Ticket) -> bool {
        self.expected.get(id).is_some_and(|expected| expected.ticket == ticket)
    }

    /// Notes that this attachment is over, if it is expected.
    pub(super) fn lose_expected(&mut self, id: &SessionId, ticket: Ticket) {
        if let Some(expected) = self.expected.get_mut(id).filter(|expected| expected.ticket == ticket) {
            expected.is_lost = true;
        }
    }

    /// Expects it no more; says whether it is over already.
    pub(super) fn end_expecting(&mut self, id: &SessionId) -> bool {
        self.expected.remove(id).is_some_and(|expected| expected.is_lost)
    }

    pub(super) fn remove(&mut self, id: &SessionId) -> Option<Attachment> {
        let attachment = self.attachments.remove(id)?;
        let cookie = attachment.about.session.cookie;
        if let Some(ids) = self.of_cookie.get_mut(&cookie) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.of_cookie.remove(&cookie);
            }
        }
        Some(attachment)
    }

    /// The same for the attachment with this ticket, if it is still in force.
    pub(super) fn remove_current(&mut self, id: &SessionId, ticket: Ticket) -> Option<Attachment> {
        self.current(id, ticket)?;
        self.remove(id)
    }

    /// Notes where the session of an attachment is.
    pub(super) fn set_kept(&mut self, id: &SessionId, ticket: Ticket, kept: Kept) {
        if let Some(attachment) = self.current(id, ticket) {
            attachment.kept = kept;
        }
    }

    /// The sessions of a cookie that connections of this hub hold, oldest first.
    pub(super) fn of_cookie(&self, cookie: CookieHash) -> impl Iterator<Item = &Attachment> {
        let ids = self.of_cookie.get(&cookie).into_iter().flatten();
        ids.filter_map(|id| self.attachments.get(id))
    }

    /// Those of them that are not shared.
    pub(super) fn here(&self, cookie: CookieHash) -> impl Iterator<Item = &Attachment> {
        self.of_cookie(cookie).filter(|attachment| attachment.kept != Kept::Shared)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.attachments.values_mut()
    }
}
