//! A store that fails when a test says so, at whatever it is doing then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use twine_protocol::{InstanceId, SessionId};

use crate::clock::{self, manual};
use crate::session::store::{Session, Store};
use crate::session::{CookieHash, Cursors};
use crate::store::StoreError;

#[derive(Clone, Default)]
pub(super) struct Faults {
    /// Which call fails: the so many-th from now; 0 stands for none.
    nth: Arc<AtomicUsize>,
    /// How long a commit takes, by the time that the test sets.
    commit_millis: Arc<AtomicU64>,
}

impl Faults {
    pub(super) fn fail_at(&self, nth: usize) {
        self.nth.store(nth, Ordering::Relaxed);
    }

    pub(super) fn slow_commits(&self, millis: u64) {
        self.commit_millis.store(millis, Ordering::Relaxed);
    }

    /// Whether the call is still to come.
    pub(super) fn is_armed(&self) -> bool {
        self.nth.load(Ordering::Relaxed) > 0
    }
}

/// A store that works, but for these faults. Only what is done in a transaction counts.
pub(super) struct FaultyStore {
    store: Box<dyn Store>,
    faults: Faults,
    is_open: bool,
}

impl FaultyStore {
    pub(super) fn new(store: Box<dyn Store>, faults: Faults) -> Self {
        Self { store, faults, is_open: false }
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.is_open && self.faults.is_armed() {
            let was = self.faults.nth.fetch_sub(1, Ordering::Relaxed);
            if was == 1 {
                let source = rusqlite::Error::InvalidQuery;
                return Err(StoreError::Database { action: "being tested", source });
            }
        }
        call(&mut *self.store)
    }
}

impl Store for FaultyStore {
    fn begin(&mut self) -> Result<(), StoreError> {
        self.is_open = true;
        self.call(|store| store.begin())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let millis = self.faults.commit_millis.load(Ordering::Relaxed);
        if millis > 0 {
            let now = clock::now() + Duration::from_millis(millis);
            manual::set(Some(manual::Set { now, unix_millis: clock::unix_millis() + millis }));
        }
        let committed = self.call(|store| store.commit());
        if committed.is_err() {
            self.store.rollback();
        }
        self.is_open = false;
        committed
    }

    fn rollback(&mut self) {
        self.is_open = false;
        self.store.rollback();
    }

    fn len(&self) -> usize {
        self.store.len()
    }

    fn of_cookie(&mut self, cookie: CookieHash) -> Result<Vec<Session>, StoreError> {
        self.call(|store| store.of_cookie(cookie))
    }

    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        self.call(|store| store.rooms(id))
    }

    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError> {
        self.call(|store| store.insert(session, rooms))
    }

    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError> {
        self.call(|store| store.attach(id, instance))
    }

    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError> {
        self.call(|store| store.detach(id, time))
    }

    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError> {
        self.call(|store| store.save(id, rooms))
    }

    fn take(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError> {
        self.call(|store| store.take(id))
    }

    fn remove(&mut self, id: &SessionId) -> Result<(), StoreError> {
        self.call(|store| store.remove(id))
    }

    fn remove_longest_detached(&mut self) -> Result<bool, StoreError> {
        self.call(|store| store.remove_longest_detached())
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        self.call(|store| store.expire(cut, limit))
    }
}
