//! Hubs of a fleet, all in this process, over real Redis servers and one table in DynamoDB Local. That
//! takes seconds to start, so that one test runs all cases with one of it, each on a table of its own.

mod away;
mod batches;
mod clocks;
mod closing;
mod following;
mod life;
mod reading;
mod rotation;
mod silence;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use twine_protocol::api::Published;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::{Fleet, FleetBroker};
use crate::broker::redis::tests::server::{PATIENCE, Server};
use crate::broker::redis::{RoomLimits, Target};
use crate::broker::{Backlog, Broker, PublishError};
use crate::rooms::{Delivery, NewMessage, Options, PageRequest, Reading, Room, Rooms, Steps, Watch, Watcher};
use crate::store::dynamodb::Table;
use crate::store::dynamodb::tests::Bench;
use crate::store::dynamodb::tests::dynamodb_local::DynamoDbLocal;
use crate::store::history::{Direction, Range};
use crate::store::page::{Limit, Recovery, Start};
use crate::store::{Retention, StoreError};
use crate::telemetry::Telemetry;

const DAY: Duration = Duration::from_hours(24);

#[test]
fn all_of_it_against_redis_and_dynamodb_local() {
    let cases: [(&str, Case); 17] = [
        ("following: what the log has no more is told as lost", |bench| {
            Box::pin(following::what_is_gone(bench))
        }),
        ("rotation: whichever request is a hub's last, another one goes on", |bench| {
            Box::pin(rotation::any_request_may_be_the_last(bench))
        }),
        ("rotation: one epoch never begins on two servers", |bench| {
            Box::pin(rotation::an_epoch_begins_on_one_server(bench))
        }),
        ("rotation: an id counts as published only once it is sealed", |bench| {
            Box::pin(rotation::ids_of_an_open_epoch_are_not_remembered(bench))
        }),
        ("rotation: a room goes on whose fence has moved behind a sound server", |bench| {
            Box::pin(rotation::a_fence_moves_on_behind_a_sound_server(bench))
        }),
        ("batches: one stays in order when its room goes on in another epoch", |bench| {
            Box::pin(batches::one_stays_in_order(bench))
        }),
        ("batches: what comes after a write that failed is not written", |bench| {
            Box::pin(batches::what_is_behind_a_failed_write_waits(bench))
        }),
        (
            "batches: publishes that are handed over together are made in the order they are awaited",
            |bench| Box::pin(batches::each_begins_when_it_is_awaited(bench)),
        ),
        ("silence: what was deleted meanwhile is no loss to who has had it", |bench| {
            Box::pin(silence::is_no_loss(bench))
        }),
        ("clocks: hubs that are minutes off repeat nothing", |bench| {
            Box::pin(clocks::nothing_is_repeated(bench))
        }),
        ("clocks: hubs that are minutes off take nothing for too old", |bench| {
            Box::pin(clocks::nothing_is_too_old_early(bench))
        }),
        ("refreshing: who asks for a room that left memory is answered", |bench| {
            Box::pin(rotation::a_room_that_left_memory_is_refreshed(bench))
        }),
        ("refreshing: what was assigned may have been seen", |bench| {
            Box::pin(rotation::what_is_assigned_is_waited_for(bench))
        }),
        ("reading: history has what was acknowledged", |bench| {
            Box::pin(reading::history_has_what_was_acknowledged(bench))
        }),
        ("reading: a superseded Redis has not the last word of history", |bench| {
            Box::pin(reading::a_superseded_redis_has_not_the_last_word(bench))
        }),
        ("away: publishes are refused at once", |bench| Box::pin(away::publishes_are_refused_at_once(bench))),
        ("closing: nobody waits for a table or a Redis that is away", |bench| {
            Box::pin(closing::while_both_are_away(bench))
        }),
    ];
    let local = DynamoDbLocal::start();
    // A part of a case's name plays that one only.
    let only = std::env::var("TWINE_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, case) in cases.into_iter().filter(|(name, _)| name.contains(&only)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let started = std::time::Instant::now();
        let case = case(Bench { port: local.port() });
        let case = async { tokio::spawn(tokio::time::timeout(PATIENCE * 2, case)).await };
        let result = match runtime.block_on(case) {
            Ok(Ok(())) => "ok",
            Ok(Err(_)) => "FAILED, it hangs",
            Err(_) => "FAILED, see above",
        };
        println!("{name}: {result} ({:.1} s)", started.elapsed().as_secs_f32());
        // Ends what a case that failed has left under way.
        runtime.shutdown_background();
        failed.extend((result != "ok").then_some(name));
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

type Case = fn(Bench) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// One hub of a fleet, without its sockets.
struct Hub {
    rooms: Rooms,
    fleet: Arc<Fleet>,
}

impl Hub {
    fn start(redis: &str, table: &Table) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let delivery = Delivery::new(&Options::default(), telemetry.clone());
        let registry = delivery.registry();
        let redis = Target::parse(redis).unwrap();
        let (broker, readers) =
            FleetBroker::over(&redis, table.clone(), RoomLimits::default(), delivery, telemetry).unwrap();
        let fleet = broker.fleet.clone();
        let reading = Arc::new(Reading::start(readers, usize::MAX).unwrap());
        let broker = Broker::fleet(broker, Backlog::new(usize::MAX));
        Self { rooms: Rooms::over(registry, broker, reading), fleet }
    }

    /// Publishes a message, whose id is also its data.
    async fn publish(&self, room: &RoomName, id: &str) -> Result<Published, PublishError> {
        Ok(self.rooms.publish(vec![message(room, id)]).await?.remove(0))
    }

    /// The same as often as it takes: a machine may be too busy for a publish's deadline.
    async fn publish_surely(&self, room: &RoomName, id: &str) -> Published {
        let give_up = soon();
        loop {
            match self.publish(room, id).await {
                Ok(published) => return published,
                Err(error) => assert!(Instant::now() < give_up, "{room}, {id}: {error}"),
            }
        }
    }

    /// Watches a room from now on.
    async fn watch(&self, room: &RoomName) -> Watching {
        self.begin_to_watch(room).await.unwrap().unwrap()
    }

    fn begin_to_watch(&self, room: &RoomName) -> oneshot::Receiver<Result<Watching, Arc<StoreError>>> {
        let told = Arc::new(Told::default());
        let watcher = Watcher { watch: told.clone(), room: 7, is_told: told.is_told.clone() };
        let (answer, answered) = oneshot::channel();
        let opened = move |opened: Result<(Arc<Room>, Position), _>| {
            drop(answer.send(opened.map(|(room, _)| Watching { room, told })));
        };
        self.rooms.watch(room, watcher, Box::new(opened));
        answered
    }

    /// Reads all there is from a place to the end of what the room has here.
    async fn page(&self, watching: &Watching, after: Position) -> Steps {
        let (room, until) = (watching.room.name(), watching.room.head());
        self.begin_to_read(room, after, until).await.unwrap().unwrap()
    }

    /// The whole log once it has come to a place: places and ids.
    async fn log(&self, room: &RoomName, until: &Position) -> Vec<(Position, String)> {
        // What was acknowledged is shown soon after.
        let watching = self.watch(room).await;
        watching.until(until).await;
        let (mut log, mut after) = (Vec::new(), None);
        loop {
            let range =
                Range { after, before: None, since: None, until: None, direction: Direction::Forwards };
            let history = self.rooms.history(room, range, 10_000).await.unwrap();
            let place = |epoch, offset| Position { epoch, offset };
            let messages = history.messages.into_iter();
            log.extend(messages.map(|of| (place(of.epoch, of.offset), of.id.unwrap().as_str().to_owned())));
            if history.next.is_none() {
                self.unwatch(&watching);
                return log;
            }
            // A page ends before a place that was given out and lost.
            after = history.next;
        }
    }

    /// Begins to read what it has of a room from a place on. Nobody waits for that.
    fn begin_to_read(
        &self,
        room: &RoomName,
        after: Position,
        until: Position,
    ) -> oneshot::Receiver<Result<Steps, Arc<StoreError>>> {
        let request = PageRequest {
            room: room.clone(),
            start: Start::After(after),
            until,
            limit: Limit { messages: 10_000, bytes: usize::MAX },
            recovery: Some(Recovery { max_messages: 100_000, max_age: DAY * 365 }),
            is_compressed: false,
        };
        let (answer, answered) = oneshot::channel();
        self.rooms.read(request, Box::new(move |steps| drop(answer.send(steps))));
        answered
    }

    fn unwatch(&self, watching: &Watching) {
        let watch: Arc<dyn Watch> = watching.told.clone();
        self.rooms.unwatch(&watching.room, &watch, 7);
    }

    /// Has a room brought up to date.
    fn begin_to_refresh(&self, watching: &Watching) -> oneshot::Receiver<Result<(), Arc<StoreError>>> {
        let (answer, answered) = oneshot::channel();
        self.rooms.refresh(&watching.room, Box::new(move |done| drop(answer.send(done))));
        answered
    }

    async fn stop(self) {
        self.rooms.close().await;
    }
}

/// A room that is watched as a shard of connections watches it.
struct Watching {
    room: Arc<Room>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    is_told: Arc<AtomicBool>,
    moved: Notify,
}

impl Watch for Told {
    fn moved(&self, _: u32) {
        self.moved.notify_one();
    }
}

impl Watching {
    /// Waits until the room has come to a place, and says how far it is.
    async fn until(&self, place: &Position) -> Position {
        loop {
            self.told.is_told.store(false, Ordering::SeqCst);
            let head = self.room.head();
            if head >= *place {
                return head;
            }
            let moved = tokio::time::timeout(PATIENCE, self.told.moved.notified()).await;
            moved.unwrap_or_else(|_| panic!("the room stays at {head}, before {place}"));
        }
    }
}

/// A deadline that nothing misses but by hanging.
fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn message(room: &RoomName, id: &str) -> NewMessage {
    let data = RawValue::from_string(format!("\"{id}\"")).unwrap();
    NewMessage { room: room.clone(), data, id: Some(MessageId::new(id).unwrap()), sender: None }
}

fn room() -> RoomName {
    "chat".parse().unwrap()
}

fn position(Published { epoch, offset, .. }: Published) -> Position {
    Position { epoch, offset }
}

fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

fn place(epoch: &Epoch, n: u64) -> Position {
    Position { epoch: epoch.clone(), offset: offset(n) }
}
