//! Rooms: the recent end of each log in memory, who watches it, and the registry of all.
//!
//! A room is in memory while somebody watches it or its recent messages are kept. Only their owner,
//! the [`Broker`], makes rooms, adds to them and drops them ([`Delivery`]); whoever wants to watch one
//! that is not in memory asks it to open the room ([`Rooms::watch`]). So a head is never read from
//! the store while a message is on its way into the same room.
//!
//! Each room is in an epoch of its own, and may go on in a later one while it is watched. Its tail
//! begins anew then: what is left of the epoch before comes from the store.
//!
//! Lock order: registry, then room. Neither is held while anything waits.

mod delivery;
pub(crate) mod frames;
mod reading;
mod room;
mod shared;
mod tail;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::oneshot;
use twine_protocol::api::{History, RoomInfo, RoomList, StoredMessage};
use twine_protocol::{Data, MessageId, Position, RoomName};

pub(crate) use delivery::Delivery;
#[cfg(test)]
pub(crate) use reading::Serving;
pub(crate) use reading::{PageRequest, Reading, Step, Steps};
pub(crate) use room::{Room, TailRead, Watch, Watcher};

#[cfg(test)]
use crate::broker::Committer;
use crate::broker::redis::{RoomLimits, Target};
use crate::broker::{Backlog, Broker, FleetBroker, LocalBroker, Publishing};
use crate::store::history::{Part, Range};
use crate::store::page::Limit;
use crate::store::{self, Retention, StoreError, TableLocation};
use crate::telemetry::Telemetry;

/// Bytes of a page of history; who asks for more goes on from its last message.
const HISTORY_BYTES: usize = 4 << 20;

/// How the rooms keep messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Bytes of recent messages kept in memory, all rooms together.
    pub tail_bytes: usize,
    /// How long a message stays in memory at most.
    pub tail_age: Duration,
    /// How long a durable message stays in a fleet's Redis...
    pub log_age: Duration,
    /// ...and how many of a room do.
    pub log_messages: usize,
    /// How long a publish with the same id is recognised.
    pub idempotency_window: Duration,
    /// Bytes of publishes waiting for the store at most; more are refused.
    pub max_pending_bytes: usize,
    /// Frames of so many bytes go compressed to clients that take it; `usize::MAX` for none.
    pub compress_from: usize,
}

impl Options {
    /// What a fleet's Redis keeps of each room.
    fn limits(&self) -> RoomLimits {
        RoomLimits {
            window: self.idempotency_window,
            trim_age: self.log_age,
            max_length: u64::try_from(self.log_messages).unwrap_or(u64::MAX),
            ..RoomLimits::default()
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tail_bytes: 256 << 20,
            tail_age: Duration::from_mins(2),
            log_age: Duration::from_mins(2),
            log_messages: 10_000,
            idempotency_window: Duration::from_mins(10),
            max_pending_bytes: 64 << 20,
            compress_from: 1 << 10,
        }
    }
}

/// What is sent, whatever the room.
#[derive(Debug, Clone)]
pub(crate) struct Payload {
    pub(crate) data: Data,
    pub(crate) id: Option<MessageId>,
    pub(crate) sender: Option<String>,
}

impl Payload {
    pub(crate) fn to(self, room: RoomName) -> NewMessage {
        let Self { data, id, sender } = self;
        NewMessage { room, data, id, sender }
    }
}

/// A message on its way into a room.
#[derive(Debug)]
pub(crate) struct NewMessage {
    pub(crate) room: RoomName,
    pub(crate) data: Data,
    pub(crate) id: Option<MessageId>,
    pub(crate) sender: Option<String>,
}

/// A handle to all rooms; clones share them.
#[derive(Clone)]
pub(crate) struct Rooms(Arc<Shared>);

struct Shared {
    registry: Arc<Registry>,
    broker: Broker,
    reading: Arc<Reading>,
}

/// The rooms in memory, by name.
pub(crate) struct Registry {
    rooms: RwLock<Index>,
    telemetry: Arc<Telemetry>,
}

/// Every publish looks for its room, which costs the same however many there are; who lists them wants an
/// order.
#[derive(Default)]
struct Index {
    by_name: HashMap<RoomName, Arc<Room>>,
    in_order: BTreeSet<RoomName>,
}

