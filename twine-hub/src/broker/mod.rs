//! Who orders messages and commits them, before anyone sees one, and owns the rooms.
//!
//! What a broker promises, whichever it is:
//! - a publish is answered once it is durable, and delivered before or soon after, never before it is
//!   durable; one that failed may be repeated with the same id;
//! - a room's messages are delivered in the order of their positions, without holes;
//! - it alone changes rooms, through the one [`Delivery`](crate::rooms::Delivery) that it was given.

mod backlog;
mod committer;
mod fleet;
mod local;
mod publishing;
pub(crate) mod redis;
#[cfg(test)]
mod tests;

pub(crate) use backlog::Backlog;
#[cfg(test)]
pub(crate) use committer::Committer;
pub(crate) use fleet::FleetBroker;
pub(crate) use local::LocalBroker;
pub(crate) use publishing::Publishing;

use std::sync::Arc;

use twine_protocol::{ErrorCode, Position, RoomName};

use self::backlog::weight;
use crate::rooms::{NewMessage, Opened, Payload, Reading, Refreshed, Room, Watcher};
use crate::store::StoreError;

/// The broker of a hub.
pub(crate) struct Broker {
    kind: Kind,
    backlog: Backlog,
}

enum Kind {
    Local(LocalBroker),
    Fleet(FleetBroker),
}

impl Broker {
    /// That of a hub that is alone, with an embedded store.
    pub(crate) fn local(broker: LocalBroker, backlog: Backlog) -> Self {
        Self { kind: Kind::Local(broker), backlog }
    }

    /// That of one hub of several.
    pub(crate) fn fleet(broker: FleetBroker, backlog: Backlog) -> Self {
        Self { kind: Kind::Fleet(broker), backlog }
    }

    /// Whether it is that of a hub that is alone.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.kind, Kind::Local(_))
    }

    /// Commits the messages and delivers them: all or none; of a fleet's, where it fails, perhaps some.
    pub(crate) fn publish(&self, messages: Vec<NewMessage>) -> Publishing {
        let bytes = messages.iter().map(|message| weight(&message.data)).sum();
        self.publish_within(bytes, || messages)
    }

    /// The same for one message to each of these rooms. Nothing is copied before there is room for
    /// all the copies: a short request may name many rooms.
    pub(crate) fn publish_to_each(&self, rooms: Vec<RoomName>, message: &Payload) -> Publishing {
        let bytes = weight(&message.data).saturating_mul(rooms.len());
        self.publish_within(bytes, || rooms.into_iter().map(|room| message.clone().to(room)).collect())
    }

    /// Publishes messages of so many bytes, if that many may wait.
    fn publish_within(&self, bytes: usize, messages: impl FnOnce() -> Vec<NewMessage>) -> Publishing {
        match (self.backlog.reserve(bytes), &self.kind) {
            (Ok(pending), Kind::Local(local)) => local.publish(messages(), pending),
            (Ok(pending), Kind::Fleet(fleet)) => fleet.publish(messages(), pending),
            (Err(error), _) => Publishing::refused(error),
        }
    }

    /// Takes the room into memory and watches it there.
    pub(crate) fn open_and_watch(&self, name: RoomName, watcher: Watcher, opened: Opened) {
        match &self.kind {
            Kind::Local(local) => local.open_and_watch(name, watcher, opened),
            Kind::Fleet(fleet) => fleet.open_and_watch(name, watcher, opened),
        }
    }

    /// Lets the room leave memory, if nothing holds it there.
    pub(crate) fn release(&self, name: RoomName) {
        match &self.kind {
            Kind::Local(local) => local.release(name),
            Kind::Fleet(fleet) => fleet.release(name),
        }
    }

    /// Brings a room in memory up to what was committed anywhere before this call, then calls `done`.
    pub(crate) fn refresh(&self, room: &Arc<Room>, done: Refreshed) {
        match &self.kind {
            // Nobody else commits, and what this broker has it delivers.
            Kind::Local(_) => done(Ok(())),
            Kind::Fleet(fleet) => fleet.refresh(room, done),
        }
    }

    /// The head of a room that is not in memory.
    pub(crate) async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        match &self.kind {
            Kind::Local(local) => local.head(name).await,
            Kind::Fleet(fleet) => fleet.head(name).await,
        }
    }

    /// Whether messages can be committed, as far as is known.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        match &self.kind {
            Kind::Local(local) => local.health(),
            Kind::Fleet(fleet) => fleet.health(),
        }
    }

    /// Commits what waits, refuses what comes, ends its threads, and those that read. Blocks until they
    /// have ended.
    pub(crate) fn close(&self, reading: &Reading) {
        match &self.kind {
            Kind::Local(local) => {
                // The writer's connection is the last to close: that moves the log into the database.
                reading.close();
                local.close();
            }
            Kind::Fleet(fleet) => {
                // What the readers wait for fails at once from then on.
                fleet.close();
                reading.close();
            }
        }
    }
}

/// Why nothing was published. A publisher may retry with the same id.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("the store refused it: {0}")]
    Store(Arc<StoreError>),
    #[error("more publishes are waiting for the store than it may keep waiting")]
    Overloaded,
    #[error("the hub is shutting down")]
    Draining,
}

impl PublishError {
    /// What the publisher is answered.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Store(error) => error.code(),
            Self::Overloaded => ErrorCode::Unavailable,
            Self::Draining => ErrorCode::Draining,
        }
    }
}
