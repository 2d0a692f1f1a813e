//! The bound on what all rooms together keep in memory, by bytes and by age.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Registry, Room};

/// Every message in memory, oldest first, and those left behind when a room crossed into a new epoch.
pub(super) struct Tails {
    registry: Arc<Registry>,
    max_bytes: usize,
    max_age: Duration,
    bytes: usize,
    order: VecDeque<(Arc<Room>, Instant)>,
}

impl Tails {
    pub(super) fn new(registry: Arc<Registry>, max_bytes: usize, max_age: Duration) -> Self {
        Self { registry, max_bytes, max_age, bytes: 0, order: VecDeque::new() }
    }

    /// Counts a message that `room` keeps from now on.
    pub(super) fn added(&mut self, room: &Arc<Room>, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.order.push_back((room.clone(), now));
    }

    /// Counts what a room takes beside its messages, for it is kept for them.
    pub(super) fn added_room(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// These bytes of messages are not in memory any more, for their room has gone on in another epoch.
    /// Their places in the order count for nothing until it is their turn.
    pub(super) fn left_behind(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Forgets what is over the bounds. Rooms that nothing holds any more leave memory.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some((room, kept_since)) = self.order.front() {
            if self.bytes <= self.max_bytes && now.duration_since(*kept_since) < self.max_age {
                break;
            }
            self.bytes -= room.drop_oldest();
            if room.is_idle() {
                self.registry.drop_if_idle(room.name());
            }
            self.order.pop_front();
        }
    }

    /// When [`Tails::trim`] has something to do next.
    pub(super) fn next_trim(&self) -> Option<Instant> {
        self.order.front().map(|(_, kept_since)| *kept_since + self.max_age)
    }
}
