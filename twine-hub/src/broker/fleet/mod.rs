//! The broker of a fleet: Redis orders messages and carries them between hubs, a table keeps them.
//!
//! One rule carries all promises: a message is shown to anyone, and acknowledged, only once it is
//! durable in the table ([`writer`]). So every position that anybody has seen is a place of the log,
//! whatever becomes of Redis; and a room whose Redis was lost goes on in a new epoch ([`rotation`]).
//!
//! ```text
//!  publish ─▶ Redis: assign ─▶ table: write, confirm ─▶ answer
//!                                      └─▶ Redis: commit ─▶ bus ─▶ each hub's carrier ─▶ rooms
//! ```

mod carrier;
mod ends;
mod following;
mod log;
mod publishing;
mod rotation;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twine_protocol::{Epoch, Position, RoomName};

use self::carrier::{Carrier, Command};
use self::ends::Ends;
use self::log::FleetReader;
use self::rotation::{Found, Rotations};
use self::writer::{OVERDUE, Writers};
use super::backlog::Pending;
use super::redis::{self, Link, RedisError, RoomLimits, Target};
use super::{PublishError, Publishing};
use crate::rooms::{Delivery, NewMessage, Opened, Refreshed, Room, Watcher, locked};
use crate::store::dynamodb::{Location, Table, TableError, TableReader};
use crate::store::{Reader, Retention, StoreError};
use crate::telemetry::Telemetry;

/// Threads that read for subscribers who are behind. Each waits for one answer of Redis or the table.
const READERS: usize = 16;
/// How long the table may take to answer at the start.
const START: Duration = Duration::from_secs(10);
/// How long it may take to learn the head of a room that is not in memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what publishers wait for may go on once the broker closes. Their requests have been waited
/// for already.
const FINISH: Duration = Duration::from_secs(1);
/// Before it is looked again whether all that was assigned is shown: twice as long each time, up to...
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// ...this.
const MAX_LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often a table or a Redis that failed is tried, where nobody else does.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Why a fleet's hub could not do it now. All of it passes, or is an operator's to mend.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FleetError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Table(Arc<TableError>),
    #[error("Redis and DynamoDB together did not answer in time")]
    Deadline,
    #[error("more messages of this room wait to be stored than may wait")]
    Busy,
    #[error("Redis changes its master again and again")]
    Restless,
    #[error("Redis can't be used: {reason}")]
    Disconnected { reason: String },
    #[error("TLS to Redis can't be set up")]
    Tls(#[source] rustls::Error),
    #[error("the Redis that this hub is connected to is behind the fleet")]
    Behind,
    #[error("the hub is shutting down")]
    Closed,
}

impl From<TableError> for FleetError {
    fn from(error: TableError) -> Self {
        Self::Table(Arc::new(error))
    }
}

impl From<FleetError> for StoreError {
    fn from(error: FleetError) -> Self {
        Self::Fleet(Box::new(error))
    }
}

/// What all parts of a hub's broker share.
struct Fleet {
    link: Link,
    table: Table,
    limits: RoomLimits,
    rotations: Rotations,
    writers: Writers,
    ends: Ends,
    /// Rooms in which this hub completes what another left.
    completing: Mutex<HashSet<RoomName>>,
    /// Why the table can't be used, where that is known.
    table_trouble: Mutex<Option<FleetError>>,
    telemetry: Arc<Telemetry>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A handle to the broker.
pub(crate) struct FleetBroker {
    fleet: Arc<Fleet>,
    commands: Mutex<Option<UnboundedSender<Command>>>,
    health: Arc<Mutex<Result<(), Arc<StoreError>>>>,
    runtime: Handle,
}

impl FleetBroker {
    /// Connects to the table, and begins to connect to Redis: a hub that starts while Redis is away
    /// says so on `/readyz` and goes on by itself. Gives also what reads for those who are behind.
    ///
    /// # Errors
    /// Where the table is not to be had, or TLS can't be set up.
    pub(crate) async fn start(
        redis: &Target,
        table: &Location,
        retention: Retention,
        limits: RoomLimits,
        delivery: Delivery,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Self, Vec<Box<dyn Reader>>), StoreError> {
        let table = Table::open(table, retention, telemetry.table.clone(), Instant::now() + START).await?;
        Self::over(redis, table, limits, delivery, telemetry)
    }

