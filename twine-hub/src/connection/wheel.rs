//! When to look at a connection again: a timer wheel that costs twelve bytes a connection.

use std::time::{Duration, Instant};

use super::state::Key;

/// How far the wheel reaches, in ticks; later times come round and are put in again.
const SLOTS: usize = 64;

/// A connection that wants to be looked at. Of those set for one connection only the last counts,
/// which its `number` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) key: Key,
    pub(super) number: u32,
}

/// Connections by the tick at which they want to be looked at.
pub(super) struct Wheel {
    slots: Vec<Vec<Alarm>>,
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

    /// Goes off in `delay`, rounded up to a tick, or sooner if that is far away.
    pub(super) fn put(&mut self, alarm: Alarm, delay: Duration) {
        let ticks = delay.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        let ticks = usize::try_from(ticks).unwrap_or(SLOTS).clamp(1, SLOTS - 1);
        if let Some(slot) = self.slots.get_mut((self.at + ticks) % SLOTS) {
            slot.push(alarm);
        }
    }

    /// Until when nothing is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// What goes off at `now`, one tick of it a call; `None` when nothing does.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Vec<Alarm>> {
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
    fn an_alarm_goes_off_at_its_tick_and_far_ones_come_round_early() {
        let start = Instant::now();
        let tick = Duration::from_secs(1);
        let mut wheel = Wheel::new(tick, start);
        let alarm = |slot| Alarm { key: Key { slot, generation: 0 }, number: 0 };
        wheel.put(alarm(1), Duration::from_millis(1500));
        wheel.put(alarm(2), Duration::ZERO);
        wheel.put(alarm(3), Duration::from_secs(1000));
        assert_eq!(wheel.turn(start), None);
        assert_eq!(wheel.due(), start + tick);
        let mut seen = Vec::new();
        let mut now = start;
        for n in 0..SLOTS {
            now += tick;
            seen.extend(wheel.turn(now).unwrap().into_iter().map(|alarm| (n, alarm.key.slot)));
        }
        assert_eq!(seen, [(0, 2), (1, 1), (62, 3)]);
    }
}
