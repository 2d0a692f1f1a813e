//! One connection, as its shard knows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::session::Session;
use super::subscription::Subscription;
use super::websocket::Fragments;
use super::wheel::Tick;
use super::{Caller, Options, Place};
use crate::clock;
use crate::telemetry::Telemetry;

/// Rooms that may be opened for one connection at the same time; it is not read meanwhile.
const MAX_OPENING: u32 = 64;

/// A connection, for as long as it lives: slots are used again, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl Key {
    pub(crate) fn of_slot(slot: u32) -> Self {
        Self { slot, generation: 0 }
    }
}

/// A connection of this shard.
pub(super) struct Connection {
    pub(super) phase: Phase,
    /// When its phase is over; of an open one, when the next ping is due.
    pub(super) due: Instant,
    pub(super) subscriptions: Vec<Subscription>,
    generation: u32,
    /// When the client was last heard of.
    pub(super) heard: Instant,
    /// When it is looked at next, needed or not.
    pub(super) alarm: Tick,
    /// Held while it waits for the one read of the store, or other question about a room, that it has
    /// under way.
    pub(super) waits: Option<Waits>,
    /// Rooms that it waits for, which are being opened, each as often as it has asked for it.
    pub(super) n_opening: u32,
    /// Which subscription catches up first next time.
    turn: u32,
    /// Whether it is among [`Shard::lagging`](super::shard::Shard::lagging) already.
    pub(super) is_lagging: bool,
    /// Whether the poll has told that nothing more comes: then reading goes on to the end.
    pub(super) is_ending: bool,
    pub(super) input: Option<Box<Input>>,
    /// Whether it is not read until it takes some of the answers that wait for it, or knows its session.
    pub(super) is_paused: bool,
    /// Who opened it; let go once it has said `connect`, unless permissions ask for it later.
    pub(super) caller: Option<Box<Caller>>,
    pub(super) session: Option<Box<Session>>,
    _place: Place,
}

/// What a connection waits for of another thread, its session or a read, counted until dropped. How
/// many there are says how busy the hub is: what it has to do for those that are there costs the same
/// at any time, and what it has to do for those that come back goes through here.
pub(super) struct Waits(Arc<Telemetry>);

impl Waits {
    pub(super) fn begin(telemetry: &Arc<Telemetry>) -> Self {
        telemetry.waiting.inc();
        Self(telemetry.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

/// The life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the `connect` frame.
    New,
    /// Has said `connect` and waits for its session; then it goes on without one.
    Attaching,
    /// Talks.
    Open,
    /// Has been told to close; what it still sends is not read. Then it is removed even if it doesn't close its side.
    Closing,
}

impl Connection {
    pub(super) fn new(
        place: Place,
        caller: Caller,
        generation: u32,
        present: Tick,
        options: &Options,
    ) -> Self {
        let now = clock::now();
        Self {
            phase: Phase::New,
            due: now + options.connect_timeout,
            subscriptions: Vec::new(),
            generation,
            heard: now,
            alarm: present,
            waits: None,
            n_opening: 0,
            turn: 0,
            is_lagging: false,
            is_ending: false,
            input: None,
            is_paused: false,
            caller: Some(Box::new(caller)),
            session: None,
            _place: place,
        }
    }

    /// Begins a phase that lasts so long.
    pub(super) fn enter(&mut self, phase: Phase, lasts: Duration) {
        self.phase = phase;
        self.due = clock::now() + lasts;
    }

    /// The subscription that catches up first this time: each in turn.
    pub(super) fn next_turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn as usize % self.subscriptions.len().max(1)
    }

    /// Whether it has to wait for its rooms or its session before it may ask for more.
    pub(super) fn is_waiting(&self) -> bool {
        self.n_opening >= MAX_OPENING || self.phase == Phase::Attaching
    }

    /// What goes before the first answer, where that has waited for it.
    pub(super) fn take_upgrade(&mut self) -> Option<Bytes> {
        let upgrade = std::mem::take(&mut self.input.as_mut()?.upgrade);
        (!upgrade.is_empty()).then_some(upgrade)
    }

    /// This connection's key, given the slot it lies in.
    pub(super) fn key(&self, slot: u32) -> Key {
        Key { slot, generation: self.generation }
    }
}

/// What of the client's bytes is not a whole message yet, or has to wait.
#[derive(Default)]
pub(super) struct Input {
    /// The answer to its upgrade, where that goes out together with what its session brings.
    pub(super) upgrade: Bytes,
    pub(super) rest: Vec<u8>,
    pub(super) fragments: Fragments,
}
