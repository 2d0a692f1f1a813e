//! The clock that things are done by, whatever is still under way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Messages of a batch, at most: half of what a hub takes.
const BATCH_MAX: u64 = 500;
/// Bytes of a batch's data, at most: a hub takes a body of 1 MiB.
const BATCH_BYTES: u64 = 256 << 10;

/// When the messages to some rooms are due: round after round, each spread evenly over the time from one
/// message of a room to its next. Messages are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    rooms: u64,
    interval: Duration,
    batch: u64,
    batch_max: u64,
    total: u64,
}

impl Pace {
    /// Messages of so long are due at one moment, as one batch.
    pub(super) const TICK: Duration = Duration::from_millis(20);

    /// For `messages` to each of `rooms`, of `size` bytes each, `interval` from one to the room's next.
    pub(super) fn new(rooms: usize, messages: u32, interval: Duration, size: usize) -> Self {
        let rooms = u64::try_from(rooms).unwrap_or(u64::MAX).max(1);
        let batch_max = (BATCH_BYTES / u64::try_from(size).unwrap_or(u64::MAX).max(1)).clamp(1, BATCH_MAX);
        let tick = u128::from(rooms) * Self::TICK.as_nanos() / interval.as_nanos().max(1);
        let batch = u64::try_from(tick).unwrap_or(u64::MAX).clamp(1, batch_max);
        Self { rooms, interval, batch, batch_max, total: rooms.saturating_mul(messages.into()) }
    }

    /// How many messages there are in all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// When message `k` is due, from the beginning on; all of a batch are due at once.
    pub(super) fn due(&self, k: u64) -> Duration {
        let first = k - k % self.batch;
        let nanos = self.interval.as_nanos() * u128::from(first) / u128::from(self.rooms);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The end of the batch that begins with message `k`, so long after the beginning: all that is due,
    /// and never less than one batch or more than a hub takes.
    pub(super) fn batch_end(&self, k: u64, elapsed: Duration) -> u64 {
        let mut end = k;
        while end < self.total && (end == k || self.due(end) <= elapsed) && end - k < self.batch_max {
            end = (end - end % self.batch).saturating_add(self.batch);
        }
        end.min(k.saturating_add(self.batch_max)).min(self.total)
    }

    /// The place of the room that message `k` goes to.
    pub(super) fn room(&self, k: u64) -> usize {
        // Less than `rooms`, which was a `usize`.
        usize::try_from(k % self.rooms).unwrap_or(usize::MAX)
    }

    /// The number of message `k` in its room, from 1.
    pub(super) fn number(&self, k: u64) -> u32 {
        u32::try_from(k / self.rooms + 1).unwrap_or(u32::MAX)
    }

    /// How many of the first `k` messages go to the room at this place.
    pub(super) fn of_room(&self, place: usize, k: u64) -> u32 {
        let more = u64::try_from(place).is_ok_and(|place| place < k % self.rooms);
        u32::try_from(k / self.rooms + u64::from(more)).unwrap_or(u32::MAX)
    }
}

/// When thing `index` of `things` is due, where all are spread evenly over `over`.
pub(super) fn spread(index: usize, things: usize, over: Duration) -> Duration {
    let part = |number: usize| u128::try_from(number).unwrap_or(u128::MAX);
    let nanos = over.as_nanos().saturating_mul(part(index)) / part(things).max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Microseconds since 1970-01-01 UTC, by the system's clock, which all processes share.
pub(super) fn unix_micros() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn few_messages_are_due_one_by_one_and_evenly() {
        let pace = Pace::new(10, 2, SECOND, 100);
        assert_eq!(pace.total(), 20);
        let due: Vec<_> = (0..4).map(|k| pace.due(k).as_millis()).collect();
        assert_eq!(due, [0, 100, 200, 300]);
        assert_eq!((pace.room(13), pace.number(13)), (3, 2));
        assert_eq!(pace.batch_end(0, Duration::ZERO), 1);
    }

    #[test]
    fn many_messages_are_due_in_batches_of_some_milliseconds() {
        let pace = Pace::new(10_000, 3, SECOND, 100);
        assert_eq!((pace.batch_end(0, Duration::ZERO), pace.due(199)), (200, Duration::ZERO));
        assert_eq!(pace.due(200), Duration::from_millis(20));
        assert_eq!(pace.due(10_000), SECOND);
    }

    #[test]
    fn who_is_late_takes_all_that_is_due_and_no_more_than_a_hub_does() {
        let pace = Pace::new(100, 60, SECOND, 100);
        assert_eq!(pace.batch_end(0, Duration::from_millis(35)), 4);
        assert_eq!(pace.batch_end(0, Duration::from_hours(1)), 500);
        assert_eq!(pace.batch_end(5_999, Duration::from_hours(1)), 6_000);
        let large = Pace::new(100, 60, SECOND, 100_000);
        assert_eq!(large.batch_end(0, Duration::from_hours(1)), 2);
    }

    #[test]
    fn batches_go_through_all_messages_and_each_is_of_one_room() {
        let pace = Pace::new(7_001, 3, SECOND, 100);
        let (mut k, mut seen) = (0, vec![0; 7_001]);
        while k < pace.total() {
            let end = pace.batch_end(k, pace.due(k));
            assert!(end > k && end - k <= 500);
            for k in k..end {
                seen[pace.room(k)] += 1;
                assert_eq!(seen[pace.room(k)], pace.number(k));
            }
            k = end;
            assert!([0, 3_500, 7_000].iter().all(|&place| pace.of_room(place, k) == seen[place]));
        }
        assert!(seen.iter().all(|&messages| messages == 3));
    }

    #[test]
    fn connections_are_spread_over_the_ramp() {
        let due: Vec<_> = (0..4).map(|n| spread(n, 4, SECOND).as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750]);
        assert_eq!(spread(3, 4, Duration::ZERO), Duration::ZERO);
    }
}
