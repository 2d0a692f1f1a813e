//! How a shard empties itself: its clients are told to go one after the other, and served until then.

use std::time::{Duration, Instant};

use twine_protocol::ErrorCode;

use super::shard::Shard;
use super::state::{Key, Phase};
use crate::clock;

/// Who is told to go, and when.
#[derive(Debug)]
pub(super) struct Drain {
    since: Instant,
    /// The time over which clients are told, evenly: they all come back somewhere.
    window: Duration,
    /// When the shard ends, whoever is left.
    until: Instant,
    /// Clients that were there at the beginning.
    total: usize,
    /// Those that are still to be told, in no order.
    left: Vec<Key>,
}

impl Drain {
    fn begin(since: Instant, window: Duration, until: Instant, mut all: Vec<Key>) -> Self {
        fastrand::shuffle(&mut all);
        Self { since, window, until, total: all.len(), left: all }
    }

    /// Takes those whose turn has come. The first is told at once, the last before the window ends.
    fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let told = self.total - self.left.len();
        let due = (told..self.total).take_while(|n| self.turn(*n) <= now).count();
        self.left.split_off(self.left.len() - due)
    }

    /// When the n-th client is told.
    fn turn(&self, n: usize) -> Instant {
        let (n, total) = (n as u128, self.total.max(1) as u128);
        let nanoseconds = self.window.as_nanos() * n / total;
        self.since + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Instant {
        match self.left.len() {
            0 => self.until,
            left => self.turn(self.total - left).min(self.until),
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

impl Shard {
    /// Begins to tell clients to go, over `window`; at `until` the shard ends.
    pub(super) fn drain(&mut self, window: Duration, until: Instant) {
        self.see_guests_off();
        let all = self.keys().collect();
        self.draining = Some(Drain::begin(clock::now(), window, until, all));
    }

    /// Tells those to go whose turn it is.
    pub(super) fn send_away_due(&mut self, now: Instant) {
        let due = self.draining.as_mut().map(|drain| drain.take_due(now)).unwrap_or_default();
        for key in due {
            // Some have gone meanwhile, or are about to.
            if self.connection(key).is_some_and(|c| c.phase != Phase::Closing) {
                self.send_away(key, ErrorCode::Draining);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(window: Duration, total: u32) -> (Drain, Instant) {
        let now = Instant::now();
        let all = (0..total).map(Key::of_slot).collect();
        (Drain::begin(now, window, now + Duration::from_secs(8), all), now)
    }

    #[test]
    fn clients_are_told_evenly_over_the_window_each_once() {
        let (mut drain, start) = drain(Duration::from_secs(5), 10);
        let mut told = Vec::new();
        for (milliseconds, count) in
            [(0, 1), (0, 1), (499, 1), (500, 2), (2_400, 5), (4_500, 10), (9_000, 10)]
        {
            told.extend(drain.take_due(start + Duration::from_millis(milliseconds)));
            assert_eq!(told.len(), count, "{milliseconds} ms");
        }
        told.sort_by_key(|key| key.slot);
        assert_eq!(told, (0..10).map(Key::of_slot).collect::<Vec<_>>());
    }

    #[test]
    fn without_a_window_all_are_told_at_once() {
        let (mut drain, start) = drain(Duration::ZERO, 10);
        assert_eq!(drain.take_due(start).len(), 10);
        assert_eq!(drain.next(), start + Duration::from_secs(8));
    }

    #[test]
    fn it_wakes_for_the_next_client_and_for_its_end() {
        let (mut drain, start) = drain(Duration::from_secs(4), 2);
        assert_eq!(drain.next(), start);
        assert_eq!(drain.take_due(start).len(), 1);
        assert_eq!(drain.next(), start + Duration::from_secs(2));
        assert_eq!(drain.take_due(drain.next()).len(), 1);
        assert_eq!(drain.next(), start + Duration::from_secs(8));
        assert!(drain.is_over(drain.next()) && !drain.is_over(start + Duration::from_secs(7)));
        let (mut nobody, start) = self::drain(Duration::from_secs(4), 0);
        assert!(nobody.take_due(start).is_empty());
    }
}
