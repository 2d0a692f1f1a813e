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
    /// Of each cookie those that are not shared, oldest first.
    here: HashMap<CookieHash, Vec<SessionId>>,
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
        if attachment.kept != Kept::Shared {
            self.here.entry(cookie).or_default().push(id.clone());
        }
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
        self.forget_here(id, attachment.about.session.cookie);
        Some(attachment)
    }

    /// The same for the attachment with this ticket, if it is still in force.
    pub(super) fn remove_current(&mut self, id: &SessionId, ticket: Ticket) -> Option<Attachment> {
        self.current(id, ticket)?;
        self.remove(id)
    }

    /// Notes where the session of an attachment is.
    pub(super) fn set_kept(&mut self, id: &SessionId, ticket: Ticket, kept: Kept) {
        let Some(attachment) = self.current(id, ticket) else { return };
        let was = std::mem::replace(&mut attachment.kept, kept);
        let cookie = attachment.about.session.cookie;
        match (was, kept) {
            (Kept::Here { .. }, Kept::Shared) => self.forget_here(id, cookie),
            (Kept::Shared, Kept::Here { .. }) => self.here.entry(cookie).or_default().push(id.clone()),
            _ => {}
        }
    }

    /// The sessions of a cookie that are not shared, oldest first.
    pub(super) fn here(&self, cookie: CookieHash) -> impl Iterator<Item = &Attachment> {
        let ids = self.here.get(&cookie).into_iter().flatten();
        ids.filter_map(|id| self.attachments.get(id))
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.attachments.values_mut()
    }

    fn forget_here(&mut self, id: &SessionId, cookie: CookieHash) {
        if let Some(ids) = self.here.get_mut(&cookie) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.here.remove(&cookie);
            }
        }
    }
}
