//! Which connections hold which sessions. What a round changes is undone where it fails.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use twine_protocol::{InstanceId, SessionId};

use super::waiting::ClaimId;
use crate::connection::Key;
use crate::session::store::Session;
use crate::session::{CookieHash, Holder, Ticket};

/// The connection that a session is attached to.
#[derive(Clone)]
pub(super) struct Attachment {
    pub(super) ticket: Ticket,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) key: Key,
    /// What few have, and so takes no room in the others.
    rare: Option<Box<Rare>>,
    /// The session itself, as long as it has no room and so is not in the store.
    pub(super) fresh: Option<Box<Fresh>>,
}

#[derive(Clone, Default)]
struct Rare {
    /// The client object that the connection said it came after.
    prev: Option<InstanceId>,
    /// Claims that wait to hear whether the connection is alive.
    asked_by: Vec<ClaimId>,
}

impl Attachment {
    pub(super) fn new(
        ticket: Ticket,
        holder: Arc<dyn Holder>,
        key: Key,
        prev: Option<InstanceId>,
        fresh: Option<Box<Fresh>>,
    ) -> Self {
        let rare = prev.map(|prev| Box::new(Rare { prev: Some(prev), asked_by: Vec::new() }));
        Self { ticket, holder, key, rare, fresh }
    }

    /// A claim waits to hear whether the connection is alive.
    pub(super) fn ask(&mut self, claim: ClaimId) {
        self.rare.get_or_insert_default().asked_by.push(claim);
    }

    /// Takes the claims that wait for that.
    pub(super) fn take_asked_by(&mut self) -> Vec<ClaimId> {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.asked_by)).unwrap_or_default()
    }
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
    /// A tree: a table has room for twice as many at times, and leaves its last one behind each time it grows.
    attachments: BTreeMap<SessionId, Attachment>,
    /// Sessions of a cookie that are not in the store, oldest first.
    fresh_of: HashMap<CookieHash, Vec<SessionId>>,
    /// What the round under way has changed, as it was before.
    before: HashMap<SessionId, Option<Attachment>>,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.attachments.len()
    }

    pub(super) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Attachment> {
        self.attachments.get_mut(id)
    }

    /// The attachment with this ticket, if it is still in force.
    pub(super) fn current(&mut self, id: &SessionId, ticket: Ticket) -> Option<&mut Attachment> {
        self.attachments.get_mut(id).filter(|attachment| attachment.ticket == ticket)
    }

    /// Whom the connection that holds a session said it came after.
    pub(super) fn prev(&self, id: &SessionId) -> Option<&InstanceId> {
        self.attachments.get(id)?.rare.as_ref()?.prev.as_ref()
    }

    pub(super) fn is_fresh(&self, id: &SessionId) -> bool {
        self.attachments.get(id).is_some_and(|attachment| attachment.fresh.is_some())
    }

    pub(super) fn insert(&mut self, id: SessionId, attachment: Attachment) {
        self.remember(&id);
        self.put(id, attachment);
    }

    pub(super) fn remove(&mut self, id: &SessionId) -> Option<Attachment> {
        self.remember(id);
        self.pull(id)
    }

    /// Notes that the session is not in the store.
    pub(super) fn set_fresh(&mut self, id: &SessionId, fresh: Box<Fresh>) {
        if let Some(attachment) = self.remove(id) {
            self.put(id.clone(), Attachment { fresh: Some(fresh), ..attachment });
        }
    }

    /// Notes that it is.
    pub(super) fn set_stored(&mut self, id: &SessionId) {
        if let Some(attachment) = self.remove(id) {
            self.put(id.clone(), Attachment { fresh: None, ..attachment });
        }
    }

    /// The round is in the store.
    pub(super) fn commit(&mut self) {
        self.before.clear();
    }

    /// The round is not: everything is attached as it was before, and as the store has it. Gives back
    /// what claims have to wait for again, for they were told that it had ended.
    pub(super) fn rollback(&mut self) -> Vec<(ClaimId, SessionId, Ticket)> {
        let mut waits = Vec::new();
        let mut before: Vec<_> = std::mem::take(&mut self.before).into_iter().collect();
        // The oldest first, as they are among those of their cookie.
        before.sort_by_key(|(_, attachment)| attachment.as_ref().map(|attachment| attachment.ticket));
        for (id, before) in before {
            let after = self.pull(&id);
            let Some(mut attachment) = before else { continue };
            if let Some(after) = after.filter(|after| after.ticket == attachment.ticket) {
                // Claims go on waiting, but those that have heard of it.
                attachment.rare = after.rare;
            } else if let Some(rare) = &attachment.rare {
                waits.extend(rare.asked_by.iter().map(|claim| (*claim, id.clone(), attachment.ticket)));
            }
            self.put(id, attachment);
        }
        waits
    }

    fn remember(&mut self, id: &SessionId) {
        if !self.before.contains_key(id) {
            self.before.insert(id.clone(), self.attachments.get(id).cloned());
        }
    }

    fn put(&mut self, id: SessionId, attachment: Attachment) {
        if let Some(fresh) = &attachment.fresh {
            self.fresh_of.entry(fresh.session.cookie).or_default().push(id.clone());
        }
        self.attachments.insert(id, attachment);
    }

    fn pull(&mut self, id: &SessionId) -> Option<Attachment> {
        let attachment = self.attachments.remove(id)?;
        if let Some(Fresh { session, .. }) = attachment.fresh.as_deref()
            && let Some(ids) = self.fresh_of.get_mut(&session.cookie)
        {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.fresh_of.remove(&session.cookie);
            }
        }
        Some(attachment)
    }

    /// The sessions of a cookie that are not in the store, oldest first.
    pub(super) fn fresh_of(&self, cookie: CookieHash) -> impl Iterator<Item = &Session> {
        let ids = self.fresh_of.get(&cookie).into_iter().flatten();
        let fresh = ids.filter_map(|id| self.attachments.get(id)?.fresh.as_deref());
        fresh.map(|fresh| &fresh.session)
    }
}