    /// Begins to connect to Redis; the table is there.
    fn over(
        redis: &Target,
        table: Table,
        limits: RoomLimits,
        delivery: Delivery,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Self, Vec<Box<dyn Reader>>), StoreError> {
        let (link, bus) = Link::start(redis, redis::Limits::default())
            .map_err(|error| StoreError::from(FleetError::Tls(error)))?;
        let runtime = Handle::current();
        let readers = (0..READERS).map(|_| -> Box<dyn Reader> {
            let table = TableReader::new(table.clone(), runtime.clone());
            Box::new(FleetReader::new(link.clone(), table, runtime.clone()))
        });
        let readers = readers.collect();
        let fleet = Arc::new(Fleet::new(link, table, limits, telemetry));
        let (commands, waiting) = unbounded_channel();
        fleet.tasks.spawn(Carrier::new(fleet.clone(), delivery, bus, waiting).run());
        let noting = fleet.clone();
        fleet.tasks.spawn(async move { noting.note_ends().await });
        // Nothing is known until it was asked for.
        let unknown = FleetError::Disconnected { reason: "it was not asked yet".into() };
        let health = Arc::new(Mutex::new(Err(Arc::new(StoreError::from(unknown)))));
        let (watching, report) = (fleet.clone(), health.clone());
        let stop = fleet.stop.clone();
        fleet.tasks.spawn(async move {
            stop.run_until_cancelled(watching.watch_health(&report)).await;
        });
        let broker = Self { fleet, commands: Mutex::new(Some(commands)), health, runtime };
        Ok((broker, readers))
    }

    /// Publishes messages: each is stored once, though not all may be where this fails. They have a task
    /// of their own, so that a publisher that hangs up leaves nothing half done.
    pub(super) fn publish(&self, messages: Vec<NewMessage>, pending: Pending) -> Publishing {
        if locked(&self.commands).is_none() {
            return Publishing::refused(PublishError::Draining);
        }
        let fleet = self.fleet.clone();
        Publishing::by(async move {
            let _pending = pending;
            // It would be given a place, and wait for a table that is known to be away.
            if let Some(error) = locked(&fleet.table_trouble).clone() {
                return Err(PublishError::Store(Arc::new(error.into())));
            }
            let publishing = fleet.clone();
            let published = fleet.tasks.spawn(async move { publishing.publish(messages).await });
            match published.await {
                Ok(Ok(published)) => Ok(published),
                Ok(Err(FleetError::Busy)) => Err(PublishError::Overloaded),
                Ok(Err(error)) => Err(PublishError::Store(Arc::new(error.into()))),
                Err(_) => Err(PublishError::Store(Arc::new(StoreError::Ended))),
            }
        })
    }

    /// Takes the room into memory and watches it there.
    pub(crate) fn open_and_watch(&self, name: RoomName, watcher: Watcher, opened: Opened) {
        if let Some(Command::Open { opened, .. }) = self.send(Command::Open { name, watcher, opened }) {
            opened(Err(Arc::new(StoreError::Closed)));
        }
    }

    /// Lets the room leave memory, if nothing holds it there.
    pub(crate) fn release(&self, name: RoomName) {
        // A broker that is closed has no rooms to release.
        drop(self.send(Command::Release { name }));
    }

    /// Brings a room in memory up to what was committed anywhere before this call, then calls `done`.
    pub(crate) fn refresh(&self, room: &Arc<Room>, done: Refreshed) {
        let name = room.name().clone();
        if let Some(Command::Refresh { done, .. }) = self.send(Command::Refresh { name, done }) {
            done(Err(Arc::new(StoreError::Closed)));
        }
    }

    /// The head of a room that is not in memory, with all that was committed anywhere before this call.
    pub(crate) async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        let head = self.fleet.head(name, Instant::now() + PATIENCE).await;
        head.map_err(|error| Arc::new(error.into()))
    }

