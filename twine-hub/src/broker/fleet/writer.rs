//! From a place in Redis to the table: what this hub's publishers were given places for is written in
//! batches, a room after its own pace.
//!
//! While one write of a room is under way, what comes meanwhile collects, and is the next: the more
//! there is to do, the larger the items. A message is durable once its item is written and the fence
//! showed its epoch open *after* that; then its publisher is answered, and Redis told, which shows it to
//! everybody. What comes after messages that could not be written is not written either: so of one
//! publisher's messages, a later one is never durable without those before it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Fleet, FleetError};
use crate::broker::redis::{Committed, Overdue};
use crate::rooms::locked;
use crate::store::Record;

/// Messages of one write, and their bytes.
const MAX_BATCH: usize = 1_024;
const MAX_BYTES: usize = 256 << 10;
/// Messages that are completed for whoever left them, in one go, and their bytes.
const COMPLETED: usize = 1_024;
const COMPLETED_BYTES: usize = 1 << 20;
/// How long a message may be pending before another hub than its own completes it.
pub(super) const OVERDUE: Duration = Duration::from_secs(2);
/// How long a write may take that no publisher waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is durable.
    Durable,
    /// Its epoch has ended, perhaps with it, perhaps without: publish it again, with the same id.
    Ended,
}

/// Messages that wait to be written, by room; a room is there while a task writes for it.
#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<RoomName, VecDeque<Waiting>>>);

struct Waiting {
    epoch: Epoch,
    record: Record,
    /// When its publisher gives up.
    deadline: Instant,
    request: Request,
    answer: Answer,
}

/// What the messages of one request for a room share: of them none is written once one before it was not
/// found to be durable.
#[derive(Clone, Default)]
pub(super) struct Request {
    has_failed: Arc<AtomicBool>,
}

type Answer = oneshot::Sender<Result<Fate, FleetError>>;

