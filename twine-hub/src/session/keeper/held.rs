//! Which connections hold which sessions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use twine_protocol::SessionId;

use super::waiting::ClaimId;
use crate::connection::Key;
use crate::session::store::Session;
use crate::session::{CookieHash, Holder, Ticket};

/// The connection that a session is attached to.
pub(super) struct Attachment {
    pub(super) ticket: Ticket,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) key: Key,
    /// Claims that wait to hear whether the connection is alive.
    pub(super) asked_by: Vec<ClaimId>,
    /// The session itself, as long as it has no room and so is not in the store.
    pub(super) fresh: Option<Box<Fresh>>,
}

/// A session that is not in the store.
#[derive(Debug, Clone)]
pub(super) struct Fresh {
    pub(super) session: Session,
    /// Whose new session it is; `None` for one that was stored before and has lost its rooms.
    pub(super) newcomer: Option<IpAddr>,
}

/// All attachments.
#[derive(Default)]
pub(super) struct Held {
    attachments: HashMap<SessionId, Attachment>,
    /// Sessions of a cookie that are not in the store, oldest first.
    fresh_of: HashMap<CookieHash, Vec<SessionId>>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.attachments.len()
    }

    pub(super) fn contains(&self, id: &SessionId) -> bool {
        self.attachments.contains_key(id)
    }

    pub(super) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Attachment> {
        self.attachments.get_mut(id)
    }

    /// The attachment with this ticket, if it is still in force.
    pub(super) fn current(&mut self, id: &SessionId, ticket: Ticket) -> Option<&mut Attachment> {
        self.attachments.get_mut(id).filter(|attachment| attachment.ticket == ticket)
    }

    pub(super) fn insert(&mut self, id: SessionId, attachment: Attachment) {
        if let Some(fresh) = &attachment.fresh {
            self.fresh_of.entry(fresh.session.cookie).or_default().push(id.clone());
        }
        self.attachments.insert(id, attachment);
    }

    pub(super) fn remove(&mut self, id: &SessionId) -> Option<Attachment> {
        let fresh = self.take_fresh(id);
        let attachment = self.attachments.remove(id)?;
        Some(Attachment { fresh, ..attachment })
    }

    /// Notes that the session is not in the store.
    pub(super) fn set_fresh(&mut self, id: &SessionId, fresh: Box<Fresh>) {
        if let Some(attachment) = self.attachments.get_mut(id) {
            self.fresh_of.entry(fresh.session.cookie).or_default().push(id.clone());
            attachment.fresh = Some(fresh);
        }
    }

    /// Notes that it is.
    pub(super) fn take_fresh(&mut self, id: &SessionId) -> Option<Box<Fresh>> {
        let fresh = self.attachments.get_mut(id)?.fresh.take()?;
        let cookie = fresh.session.cookie;
        if let Some(ids) = self.fresh_of.get_mut(&cookie) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.fresh_of.remove(&cookie);
            }
        }
        Some(fresh)
    }

    /// The sessions of a cookie that are not in the store, oldest first.
    pub(super) fn fresh_of(&self, cookie: CookieHash) -> impl Iterator<Item = &Session> {
        let ids = self.fresh_of.get(&cookie).into_iter().flatten();
        let fresh = ids.filter_map(|id| self.attachments.get(id)?.fresh.as_deref());
        fresh.map(|fresh| &fresh.session)
    }
}
