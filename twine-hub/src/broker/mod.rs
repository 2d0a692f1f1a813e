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

use crate::rooms::{NewMessage, Opened, Payload, Reading, Refreshed, Room, Watcher};
use crate::store::StoreError;

/// The broker of a hub.
pub(crate) enum Broker {
    /// The hub is alone, and its store embedded.
    Local(LocalBroker),
    /// The hub is one of several.
    Fleet(FleetBroker),
}

impl Broker {
    /// Commits the messages and delivers them: all or none; of a fleet's, where it fails, perhaps some.
    pub(crate) fn publish(&self, messages: Vec<NewMessage>) -> Publishing {
        match self {
            Self::Local(local) => local.publish(messages),
            Self::Fleet(fleet) => fleet.publish(messages),
        }
    }

    /// The same for one message to each of these rooms.
    pub(crate) fn publish_to_each(&self, rooms: Vec<RoomName>, message: &Payload) -> Publishing {
        match self {
            Self::Local(local) => local.publish_to_each(rooms, message),
            Self::Fleet(fleet) => fleet.publish_to_each(rooms, message),
        }
    }

    /// Takes the room into memory and watches it there.
    pub(crate) fn open_and_watch(&self, name: RoomName, watcher: Watcher, opened: Opened) {
        match self {
            Self::Local(local) => local.open_and_watch(name, watcher, opened),
            Self::Fleet(fleet) => fleet.open_and_watch(name, watcher, opened),
        }
    }

    /// Lets the room leave memory, if nothing holds it there.
    pub(crate) fn release(&self, name: RoomName) {
        match self {
            Self::Local(local) => local.release(name),
            Self::Fleet(fleet) => fleet.release(name),
        }
    }

    /// Brings a room in memory up to what was committed anywhere before this call, then calls `done`.
    pub(crate) fn refresh(&self, room: &Arc<Room>, done: Refreshed) {
        match self {
            // Nobody else commits, and what this broker has it delivers.
            Self::Local(_) => done(Ok(())),
            Self::Fleet(fleet) => fleet.refresh(room, done),
        }
    }

    /// The head of a room that is not in memory.
    pub(crate) async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        match self {
            Self::Local(local) => local.head(name).await,
            Self::Fleet(fleet) => fleet.head(name).await,
        }
    }

    /// Whether messages can be committed, as far as is known.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        match self {
            Self::Local(local) => local.health(),
            Self::Fleet(fleet) => fleet.health(),
        }
    }

    /// Commits what waits, refuses what comes, ends its threads, and those that read. Blocks until they
    /// have ended.
    pub(crate) fn close(&self, reading: &Reading) {
        match self {
            Self::Local(local) => {
                // The writer's connection is the last to close: that moves the log into the database.
                reading.close();
                local.close();
            }
            Self::Fleet(fleet) => {
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