impl Registry {
    fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { rooms: RwLock::default(), telemetry }
    }

    /// The room, if it is in memory.
    fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    /// Puts a room in memory. Only the rooms' owner may.
    fn insert(&self, name: RoomName, head: Position) -> Arc<Room> {
        let room = Arc::new(Room::new(name.clone(), head));
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        rooms.in_order.insert(name.clone());
        rooms.by_name.insert(name, room.clone());
        self.telemetry.rooms.inc();
        room
    }

    /// Drops the room from memory if nothing holds it there. Only the rooms' owner may.
    fn drop_if_idle(&self, name: &RoomName) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        // Under the registry's lock nobody begins to watch it meanwhile.
        if rooms.by_name.get(name).is_some_and(|room| room.is_idle()) {
            rooms.by_name.remove(name);
            rooms.in_order.remove(name);
            self.telemetry.rooms.dec();
        }
    }

    #[cfg(test)]
    fn all(&self) -> Vec<Arc<Room>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner).by_name.values().cloned().collect()
    }

    /// Begins to watch a room that is in memory, and tells its head.
    fn watch(&self, name: &RoomName, watcher: Watcher) -> Result<(Arc<Room>, Position), Watcher> {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        match rooms.by_name.get(name) {
            Some(room) => Ok((room.clone(), room.watch(watcher))),
            None => Err(watcher),
        }
    }
}

impl Rooms {
    /// Opens the store and starts the threads that write and read it.
    ///
    /// # Errors
    /// Where the store can't be opened.
    pub(crate) fn open(
        store: &store::Options,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        Self::start(store::open(store)?, store.retention, options, telemetry)
    }