impl Fleet {
    /// Has a message written that was given its place, and tells what became of it.
    pub(super) fn write(
        self: &Arc<Self>,
        room: &RoomName,
        epoch: Epoch,
        record: Record,
        request: &Request,
        deadline: Instant,
    ) -> oneshot::Receiver<Result<Fate, FleetError>> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { epoch, record, deadline, request: request.clone(), answer };
        let mut rooms = locked(&self.writers.0);
        if let Some(queue) = rooms.get_mut(room) {
            queue.push_back(waiting);
        } else {
            rooms.insert(room.clone(), VecDeque::from([waiting]));
            let (fleet, room) = (self.clone(), room.clone());
            self.tasks.spawn(async move { while fleet.write_next(&room).await {} });
        }
        answered
    }

    /// Writes what waits for a room, as much as goes together; false once nothing does.
    async fn write_next(self: &Arc<Self>, room: &RoomName) -> bool {
        let batch = {
            let mut rooms = locked(&self.writers.0);
            let Some(queue) = rooms.get_mut(room) else { return false };
            let batch = take_batch(queue);
            if batch.is_empty() {
                rooms.remove(room);
                return false;
            }
            batch
        };
        // Their publishers repeat them, after those before them.
        let (late, batch): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| waiting.request.has_failed.load(Ordering::Relaxed));
        for waiting in late {
            // Who has hung up wants no answer.
            drop(waiting.answer.send(Ok(Fate::Ended)));
        }
        let Some(epoch) = batch.first().map(|waiting| waiting.epoch.clone()) else { return true };
        // The one with the most time left: the others stop waiting by themselves.
        let deadline = batch.iter().map(|waiting| waiting.deadline).max().unwrap_or_else(Instant::now);
        let requests: Vec<_> = batch.iter().map(|waiting| waiting.request.clone()).collect();
        let (records, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.record, waiting.answer)).unzip();
        let fate = self.settle(room, &epoch, &records, deadline).await;
        let is_durable = matches!(fate, Ok(Fate::Durable));
        for request in requests.iter().filter(|_| !is_durable) {
            request.has_failed.store(true, Ordering::Relaxed);
        }
        let behind = if is_durable { Vec::new() } else { self.take_waiting(room, &epoch) };
        for answer in answers.into_iter().chain(behind) {
            // Who has hung up wants no answer.
            drop(answer.send(fate.clone()));
        }
        if is_durable {
            self.telemetry.published.inc_by(records.len() as u64);
            // The next batch does not wait for it.
            let (fleet, room) = (self.clone(), room.clone());
            self.tasks.spawn(async move { fleet.show(&room, &epoch, &records).await });
        }
        true
    }

    /// Takes what else waits for a room in this epoch, which stays pending: whoever publishes it again has
    /// it completed, in order. Gives who is to be told.
    fn take_waiting(&self, room: &RoomName, epoch: &Epoch) -> Vec<Answer> {
        let mut rooms = locked(&self.writers.0);
        let Some(queue) = rooms.get_mut(room) else { return Vec::new() };
        let (taken, left): (VecDeque<_>, _) =
            std::mem::take(queue).into_iter().partition(|waiting| waiting.epoch == *epoch);
        *queue = left;
        taken.into_iter().map(|waiting| waiting.answer).collect()
    }

    /// Makes messages of one epoch durable.
    pub(super) async fn settle(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        records: &[Record],
        deadline: Instant,
    ) -> Result<Fate, FleetError> {
        self.table.write(room, epoch, records, deadline).await?;
        let is_open = self.table.confirm(room, epoch, deadline).await?;
        Ok(if is_open { Fate::Durable } else { Fate::Ended })
    }

    /// Tells Redis that messages are durable, and so all hubs. Where that fails, whoever sees that they
    /// are pending for long does it.
    async fn show(&self, room: &RoomName, epoch: &Epoch, records: &[Record]) {
        let offsets: Vec<Offset> = records.iter().map(|record| record.offset).collect();
        match self.link.commit(room, epoch, &offsets, &self.limits).await {
            Ok(Committed::Done(offset)) => {
                self.ends.moved(room, &Position { epoch: epoch.clone(), offset });
            }
            // It is in the seal.
            Ok(Committed::Rotated) => {}
            Err(error) => tracing::debug!(%room, %error, "durable messages could not be shown yet"),
        }
    }

    /// Makes durable what has been pending for long: its hub may be gone.
    ///
    /// # Errors
    /// Where Redis or the table is not to be had. It may be repeated.
    pub(super) async fn complete(self: &Arc<Self>, room: &RoomName, epoch: &Epoch) -> Result<(), FleetError> {
        let deadline = Instant::now() + PATIENCE;
        let Overdue::Messages(records) =
            self.link.overdue(room, epoch, OVERDUE, COMPLETED, COMPLETED_BYTES).await?
        else {
            // It goes on elsewhere, or its log is lost and it has to.
            self.rotated(room, Some(epoch.clone()), deadline).await?;
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        tracing::info!(%room, messages = records.len(), "completing messages that another hub left");
        match self.settle(room, epoch, &records, deadline).await? {
            Fate::Durable => self.show(room, epoch, &records).await,
            Fate::Ended => drop(self.rotated(room, Some(epoch.clone()), deadline).await?),
        }
        Ok(())
    }
}

/// The messages of one epoch that wait first.
fn take_batch(queue: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut batch: Vec<Waiting> = Vec::new();
    let mut bytes = 0;
    while let Some(next) = queue.front() {
        let is_same = batch.first().is_none_or(|first| first.epoch == next.epoch);
        bytes += next.record.size();
        if !is_same || batch.len() == MAX_BATCH || (bytes > MAX_BYTES && !batch.is_empty()) {
            break;
        }
        batch.extend(queue.pop_front());
    }
    // Requests of one hub may overtake each other on their way back from Redis.
    batch.sort_by_key(|waiting| waiting.record.offset);
    batch
}
