//! Publishing by the clock: messages are due when they are due, whatever the hub takes its time for.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use twine_server_sdk::{Error, Message, Twine};

use super::audience::Audience;
use super::orders::{Job, Runs};
use super::pace::{Pace, micros, unix_micros};
use super::payload::Padding;
use super::share::share;
use super::tally::Tally;
use crate::cli::chain;

/// Batches that a process has under way to one server, at most.
const LANES: usize = 4;
/// How late a message may leave without counting as late.
const LATE: Duration = Duration::from_millis(100);
/// How long a batch is tried: a hub may restart meanwhile.
const DEADLINE: Duration = Duration::from_mins(1);

/// A publisher to the hub at `url`.
///
/// # Errors
/// As [`twine_server_sdk::TwineBuilder::build`].
pub(super) fn publisher(url: &str, key: &str, deadline: Duration) -> Result<Twine, Error> {
    // No proxy, for the WebSockets know none.
    Twine::builder(url, key).deadline(deadline).no_proxy().build()
}

/// Rooms of one server that one task publishes to, one batch after the other: that keeps them in order.
struct Lane {
    job: Arc<Job>,
    twine: Twine,
    rooms: Vec<usize>,
    pace: Pace,
    padding: Arc<Padding>,
    /// When the clock begins, for this lane: each by itself, so that not all batches are due at once.
    start: u64,
}

/// Publishes all messages to the rooms of this process, from `start` on (microseconds since 1970-01-01
/// UTC), or until `stop`. Gives how many of each room were acknowledged.
///
/// # Errors
/// Where a publisher can't be made.
pub(super) async fn publish(
    job: &Arc<Job>,
    start: u64,
    stop: &CancellationToken,
    audience: &Arc<Audience>,
) -> Result<Runs, Error> {
    let plan = &job.plan;
    let rooms = plan.rooms_of(job.process);
    let padding = Arc::new(Padding::new(plan.size));
    let mut lanes = JoinSet::new();
    for (place, url) in plan.urls.iter().enumerate() {
        let twine = publisher(url, &job.key, DEADLINE)?;
        let here: Vec<_> = rooms.clone().filter(|&room| plan.url_of(room) == place).collect();
        let n_lanes = LANES.min(here.len());
        for index in 0..n_lanes {
            let rooms: Vec<_> = here.get(share(here.len(), n_lanes, index)).unwrap_or_default().to_vec();
            let lane = Lane {
                pace: Pace::new(rooms.len(), plan.messages, plan.interval, plan.size),
                start: start + micros(offset(job, place * LANES + index)),
                job: Arc::clone(job),
                twine: twine.clone(),
                padding: Arc::clone(&padding),
                rooms,
            };
            lanes.spawn(lane.run(stop.clone(), Arc::clone(audience)));
        }
    }
    let mut acknowledged = vec![0; rooms.len()];
    while let Some(lane) = lanes.join_next().await {
        // Nobody ends a lane but itself, and a panic ends the process.
        for (room, messages) in lane.unwrap_or_default() {
            if let Some(number) = acknowledged.get_mut(room - rooms.start) {
                *number = messages;
            }
        }
    }
    Ok(acknowledged.into_iter().collect())
}

/// By how much the lanes of all processes are apart, within one tick of their clocks.
fn offset(job: &Job, lane: usize) -> Duration {
    let lanes = job.plan.urls.len() * LANES;
    let n = job.plan.processes * lanes;
    super::pace::spread((job.process * lanes + lane).min(n), n, Pace::TICK)
}

impl Lane {
    /// Gives its rooms, and how many messages of each were acknowledged.
    async fn run(self, stop: CancellationToken, audience: Arc<Audience>) -> Vec<(usize, u32)> {
        let start = Instant::now() + Duration::from_micros(self.start.saturating_sub(unix_micros()));
        let mut k = 0;
        while k < self.pace.total() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(start + self.pace.due(k)) => {}
            }
            let sent = Instant::now();
            let end = self.pace.batch_end(k, sent - start);
            let outcome = match self.batch(k..end) {
                Ok(messages) => self.twine.publish_batch(&messages).await.map(|_| ()),
                Err(error) => Err(error),
            };
            let tally = &mut audience.lock().tally;
            for k in k..end {
                let late = sent.saturating_duration_since(start + self.pace.due(k));
                tally.lateness.record(late);
                tally.late += u64::from(late > LATE);
            }
            if let Err(error) = outcome {
                self.give_up(&error, k..end, tally);
                break;
            }
            tally.acknowledged += end - k;
            tally.publish.record_n(micros(sent.elapsed()), end - k);
            k = end;
        }
        let rooms = self.rooms.iter().enumerate();
        rooms.map(|(place, &room)| (room, self.pace.of_room(place, k))).collect()
    }

    fn batch(&self, messages: std::ops::Range<u64>) -> Result<Vec<Message>, Error> {
        let message = |k| {
            let room = self.rooms.get(self.pace.room(k)).copied().unwrap_or_default();
            let due = self.start + micros(self.pace.due(k));
            Message::new(self.job.room(room), &self.padding.fill(self.pace.number(k), due))
        };
        messages.map(message).collect()
    }

    /// What follows in these rooms would not be the next message: nothing more is published to them.
    fn give_up(&self, error: &Error, failed: std::ops::Range<u64>, tally: &mut Tally) {
        tally.refused += failed.end - failed.start;
        tally.given_up += self.pace.total() - failed.end;
        tally.publish_problem.get_or_insert_with(|| chain(error));
    }
}
