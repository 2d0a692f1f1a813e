//! A publish on a fleet, from the request to the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout_at};
use twine_protocol::api::Published;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};
use uuid::Uuid;

use super::writer::{self, Fate, OVERDUE};
use super::{Fleet, FleetError};
use crate::broker::redis;
use crate::rooms::NewMessage;
use crate::store::Record;

/// How long a publish may take in all; then its publisher is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before somebody looks again whether a message is durable that another request publishes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A message of a request, and what is known of it.
struct Entry {
    message: NewMessage,
    id: MessageId,
    /// Whether this request was given a place for it.
    is_own: bool,
    published: Option<Published>,
}

impl Fleet {
    /// Publishes messages of any rooms: those of one room in their order.
    ///
    /// # Errors
    /// Where not all are known to be durable: some may be. To be repeated with the same ids.
    pub(super) async fn publish(
        self: &Arc<Self>,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Published>, FleetError> {
        let deadline = Instant::now() + PATIENCE;
        let mut rooms: HashMap<RoomName, Vec<(usize, Entry)>> = HashMap::new();
        for (at, message) in messages.into_iter().enumerate() {
            let id = message.id.clone().unwrap_or_else(new_id);
            let room = message.room.clone();
            let entry = Entry { message, id, is_own: false, published: None };
            rooms.entry(room).or_default().push((at, entry));
        }
        let published = rooms.into_iter().map(|(room, entries)| async move {
            let (places, mut entries): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            let published = timeout_at(deadline, self.publish_in(&room, &mut entries, deadline)).await;
            published.map_err(|_| FleetError::Deadline)??;
            Ok::<_, FleetError>(places.into_iter().zip(entries))
        });
        let mut all: Vec<_> = try_join_all(published).await?.into_iter().flatten().collect();
        all.sort_by_key(|(at, _)| *at);
        // `publish_in` returns once each is published.
        Ok(all.into_iter().filter_map(|(_, entry)| entry.published).collect())
    }

    /// Publishes messages of one room, and returns once all are durable.
    ///
    /// One gets its place once each before it is durable or on its way, from here and in the same epoch: what
    /// an epoch's end takes along is published again in the next, and must not come after what follows it.
    async fn publish_in(
        self: &Arc<Self>,
        room: &RoomName,
        entries: &mut [Entry],
        deadline: Instant,
    ) -> Result<(), FleetError> {
        loop {
            let mut under_way: Vec<(usize, Position, _)> = Vec::new();
            let request = writer::Request::default();
            let mut is_elsewhere = false;
            for (at, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| entry.published.is_none()) {
                let epoch = under_way.last().map(|(_, position, _)| &position.epoch);
                match self.assign(room, entry, epoch, deadline).await? {
                    Assigned::Here(position, record) => {
                        let epoch = position.epoch.clone();
                        under_way.push((at, position, self.write(room, epoch, record, &request, deadline)));
                    }
                    Assigned::Before(position) => entry.settle(room, position),
                    Assigned::Elsewhere => {
                        is_elsewhere = true;
                        break;
                    }
                    Assigned::Nowhere => break,
                }
            }
            let mut ended = None;
            for (at, position, fate) in under_way {
                match fate.await.unwrap_or(Err(FleetError::Closed))? {
                    Fate::Durable => {
                        if let Some(entry) = entries.get_mut(at) {
                            entry.settle(room, position);
                        }
                    }
                    Fate::Ended => ended = Some(position.epoch),
                }
            }
            if let Some(ended) = ended {
                self.rotated(room, Some(ended), deadline).await?;
            }
            if entries.iter().all(|entry| entry.published.is_some()) {
                return Ok(());
            }
            if is_elsewhere {
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Gives a message its place, in this epoch where there is one.
    async fn assign(
        self: &Arc<Self>,
        room: &RoomName,
        entry: &mut Entry,
        epoch: Option<&Epoch>,
        deadline: Instant,
    ) -> Result<Assigned, FleetError> {
        loop {
            let NewMessage { data, sender, .. } = &entry.message;
            let (sender, data) = (sender.as_deref(), data.get());
            let answer = self.link.publish(room, &entry.id, sender, data, epoch, &self.limits).await?;
            match answer {
                redis::Published::Assigned { position, time, stalled, .. } => {
                    entry.is_own = true;
                    if stalled > OVERDUE {
                        self.complete_soon(room, &position.epoch);
                    }
                    let record = Record {
                        offset: position.offset,
                        time,
                        id: Some(entry.id.clone()),
                        sender: entry.message.sender.clone(),
                        data: entry.message.data.clone(),
                    };
                    return Ok(Assigned::Here(position, record));
                }
                redis::Published::Duplicate { position, is_pending: false } => {
                    return Ok(Assigned::Before(position));
                }
                redis::Published::Duplicate { position, is_pending: true } => {
                    // Another request has it under way, or its hub is gone.
                    self.complete_soon(room, &position.epoch);
                    return Ok(Assigned::Elsewhere);
                }
                redis::Published::OtherEpoch => return Ok(Assigned::Nowhere),
                // What becomes of those before it is to be known first.
                redis::Published::Rotate(_) if epoch.is_some() => return Ok(Assigned::Nowhere),
                redis::Published::Busy => return Err(FleetError::Busy),
                redis::Published::Rotate(_) => drop(self.look(room, deadline).await?),
            }
        }
    }
}

/// What a message was given.
enum Assigned {
    /// This place, and it is to be written.
    Here(Position, Record),
    /// This place, some time ago, and it is durable.
    Before(Position),
    /// A place that it is not known to be durable at yet.
    Elsewhere,
    /// None: the epoch has ended.
    Nowhere,
}

impl Entry {
    fn settle(&mut self, room: &RoomName, Position { epoch, offset }: Position) {
        debug_assert_ne!(offset, Offset::ZERO, "a message has a place after the start");
        let duplicate = !self.is_own;
        self.published = Some(Published { room: room.clone(), epoch, offset, duplicate });
    }
}

/// An id for a message whose publisher gave none: what a hub repeats must be stored once all the same.
// 32 hexadecimal digits: always an id.
#[allow(clippy::expect_used)]
fn new_id() -> MessageId {
    MessageId::new(&Uuid::new_v4().simple().to_string()).expect("short and plain")
}
