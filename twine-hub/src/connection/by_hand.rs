//! A shard without its thread, for who runs all of a hub on one thread.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use mio::Events;

use super::guest::{Guest, Visit};
use super::inbox::Event;
use super::shard::{Shard, Surroundings};
use super::{Handover, Options, Place};
use crate::rooms::Rooms;
use crate::session::Sessions;
use crate::telemetry::Telemetry;

/// A shard that does one turn at a time.
pub(crate) struct ShardByHand {
    shard: Shard,
    events: Events,
    open: Arc<AtomicUsize>,
}

impl ShardByHand {
    pub(crate) fn new(
        rooms: &Rooms,
        sessions: &Sessions,
        options: Options,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let surroundings =
            Surroundings { rooms: rooms.clone(), sessions: sessions.clone(), permissions: None, telemetry };
        let shard = Shard::new(surroundings, options).unwrap();
        Self { shard, events: Events::with_capacity(64), open: Arc::default() }
    }

    pub(crate) fn adopt(&self, handover: Handover) {
        self.shard.inbox().push(Event::Adopt(Place(self.open.clone()), handover));
    }

    pub(crate) fn host(&self, guest: Box<dyn Guest>, socket: TcpStream) {
        self.shard.inbox().push(Event::Visit(Visit::new(guest, socket)));
    }

    /// Hears what is in the mailbox, and nothing that comes of it.
    pub(crate) fn hear(&mut self) {
        self.shard.hear_news();
    }

    pub(crate) fn turn(&mut self) {
        self.shard.turn(&mut self.events);
    }
}
