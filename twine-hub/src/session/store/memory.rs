//! Sessions in this process: nothing outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use twine_protocol::{InstanceId, SessionId};

use super::{Session, Store};
use crate::session::{CookieHash, Cursors};
use crate::store::StoreError;

/// Nothing here can fail, so there is never anything to take back: each call is in force at once.
#[derive(Default)]
pub(super) struct MemoryStore {
    sessions: BTreeMap<SessionId, Box<Row>>,
    /// In the order of their creation, by its number.
    by_cookie: BTreeMap<(CookieHash, u64), SessionId>,
    last: u64,
    by_detached: BTreeSet<(u64, SessionId)>,
}

/// A session by its id.
struct Row {
    cookie: CookieHash,
    origin: Arc<str>,
    subject: Option<Box<str>>,
    scope: Box<str>,
    instance: Option<InstanceId>,
    detached: Option<u64>,
    rooms: Cursors,
    /// Which of those ever made it is.
    number: u64,
}

impl Row {
    fn session(&self, id: &SessionId) -> Session {
        let Self { cookie, origin, subject, scope, instance, detached, .. } = self;
        Session {
            id: id.clone(),
            cookie: *cookie,
            origin: origin.clone(),
            subject: subject.clone(),
            scope: scope.clone(),
            instance: instance.clone(),
            detached: *detached,
        }
    }
}

impl MemoryStore {
    fn set_detached(&mut self, id: &SessionId, detached: Option<u64>) -> Option<&mut Row> {
        let row = self.sessions.get_mut(id)?;
        if let Some(time) = row.detached {
            self.by_detached.remove(&(time, id.clone()));
        }
        if let Some(time) = detached {
            self.by_detached.insert((time, id.clone()));
        }
        row.detached = detached;
        Some(row)
    }

    fn forget(&mut self, id: &SessionId) -> Option<Session> {
        let row = self.sessions.remove(id)?;
        if let Some(time) = row.detached {
            self.by_detached.remove(&(time, id.clone()));
        }
        self.by_cookie.remove(&(row.cookie, row.number));
        Some(row.session(id))
    }
}

impl Store for MemoryStore {
    fn waits(&self) -> bool {
        false
    }

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
        let of_cookie = self.by_cookie.range((cookie, 0)..=(cookie, u64::MAX));
        Ok(of_cookie.filter_map(|(_, id)| Some(self.sessions.get(id)?.session(id))).collect())
    }

    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        Ok(self.sessions.get(id).map(|row| row.rooms.clone()))
    }

    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError> {
        self.forget(&session.id);
        self.last += 1;
        let number = self.last;
        self.by_cookie.insert((session.cookie, number), session.id.clone());
        if let Some(time) = session.detached {
            self.by_detached.insert((time, session.id.clone()));
        }
        let Session { id, cookie, origin, subject, scope, instance, detached } = session.clone();
        let row = Row { cookie, origin, subject, scope, instance, detached, rooms: rooms.clone(), number };
        self.sessions.insert(id, Box::new(row));
        Ok(())
    }

    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError> {
        if let Some(row) = self.set_detached(id, None) {
            row.instance = instance.cloned();
        }
        Ok(())
    }

    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError> {
        self.set_detached(id, Some(time));
        Ok(())
    }

    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError> {
        if let Some(row) = self.sessions.get_mut(id) {
            row.rooms.clone_from(rooms);
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
