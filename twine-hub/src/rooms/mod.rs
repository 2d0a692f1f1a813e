//! Rooms: the log of each, who reads it, and the one way to add to it.
#![allow(dead_code, unused_variables, missing_docs, clippy::todo, clippy::unused_async)]

use std::sync::Arc;
use std::time::Duration;

use twine_protocol::api::{History, Published, RoomInfo, RoomList};
use twine_protocol::{Data, ErrorCode, MessageId, Position, RoomName};

use crate::store;
use crate::telemetry::Telemetry;

/// How the rooms keep messages.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of recent messages kept in memory, all rooms together.
    pub tail_bytes: usize,
    /// How long a message stays in memory at most.
    pub tail_age: Duration,
    /// How long a publish with the same id is recognised.
    pub idempotency_window: Duration,
    /// Publishes waiting for the store at most; more are refused.
    pub max_pending_publishes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tail_bytes: 256 << 20,
            tail_age: Duration::from_secs(120),
            idempotency_window: Duration::from_secs(600),
            max_pending_publishes: 65_536,
        }
    }
}

/// A message on its way into a room.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) room: RoomName,
    pub(crate) data: Data,
    pub(crate) id: Option<MessageId>,
    pub(crate) sender: Option<String>,
}

/// Why nothing was published.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("{0}")]
    Store(Arc<store::StoreError>),
    #[error("more publishes are waiting for the store than it can take")]
    Overloaded,
    #[error("the hub is shutting down")]
    Draining,
}

impl PublishError {
    /// What the publisher is answered.
    pub(crate) fn code(&self) -> ErrorCode {
        todo!()
    }
}

/// A handle to all rooms; clones share them.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<()>);

impl Rooms {
    /// Opens the store and starts the committer's thread.
    pub(crate) fn open(
        store: &store::Options,
        options: Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, store::StoreError> {
        todo!()
    }

    /// Stores messages, all or none, and delivers them. Returns when they are durable.
    pub(crate) async fn publish(&self, messages: Vec<NewMessage>) -> Result<Vec<Published>, PublishError> {
        todo!()
    }

    /// The messages after `after` (or the earliest kept), oldest first, at most `limit`.
    pub(crate) async fn history(
        &self,
        room: &RoomName,
        after: Option<Position>,
        limit: usize,
    ) -> Result<History<Data>, store::StoreError> {
        todo!()
    }

    /// The rooms in use on this hub whose names come after `after`, at most `limit`.
    pub(crate) fn list(&self, after: Option<&RoomName>, limit: usize) -> RoomList {
        todo!()
    }

    /// One room's head and subscribers.
    pub(crate) fn info(&self, room: &RoomName) -> RoomInfo {
        todo!()
    }

    /// Whether the store takes writes (the last commit succeeded); for `/readyz`.
    pub(crate) fn health(&self) -> Result<(), Arc<store::StoreError>> {
        todo!()
    }

    /// Refuses new publishes, waits for those under way, closes the store.
    pub(crate) async fn close(&self) {
        todo!()
    }
}
