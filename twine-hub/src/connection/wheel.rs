//! When to look at a connection again: a timer wheel that costs eight bytes a connection.

use std::time::{Duration, Instant};

use super::shard::Key;

/// How far the wheel reaches, in ticks; later times come round and are put in again.
const SLOTS: usize = 64;

/// Connections by the tick at which they want to be looked at.
pub(super) struct Wheel {
    slots: Vec<Vec<Key>>,
    tick: Duration,
    /// The slot of `now`.
    at: usize,
    /// When that slot is over.
    due: Instant,
}

impl Wheel {
    /// A wheel whose ticks are `tick` long.
    pub(super) fn new(tick: Duration, now: Instant) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], tick, at: 0, due: now + tick }
    }

    /// Looks at `key` in `delay`, rounded up to a tick, or sooner if that is far away.
    pub(super) fn put(&mut self, key: Key, delay: Duration) {
        let ticks = delay.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        let ticks = usize::try_from(ticks).unwrap_or(SLOTS).clamp(1, SLOTS - 1);
        if let Some(slot) = self.slots.get_mut((self.at + ticks) % SLOTS) {
            slot.push(key);
        }
    }

    /// How long nothing is due.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// The connections that are due at `now`, one tick of them a call; `None` when none are.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Vec<Key>> {
        if now < self.due {
            return None;
        }
        self.due += self.tick;
        self.at = (self.at + 1) % SLOTS;
        self.slots.get_mut(self.at).map(std::mem::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_at_its_tick_and_far_ones_come_round_early() {
        let start = Instant::now();
        let tick = Duration::from_secs(1);
        let mut wheel = Wheel::new(tick, start);
        let key = |slot| Key { slot, generation: 0 };
        wheel.put(key(1), Duration::from_millis(1500));
        wheel.put(key(2), Duration::ZERO);
        wheel.put(key(3), Duration::from_secs(1000));
        assert_eq!(wheel.turn(start), None);
        assert_eq!(wheel.idle(start), tick);
        let mut seen = Vec::new();
        let mut now = start;
        for n in 0..SLOTS {
            now += tick;
            seen.extend(wheel.turn(now).unwrap().into_iter().map(|key| (n, key.slot)));
        }
        assert_eq!(seen, [(0, 2), (1, 1), (62, 3)]);
    }
}