    /// Whether Redis and the table can be used, as far as is known.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        locked(&self.health).clone()
    }

    /// Refuses what comes, lets what publishers wait for go on for a moment, and ends all connections.
    /// Blocks until then, which is a moment more than that: nobody waits for an answer any more, the
    /// readers neither.
    pub(crate) fn close(&self) {
        drop(locked(&self.commands).take());
        self.fleet.tasks.close();
        self.fleet.stop.cancel();
        self.runtime.block_on(async {
            if tokio::time::timeout(FINISH, self.fleet.tasks.wait()).await.is_err() {
                // Messages that have a place are completed by another hub, or found when their publish is
                // repeated.
                tracing::warn!("the broker had work under way still: ended by force");
            }
            self.fleet.table.close();
            self.fleet.link.close().await;
            self.fleet.tasks.wait().await;
        });
    }

    /// Hands a command over, or back when the broker is closed.
    fn send(&self, command: Command) -> Option<Command> {
        match &*locked(&self.commands) {
            Some(commands) => commands.send(command).err().map(|refused| refused.0),
            None => Some(command),
        }
    }
}

impl Fleet {
    /// How far a room is shown once all is that was assigned by now: it may have been acknowledged, and is
    /// shown a moment later.
    async fn head(self: &Arc<Self>, room: &RoomName, deadline: Instant) -> Result<Position, FleetError> {
        // Whoever asks may have seen more of the room than the Redis of this hub has.
        let mut found = self.look_surely(room, deadline).await?;
        let wanted = Position { epoch: found.epoch().clone(), offset: found.head };
        let mut wait = LOOK_AGAIN;
        while found.done < wanted {
            self.complete_if_stalled(room, &found);
            if Instant::now() >= deadline {
                return Err(FleetError::Deadline);
            }
            tokio::time::sleep(wait).await;
            wait = MAX_LOOK_AGAIN.min(2 * wait);
            found = self.look(room, deadline).await?;
        }
        Ok(found.done)
    }

    /// Has what others left in a room completed, where that is due.
    fn complete_if_stalled(self: &Arc<Self>, room: &RoomName, found: &Found) {
        if found.stalled > OVERDUE {
            self.complete_soon(room, found.epoch());
        }
    }

    fn new(link: Link, table: Table, limits: RoomLimits, telemetry: Arc<Telemetry>) -> Self {
        Self {
            link,
            ends: Ends::of(table.retention()),
            table,
            limits,
            rotations: Rotations::default(),
            writers: Writers::default(),
            completing: Mutex::default(),
            table_trouble: Mutex::default(),
            telemetry,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Completes what others left in a room, unless this hub is about it already.
    fn complete_soon(self: &Arc<Self>, room: &RoomName, epoch: &Epoch) {
        if !locked(&self.completing).insert(room.clone()) {
            return;
        }
        let (fleet, room, epoch) = (self.clone(), room.clone(), epoch.clone());
        self.tasks.spawn(async move {
            // Another hub can do it as well as one that is shutting down.
            let complete = Box::pin(fleet.complete(&room, &epoch));
            let completed = fleet.stop.run_until_cancelled(complete).await;
            if let Some(Err(error)) = completed {
                tracing::debug!(%room, %error, "messages that another hub left could not be completed yet");
            }
            locked(&fleet.completing).remove(&room);
        });
    }

    /// Keeps `report` true, for ever.
    async fn watch_health(&self, report: &Mutex<Result<(), Arc<StoreError>>>) {
        loop {
            let now = self.probe().await.map_err(|error| Arc::new(StoreError::from(error)));
            let before = std::mem::replace(&mut *locked(report), now.clone());
            match (before, now) {
                (Ok(()), Err(error)) => {
                    tracing::error!(%error, "publishes are refused until it works again");
                }
                (Err(_), Ok(())) => tracing::info!("Redis and DynamoDB can be used"),
                _ => {}
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    async fn probe(&self) -> Result<(), FleetError> {
        if let redis::State::Disconnected { reason, .. } = self.link.state() {
            // What the table was like is not known any more.
            *locked(&self.table_trouble) = None;
            return Err(FleetError::Disconnected { reason });
        }
        let probed = self.table.probe(Instant::now() + PATIENCE).await.map_err(FleetError::from);
        *locked(&self.table_trouble) = probed.clone().err();
        probed
    }
}
