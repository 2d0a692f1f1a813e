//! The subscribers of a process, and what each of them has seen.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::sequence::{Seen, Sequence};
use super::tally::Tally;

/// All that a process counts. Its one thread is the only one that locks it, for a moment each time.
pub(super) struct Audience {
    seats: Mutex<Seats>,
    finished: Notify,
}

/// What was counted, and by whom.
#[derive(Default)]
pub(super) struct Seats {
    /// Since it was last reported.
    pub(super) tally: Tally,
    /// By connection; nothing for one that was not made.
    sequences: Vec<Option<Sequence>>,
    /// The last message of each connection's room, once known.
    ends: Vec<u32>,
    /// Connections that have not seen the last message of their room.
    unfinished: u64,
    /// Messages that have come in all.
    seen: u64,
}

impl Audience {
    pub(super) fn new(connections: usize) -> Self {
        let seats = Seats { sequences: vec![None; connections], ..Seats::default() };
        Self { seats: Mutex::new(seats), finished: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection (counted within this process) has a message with this number, so long after it was due.
    pub(super) fn see(&self, connection: usize, n: u32, after: Duration) {
        let mut seats = self.lock();
        seats.see(connection, n, after);
        if seats.unfinished == 0 {
            self.finished.notify_one();
        }
    }

    /// Completes when each connection has seen its room's last message; `ends` says for each which it is. Waits while
    /// messages come, `patience` for the next, and `at_most` so long: what is only late is not lost.
    pub(super) async fn settle(
        &self,
        ends: impl Iterator<Item = u32>,
        patience: Duration,
        at_most: Duration,
    ) {
        let until = Instant::now() + at_most;
        let all_finished = self.lock().expect(ends);
        let mut seen = self.lock().seen;
        while !all_finished && self.lock().unfinished > 0 {
            if timeout(patience, self.finished.notified()).await.is_err() {
                let before = std::mem::replace(&mut seen, self.lock().seen);
                if seen == before || Instant::now() >= until {
                    break;
                }
            }
        }
    }
}

impl Seats {
    /// A connection is there, and its room subscribed.
    pub(super) fn take(&mut self, connection: usize) {
        if let Some(sequence) = self.sequences.get_mut(connection) {
            *sequence = Some(Sequence::default());
        }
        self.tally.connected += 1;
    }

    fn see(&mut self, connection: usize, n: u32, after: Duration) {
        let Some(Some(sequence)) = self.sequences.get_mut(connection) else { return };
        self.seen += 1;
        let tally = &mut self.tally;
        let end = self.ends.get(connection).copied();
        let left = |sequence: &Sequence| end.map_or(0, |end| sequence.left_until(end));
        let before = left(sequence);
        match sequence.see(n) {
            Seen::Next => {}
            Seen::After(missing) => tally.lost += i64::from(missing),
            Seen::Late => {
                tally.lost -= 1;
                tally.out_of_order += 1;
            }
            Seen::Repeated => {
                tally.repeated += 1;
                return;
            }
        }
        tally.received += 1;
        tally.delivery.record(after);
        if before > 0 && left(sequence) == 0 {
            self.unfinished -= 1;
        }
    }

    /// Says how many messages each connection should see; whether all have done so.
    fn expect(&mut self, ends: impl Iterator<Item = u32>) -> bool {
        self.ends = ends.take(self.sequences.len()).collect();
        for (sequence, &end) in self.sequences.iter().zip(&self.ends) {
            let Some(sequence) = sequence else { continue };
            self.tally.expected += u64::from(end);
            self.unfinished += u64::from(sequence.left_until(end) > 0);
        }
        self.unfinished == 0
    }

    /// Nobody waits any longer: what has not come is lost.
    pub(super) fn close(&mut self) {
        self.tally.unfinished += self.unfinished;
        for (sequence, &end) in self.sequences.iter().zip(&self.ends) {
            let Some(sequence) = sequence else { continue };
            self.tally.lost += i64::from(sequence.left_until(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn audience(connections: usize, seen: &[(usize, u32)]) -> Audience {
        let audience = Audience::new(connections + 1);
        (0..connections).for_each(|connection| audience.lock().take(connection));
        for &(connection, n) in seen {
            audience.see(connection, n, Duration::ZERO);
        }
        audience
    }

    #[tokio::test]
    async fn who_has_seen_the_last_message_is_waited_for_no_longer() {
        let audience = audience(2, &[(0, 1), (0, 2), (1, 1)]);
        let (settled, ()) =
            tokio::join!(async { audience.settle([2, 2, 2].into_iter(), HOUR, HOUR).await }, async {
                tokio::task::yield_now().await;
                assert_eq!(audience.lock().unfinished, 1);
                audience.see(1, 2, Duration::ZERO);
            });
        let () = settled;
        let mut seats = audience.lock();
        seats.close();
        let tally = &seats.tally;
        assert_eq!((tally.connected, tally.expected, tally.received, tally.lost), (2, 4, 4, 0));
        assert!(tally.faults().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_only_late_is_waited_for_while_more_comes() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let (audience, start) = (audience(1, &[]), Instant::now());
        let slow = async {
            for n in 1..=5 {
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                audience.see(0, n, Duration::ZERO);
            }
        };
        tokio::join!(audience.settle([5].into_iter(), PATIENCE, HOUR), slow);
        assert_eq!((start.elapsed(), audience.lock().unfinished), (PATIENCE * 45 / 10, 0));
        audience.settle([9].into_iter(), PATIENCE, HOUR).await;
        assert_eq!(start.elapsed(), PATIENCE * 55 / 10, "nothing comes any more");
        let endless = async {
            for n in 6.. {
                tokio::time::sleep(PATIENCE / 2).await;
                audience.see(0, n, Duration::ZERO);
            }
        };
        tokio::select! {
            () = audience.settle([u32::MAX].into_iter(), PATIENCE, HOUR) => {}
            () = endless => {}
        }
        assert!(start.elapsed() < HOUR + 10 * PATIENCE);
    }

    #[test]
    fn what_is_lost_repeated_and_turned_around_is_counted_where_it_happens() {
        let audience = audience(4, &[(0, 2), (0, 3), (1, 1), (1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (2, 2)]);
        let mut seats = audience.lock();
        assert_eq!(seats.tally.lost, 1);
        assert!(!seats.expect([3, 3, 3, 3, 3].into_iter()));
        assert_eq!(seats.unfinished, 1);
        seats.close();
        let tally = &seats.tally;
        assert_eq!((tally.expected, tally.received, tally.lost), (12, 8, 4));
        assert_eq!((tally.repeated, tally.out_of_order, tally.unfinished), (1, 1, 1));
    }

    #[test]
    fn who_is_not_there_is_not_waited_for() {
        let audience = Audience::new(3);
        audience.see(1, 1, Duration::ZERO);
        let mut seats = audience.lock();
        assert!(seats.expect([5, 5, 5].into_iter()));
        seats.close();
        assert_eq!((seats.tally.expected, seats.tally.received, seats.tally.lost), (0, 0, 0));
    }
}
