//! When to look at a connection again: a timer wheel that costs eight bytes a connection.

use std::time::{Duration, Instant};

use super::state::Key;

/// How far the wheel reaches, in ticks; later times come round and are put in again.
const SLOTS: u32 = 64;

/// A moment in ticks of a wheel, which come round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick(u32);

impl Tick {
    /// Ticks from `other` until this one; below 0 where that is over.
    fn after(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }
}

/// Connections by the tick at which they want to be looked at.
pub(super) struct Wheel {
    slots: Vec<Vec<Key>>,
    tick: Duration,
    at: Tick,
    /// When the present tick is over.
    due: Instant,
}

impl Wheel {
    /// A wheel whose ticks are `tick` long.
    pub(super) fn new(tick: Duration, now: Instant) -> Self {
        Self { slots: vec![Vec::new(); SLOTS as usize], tick, at: Tick(0), due: now + tick }
    }

    /// The present tick.
    pub(super) fn at(&self) -> Tick {
        self.at
    }

    /// Has `key` go off in `delay`, rounded up to a tick, or sooner if that is far away, and notes that in `alarm`: when
    /// it goes off next, the present tick or one before where that is never. One that goes off sooner anyway stays as it is;
    /// whoever it wakes has to look at the time. What is replaced still goes off, which `alarm` tells.
    pub(super) fn put(&mut self, key: Key, alarm: &mut Tick, delay: Duration) {
        let ticks = delay.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        let ticks = u32::try_from(ticks).unwrap_or(SLOTS).clamp(1, SLOTS - 1);
        let new = Tick(self.at.0.wrapping_add(ticks));
        let is_set = alarm.after(self.at) > 0;
        if is_set && alarm.after(new) <= 0 {
            return;
        }
        *alarm = new;
        if let Some(slot) = self.slots.get_mut((new.0 % SLOTS) as usize) {
            slot.push(key);
        }
    }

    /// Until when nothing is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// What goes off at `now`, one tick of it a call; `None` when nothing does.
    pub(super) fn turn(&mut self, now: Instant) -> Option<Vec<Key>> {
        if now < self.due {
            return None;
        }
        self.due += self.tick;
        self.at = Tick(self.at.0.wrapping_add(1));
        self.slots.get_mut((self.at.0 % SLOTS) as usize).map(std::mem::take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);

    fn key(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    /// The slots of those that go off, each with its tick, in so many ticks.
    fn turns(wheel: &mut Wheel, n: u32) -> Vec<(u32, u32)> {
        let mut seen = Vec::new();
        for n in 1..=n {
            let due = wheel.due();
            seen.extend(wheel.turn(due).unwrap().into_iter().map(|key| (n, key.slot)));
        }
        seen
    }

    #[test]
    fn an_alarm_goes_off_at_its_tick_and_far_ones_come_round_early() {
        let start = Instant::now();
        let mut wheel = Wheel::new(TICK, start);
        let none = wheel.at();
        wheel.put(key(1), &mut none.clone(), Duration::from_millis(1500));
        wheel.put(key(2), &mut none.clone(), Duration::ZERO);
        wheel.put(key(3), &mut none.clone(), Duration::from_secs(1000));
        assert_eq!(wheel.turn(start), None);
        assert_eq!(wheel.due(), start + TICK);
        assert_eq!(turns(&mut wheel, SLOTS), [(1, 2), (2, 1), (63, 3)]);
    }

    #[test]
    fn one_that_is_set_is_replaced_by_a_sooner_one_only() {
        let mut wheel = Wheel::new(TICK, Instant::now());
        // Also where ticks come round.
        wheel.at = Tick(u32::MAX - 3);
        let mut alarm = wheel.at();
        wheel.put(key(1), &mut alarm, 5 * TICK);
        wheel.put(key(1), &mut alarm, 9 * TICK);
        assert_eq!(alarm.after(wheel.at()), 5);
        wheel.put(key(1), &mut alarm, 2 * TICK);
        assert_eq!(alarm.after(wheel.at()), 2);
        assert_eq!(turns(&mut wheel, 2), [(2, 1)]);
        assert_eq!(alarm, wheel.at(), "it has gone off");
        wheel.put(key(1), &mut alarm, 10 * TICK);
        assert_eq!(turns(&mut wheel, 3), [(3, 1)]);
        assert_ne!(alarm, wheel.at(), "which was replaced");
        assert_eq!(turns(&mut wheel, 7), [(7, 1)]);
        assert_eq!(alarm, wheel.at());
    }
}
