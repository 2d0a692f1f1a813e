//! Redis: gives messages their places, keeps them until they are durable, and carries them to all hubs.
//!
//! What is durable is decided elsewhere: this module knows Redis only. A room's keys are in one slot (K is
//! `twine:{ROOM}`, the name percent-encoded where it has braces):
//!
//! | key | holds |
//! | --- | --- |
//! | `K:room` | hash: the epoch, the server it was installed on, the last offset assigned (`head`), what is durable without a hole (`done`), the last time, when `done` moved, how many are pending |
//! | `K:log` | stream, an entry `OFFSET-0` with one field: the packed message ([`packed`](crate::store::packed)) |
//! | `K:pending` | sorted set of the offsets that are not known to be durable |
//! | `K:id:ID` | `EPOCH OFFSET` of a message that was assigned; with `=` before, of one that is durable |
//! | channel `K` | what hubs tell each other ([`chunk`]) |
//!
//! A message's way: [`Link::publish`] assigns, the caller makes it durable, [`Link::commit`] says so, and
//! [`Bus`] tells every hub that watches the room. All keys expire.
//!
//! Invariants: offsets of an epoch are dense, and none is given twice; nothing beyond `done` is shown to
//! anyone; the log loses nothing that is pending; a room whose server changed, or whose keys are not all
//! there, is answered [`Rotate`] until a later epoch was installed.

mod bus;
mod chunk;
mod connect;
mod directory;
mod error;
mod keys;
mod link;
mod node;
mod script;
mod scripts;
mod subscriptions;
mod target;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use bus::{Arrival, Bus, BusEvent};
pub(crate) use chunk::Chunk;
pub(crate) use error::RedisError;
pub(crate) use keys::Tagged;
pub(crate) use link::{Link, Request, State};
pub(crate) use script::{Call, Script, scripts};
pub(crate) use scripts::{Committed, Installed, Looked, Overdue, Published, RoomLimits, Tail};
pub(crate) use target::Target;

use std::time::Duration;

/// Bounds of the hub's connections to Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Until a connection stands, and until a server has proved that it lives.
    pub(crate) connect: Duration,
    /// Until a command is answered.
    pub(crate) deadline: Duration,
    /// Commands under way at once; more wait, within their deadline.
    pub(crate) in_flight: usize,
    /// Messages of the bus that may wait for their consumer...
    pub(crate) bus_messages: usize,
    /// ...and their bytes. Beyond, they are dropped, and the consumer is told.
    pub(crate) bus_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            deadline: Duration::from_secs(5),
            in_flight: 4096,
            bus_messages: 4096,
            bus_bytes: 16 * 1024 * 1024,
        }
    }
}
