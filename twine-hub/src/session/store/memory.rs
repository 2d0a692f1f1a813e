//! Sessions in this process: nothing outlives it.

use std::collections::{BTreeSet, HashMap};

use twine_protocol::{InstanceId, SessionId};

use super::{Session, Store};
use crate::session::{CookieHash, Cursors};
use crate::store::StoreError;

/// Nothing here can fail, so there is never anything to take back: each call is in force at once.
#[derive(Default)]
pub(super) struct MemoryStore {
    sessions: HashMap<SessionId, (Session, Cursors)>,
    /// In the order of their creation.
    by_cookie: HashMap<CookieHash, Vec<SessionId>>,
    by_detached: BTreeSet<(u64, SessionId)>,
}

impl MemoryStore {
    fn set_detached(&mut self, id: &SessionId, detached: Option<u64>) -> Option<&mut Session> {
        let (session, _) = self.sessions.get_mut(id)?;
        if let Some(time) = session.detached {
            self.by_detached.remove(&(time, id.clone()));
        }
        if let Some(time) = detached {
            self.by_detached.insert((time, id.clone()));
        }
        session.detached = detached;
        Some(session)
    }

    fn forget(&mut self, id: &SessionId) -> Option<Session> {
        let detached = self.sessions.get(id)?.0.detached;
        self.set_detached(id, None);
        let (session, _) = self.sessions.remove(id)?;
        if let Some(of_cookie) = self.by_cookie.get_mut(&session.cookie) {
            of_cookie.retain(|other| other != id);
            if of_cookie.is_empty() {
                self.by_cookie.remove(&session.cookie);
            }
        }
        Some(Session { detached, ..session })
    }
}

impl Store for MemoryStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn rollback(&mut self) {}

    fn len(&self) -> usize {
        self.sessions.len()
    }

    fn of_cookie(&mut self, cookie: CookieHash) -> Result<Vec<Session>, StoreError> {
        let ids = self.by_cookie.get(&cookie).into_iter().flatten();
        Ok(ids.filter_map(|id| self.sessions.get(id)).map(|(session, _)| session.clone()).collect())
    }

    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        Ok(self.sessions.get(id).map(|(_, rooms)| rooms.clone()))
    }

    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError> {
        self.forget(&session.id);
        self.by_cookie.entry(session.cookie).or_default().push(session.id.clone());
        if let Some(time) = session.detached {
            self.by_detached.insert((time, session.id.clone()));
        }
        self.sessions.insert(session.id.clone(), (session.clone(), rooms.clone()));
        Ok(())
    }

    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError> {
        if let Some(session) = self.set_detached(id, None) {
            session.instance = instance.cloned();
        }
        Ok(())
    }

    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError> {
        self.set_detached(id, Some(time));
        Ok(())
    }

    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError> {
        if let Some((_, saved)) = self.sessions.get_mut(id) {
            saved.clone_from(rooms);
        }
        Ok(())
    }

    fn take(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        Ok(self.forget(id))
    }

    fn remove(&mut self, id: &SessionId) -> Result<(), StoreError> {
        self.forget(id);
        Ok(())
    }

    fn remove_longest_detached(&mut self) -> Result<bool, StoreError> {
        let oldest = self.by_detached.first().map(|(_, id)| id.clone());
        Ok(oldest.is_some_and(|id| self.forget(&id).is_some()))
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let expired = self.by_detached.iter().take(limit).take_while(|(time, _)| *time < cut);
        let expired: Vec<_> = expired.map(|(_, id)| id.clone()).collect();
        for id in &expired {
            self.forget(id);
        }
        Ok(expired.len())
    }
}
