//! Where sessions are kept: rows, and nothing decided about them.
//!
//! A transaction is the keeper's round. Invariants every store keeps, checked by [`conformance`]:
//! what was rolled back is not there, what was committed survives the end of the process (as far as
//! the store is durable at all), and no session is attached in a store that was just opened. A row
//! that can't be read is removed by whoever finds it, and costs nobody else anything.

#[cfg(test)]
mod conformance;
mod memory;
mod sqlite;

use std::sync::Arc;

use twine_protocol::{InstanceId, SessionId};

use super::{Claim, CookieHash, Cursors, Identity, Visitor};
use crate::store::{Kind, StoreError};

/// A session, without its rooms: those are many, and seldom needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) cookie: CookieHash,
    pub(crate) origin: Arc<str>,
    pub(crate) subject: Option<Box<str>>,
    pub(crate) scope: Box<str>,
    /// The client object that it is, or was last, attached to.
    pub(crate) instance: Option<InstanceId>,
    /// When its connection ended, in milliseconds since 1970-01-01 UTC; `None` while it has one.
    pub(crate) detached: Option<u64>,
}

impl Session {
    /// A new one, attached to whoever claims one.
    pub(crate) fn begin(id: SessionId, claim: &Claim) -> Self {
        let Claim { identity: Identity { visitor, subject, scope }, instance, .. } = claim.clone();
        let Visitor { cookie, origin, .. } = visitor;
        Self { id, cookie, origin, subject, scope, instance, detached: None }
    }
}

/// Rows of sessions; the keeper owns it.
pub(crate) trait Store: Send {
    /// Whether it may wait for a disk, so that its keeper needs a thread of its own.
    fn waits(&self) -> bool {
        true
    }

    /// Opens a transaction. Everything below happens inside one.
    fn begin(&mut self) -> Result<(), StoreError>;

    /// Ends the transaction. What it did survives the end of this process from then on, though not
    /// always a power cut. After an error nothing of it is kept.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Gives the transaction up.
    fn rollback(&mut self);

    /// How many sessions there are.
    fn len(&self) -> usize;

    /// The sessions of a cookie, in the order of their creation.
    fn of_cookie(&mut self, cookie: CookieHash) -> Result<Vec<Session>, StoreError>;

    /// The rooms of a session. `None` where there is no such session, any more: with rooms that can't
    /// be read it is removed.
    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError>;

    /// Adds a session, in place of one of the same id if there is.
    fn insert(&mut self, session: &Session, rooms: &Cursors) -> Result<(), StoreError>;

    /// Notes that a session has a connection again, and whose.
    fn attach(&mut self, id: &SessionId, instance: Option<&InstanceId>) -> Result<(), StoreError>;

    /// Notes that a session's connection ended at `time` (milliseconds).
    fn detach(&mut self, id: &SessionId, time: u64) -> Result<(), StoreError>;

    /// Puts these rooms in place of the session's own.
    fn save(&mut self, id: &SessionId, rooms: &Cursors) -> Result<(), StoreError>;

    /// Takes a session out, and gives it back.
    fn take(&mut self, id: &SessionId) -> Result<Option<Session>, StoreError>;

    /// Removes a session.
    fn remove(&mut self, id: &SessionId) -> Result<(), StoreError>;

    /// Removes the session that has been detached longest; says whether there was one.
    fn remove_longest_detached(&mut self) -> Result<bool, StoreError>;

    /// Removes sessions that were detached before `cut` (milliseconds), at most `limit` of them; says
    /// how many.
    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError>;
}

/// Opens the store for sessions that goes with the one for messages. `time` (milliseconds) is when
/// sessions count as detached that were attached when the hub was killed.
///
/// # Errors
/// Where it is not to be had, damaged, or made by a later version.
pub(crate) fn open(kind: &Kind, time: u64) -> Result<Box<dyn Store>, StoreError> {
    match kind {
        Kind::Memory { .. } => Ok(Box::new(memory::MemoryStore::default())),
        Kind::Sqlite { data_dir } => Ok(Box::new(sqlite::SqliteStore::open(data_dir, time)?)),
    }
}

/// Opens the `sqlite` one so that it fails at once where another has locked it, for tests of failure.
#[cfg(test)]
pub(crate) fn open_impatient(data_dir: &std::path::Path, time: u64) -> Box<dyn Store> {
    Box::new(sqlite::SqliteStore::open(data_dir, time).unwrap().impatient())
}