    /// Starts the threads that write and read an embedded store.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(crate) fn start(
        opened: store::Opened,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        let reading = Arc::new(Reading::start(vec![opened.reader], options.compress_from)?);
        let delivery = Delivery::new(options, telemetry.clone());
        let registry = delivery.registry();
        let broker =
            LocalBroker::start(opened.writer, delivery, reading.clone(), retention, options, telemetry)?;
        let broker = Broker::local(broker, Backlog::new(options.max_pending_bytes));
        Ok(Self::over(registry, broker, reading))
    }

    /// Connects to what a fleet shares, and starts what brings it into this hub's memory.
    ///
    /// # Errors
    /// Where the table is not to be had.
    pub(crate) async fn join(
        redis: &Target,
        table: &TableLocation,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        let delivery = Delivery::new(options, telemetry.clone());
        let registry = delivery.registry();
        let (broker, readers) =
            FleetBroker::start(redis, table, retention, options.limits(), delivery, telemetry).await?;
        let reading = Arc::new(Reading::start(readers, options.compress_from)?);
        let broker = Broker::fleet(broker, Backlog::new(options.max_pending_bytes));
        Ok(Self::over(registry, broker, reading))
    }

    /// A handle, and what has to be run for it, step by step.
    #[cfg(test)]
    pub(crate) fn by_hand(
        opened: store::Opened,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> (Self, Committer, Serving) {
        let (reading, mut serving) = Reading::new(vec![opened.reader], options.compress_from);
        let (reading, serving) = (Arc::new(reading), serving.remove(0));
        let delivery = Delivery::new(options, telemetry.clone());
        let registry = delivery.registry();
        let (broker, committer) =
            LocalBroker::new(opened.writer, delivery, reading.clone(), retention, options, telemetry);
        let broker = Broker::local(broker, Backlog::new(options.max_pending_bytes));
        (Self::over(registry, broker, reading), committer, serving)
    }

    /// The rooms that `broker` owns.
    pub(crate) fn over(registry: Arc<Registry>, broker: Broker, reading: Arc<Reading>) -> Self {
        Self(Arc::new(Shared { registry, broker, reading }))
    }

    /// Whether their store is this hub's own: publishing needs no runtime then.
    pub(crate) fn are_this_hubs_own(&self) -> bool {
        self.0.broker.is_local()
    }

    /// Stores messages, all or none, and delivers them. Ready when they are durable.
    pub(crate) fn publish(&self, messages: Vec<NewMessage>) -> Publishing {
        self.0.broker.publish(messages)
    }

    /// Stores one message in each of these rooms, in all or none. Ready when they are durable.
    pub(crate) fn publish_to_each(&self, rooms: Vec<RoomName>, message: &Payload) -> Publishing {
        self.0.broker.publish_to_each(rooms, message)
    }

    /// Begins to watch a room. `opened` is called with it and its head, at once where the room is
    /// in memory, else by the broker soon.
    pub(crate) fn watch(&self, name: &RoomName, watcher: Watcher, opened: Opened) {
        match self.0.registry.watch(name, watcher) {
            Ok(room) => opened(Ok(room)),
            Err(watcher) => self.0.broker.open_and_watch(name.clone(), watcher, opened),
        }
    }

    /// Stops watching a room; one that nothing holds any more leaves memory.
    pub(crate) fn unwatch(&self, room: &Arc<Room>, watch: &Arc<dyn Watch>, watcher: u32) {
        room.unwatch(watch, watcher);
        if room.is_idle() {
            self.0.broker.release(room.name().clone());
        }
    }

    /// Finds out whether there is more of a room that somebody watches than its head says: some
    /// subscriber shows a position later than that. `done` is called once the room has all that was
    /// committed before this call; from the caller's own thread where the head is always the last.
    pub(crate) fn refresh(&self, room: &Arc<Room>, done: Refreshed) {
        self.0.broker.refresh(room, done);
    }

    /// Reads what the tail in memory doesn't have; `done` is called by a reading thread.
    pub(crate) fn read(
        &self,
        request: PageRequest,
        done: Box<dyn FnOnce(Result<Steps, Arc<StoreError>>) + Send>,
    ) {
        self.0.reading.read(request, done);
    }

    /// A page of the messages in `range`, at most `limit`.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub(crate) async fn history(
        &self,
        room: &RoomName,
        range: Range,
        limit: u32,
    ) -> Result<History<Data>, Arc<StoreError>> {
        let head = self.head(room).await?;
        let limit = Limit { messages: limit as usize, bytes: HISTORY_BYTES };
        let Part { messages, next } =
            self.0.reading.history(room.clone(), range, head.clone(), limit).await?;
        let messages = messages.into_iter().map(|(epoch, record)| StoredMessage {
            epoch,
            offset: record.offset,
            time: record.time,
            id: record.id,
            sender: record.sender,
            data: record.data,
        });
        Ok(History {
            room: room.clone(),
            epoch: head.epoch,
            offset: head.offset,
            messages: messages.collect(),
            next,
        })
    }

    /// The rooms in use on this hub whose names come after `after`, at most `limit`.
    pub(crate) fn list(&self, after: Option<&RoomName>, limit: usize) -> RoomList {
        use std::ops::Bound::{Excluded, Unbounded};
        let registry = &self.0.registry;
        let all = registry.rooms.read().unwrap_or_else(PoisonError::into_inner);
        let mut later = all.in_order.range::<RoomName, _>((after.map_or(Unbounded, Excluded), Unbounded));
        let rooms = later.by_ref().take(limit).filter_map(|name| all.by_name.get(name));
        let rooms: Vec<_> = rooms.map(|room| room.info()).collect();
        let next = later.next().and(rooms.last()).map(|last| last.room.clone());
        RoomList { rooms, next }
    }

    /// One room's head and subscribers.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub(crate) async fn info(&self, name: &RoomName) -> Result<RoomInfo, Arc<StoreError>> {
        if let Some(room) = self.0.registry.get(name) {
            return Ok(room.info());
        }
        let head = self.0.broker.head(name).await?;
        Ok(RoomInfo { room: name.clone(), head, subscribers: 0 })
    }

    /// The room's last position, with all that was committed before this call, by whichever hub.
    async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        let Some(room) = self.0.registry.get(name) else { return self.0.broker.head(name).await };
        let (done, refreshed) = oneshot::channel();
        // Who does not wait any more wants no answer.
        self.refresh(&room, Box::new(move |result| drop(done.send(result))));
        refreshed.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Closed)))?;
        let head = room.head();
        match self.0.registry.get(name) {
            Some(same) if Arc::ptr_eq(&same, &room) => Ok(head),
            // The last who watched it has gone meanwhile, and with it whoever kept it up to date.
            _ => self.0.broker.head(name).await,
        }
    }

    /// Whether the store took the last write, and the threads that write and read it are there.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        self.0.broker.health().and_then(|()| self.0.reading.health())
    }

    /// Refuses new publishes, waits for those under way and closes the store.
    pub(crate) async fn close(&self) {
        let shared = self.0.clone();
        if tokio::task::spawn_blocking(move || shared.broker.close(&shared.reading)).await.is_err() {
            tracing::error!("closing the store panicked");
        }
    }
}

/// What [`Rooms::watch`] calls with the room and its head.
pub(crate) type Opened = Box<dyn FnOnce(Result<(Arc<Room>, Position), Arc<StoreError>>) + Send>;

/// What [`Rooms::refresh`] calls.
pub(crate) type Refreshed = Box<dyn FnOnce(Result<(), Arc<StoreError>>) + Send>;

/// Takes a lock whose sections all leave the data whole, so that a panic elsewhere spoils nothing.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_keeps_of_a_room_what_the_options_say() {
        let (log_age, log_messages) = (Duration::from_secs(7), 8);
        let options = Options {
            log_age,
            log_messages,
            idempotency_window: Duration::from_secs(9),
            ..Options::default()
        };
        let RoomLimits { window, trim_age, max_length, .. } = options.limits();
        assert_eq!((window, trim_age, max_length), (Duration::from_secs(9), log_age, 8));
    }
}
