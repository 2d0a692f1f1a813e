//! The rooms' owner on a fleet: brings what other hubs commit into this hub's memory.
//!
//! One task has the rooms, and never waits for anything but the next event; what has to be asked of
//! Redis or the table is asked by tasks of their own, which tell it what they found. A room is first
//! subscribed on the bus, then looked at, then taken into memory with what it had then: so nothing
//! falls between. What the bus loses is noticed by its hole, or by the next look ([`Following`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::following::{Following, Steps};
use super::rotation::Found;
use super::{Fleet, FleetError};
use crate::broker::redis::{Bus, BusEvent, Chunk};
use crate::clock;
use crate::rooms::{Delivery, Opened, Refreshed, Room, Watcher};
use crate::store::{Record, StoreError};

/// How often a room that is watched is looked at, where nothing is heard of it, or it is...
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// ...and how many looks a second there are at most: with more rooms it takes longer.
const LOOKS_A_SECOND: u32 = 2_000;
/// How often the carrier sees to what is due.
const TICK: Duration = Duration::from_millis(100);
/// How often a room that is watched is noted though nothing happens in it: its fence must not expire.
const NOTE_EVERY: Duration = Duration::from_hours(24);
/// How long it takes at most to look at a room, or to fill a hole.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the carrier is asked. What waits is bounded by those who ask: a connection opens and refreshes
/// one room at a time.
pub(super) enum Command {
    Open { name: RoomName, watcher: Watcher, opened: Opened },
    Release { name: RoomName },
    Refresh { name: RoomName, done: Refreshed },
}

/// What the carrier's tasks have found.
enum Finding {
    /// A room is subscribed on the bus, and was looked at.
    Opened {
        name: RoomName,
        found: Result<Found, FleetError>,
    },
    Looked {
        name: RoomName,
        found: Result<Found, FleetError>,
        refreshed: Option<Refreshed>,
    },
    Filled {
        name: RoomName,
        epoch: Epoch,
        records: Result<Vec<Record>, FleetError>,
    },
}

/// A room that somebody here watches.
enum Stage {
    /// It is being opened.
    Opening {
        waiting: Vec<(Watcher, Opened)>,
        /// Whether something was said of it meanwhile.
        is_stale: bool,
    },
    Open(Watched),
}

struct Watched {
    room: Arc<Room>,
    following: Following,
    next_look: Instant,
    is_looking: bool,
    /// When its end is noted again, though it has not moved.
    next_note: Instant,
    /// Who waits until the room has come to a place.
    waiting: Vec<Waiting>,
}

/// Whoever refreshes a room, and is answered whatever becomes of it.
struct Waiting {
    until: Position,
    deadline: Instant,
    done: Option<Refreshed>,
}

impl Waiting {
    fn answer(mut self, answer: Result<(), Arc<StoreError>>) {
        if let Some(done) = self.done.take() {
            done(answer);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(Arc::new(StoreError::Closed)));
        }
    }
}

/// What the task owns.
pub(super) struct Carrier {
    fleet: Arc<Fleet>,
    delivery: Delivery,
    bus: Bus,
    commands: UnboundedReceiver<Command>,
    findings: (UnboundedSender<Finding>, UnboundedReceiver<Finding>),
    rooms: HashMap<RoomName, Stage>,
}

impl Carrier {
    pub(super) fn new(
        fleet: Arc<Fleet>,
        delivery: Delivery,
        bus: Bus,
        commands: UnboundedReceiver<Command>,
    ) -> Self {
        Self { fleet, delivery, bus, commands, findings: unbounded_channel(), rooms: HashMap::new() }
    }

    /// Works until nobody can ask any more, or the bus is closed.
    pub(super) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => break,
                },
                Some(finding) = self.findings.1.recv() => self.find(finding),
                event = self.bus.next() => match event {
                    Some(event) => self.hear(event),
                    None => break,
                },
                _ = tick.tick() => self.chores(),
            }
        }
        // Who waits is told, also by a hub that ends.
        for (_, stage) in self.rooms.drain() {
            match stage {
                Stage::Opening { waiting, .. } => refuse(waiting, &Arc::new(StoreError::Closed)),
                // Dropping those who wait answers them.
                Stage::Open(_) => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { name, watcher, opened } => self.open(name, watcher, opened),
            Command::Release { name } => self.release(&name),
            Command::Refresh { name, done } => match self.rooms.get(&name) {
                Some(Stage::Open(_)) => self.look(name, Some(done)),
                // Who does not watch it finds that it has left memory, or is another one.
                _ => done(Ok(())),
            },
        }
    }

    fn open(&mut self, name: RoomName, watcher: Watcher, opened: Opened) {
        match self.rooms.get_mut(&name) {
            // A room whose tail was trimmed to nothing may have left memory, and is opened anew.
            Some(Stage::Open(Watched { room, .. })) if self.delivery.get(&name).is_some() => {
                let head = room.watch(watcher);
                opened(Ok((room.clone(), head)));
            }
            Some(Stage::Opening { waiting, .. }) => waiting.push((watcher, opened)),
            _ => {
                let waiting = vec![(watcher, opened)];
                self.rooms.insert(name.clone(), Stage::Opening { waiting, is_stale: false });
                let fleet = self.fleet.clone();
                self.find_out(async move {
                    let found = fleet.enter(&name).await;
                    Finding::Opened { name, found }
                });
            }
        }
    }

    fn release(&mut self, name: &RoomName) {
        self.delivery.drop_if_idle(name);
        self.forget_if_gone(name);
    }

    /// Leaves the bus of a room that is not in memory any more.
    fn forget_if_gone(&mut self, name: &RoomName) {
        if self.delivery.get(name).is_none() && matches!(self.rooms.get(name), Some(Stage::Open(_))) {
            self.rooms.remove(name);
            self.fleet.link.unwatch(name);
        }
    }

    /// Starts a task that finds something out.
    fn find_out(&self, task: impl Future<Output = Finding> + Send + 'static) {
        let (findings, stop) = (self.findings.0.clone(), self.fleet.stop.clone());
        self.fleet.tasks.spawn(async move {
            // A carrier that has ended wants no findings, and a broker that stops ends it.
            if let Some(finding) = stop.run_until_cancelled(task).await {
                drop(findings.send(finding));
            }
        });
    }

    fn find(&mut self, finding: Finding) {
        match finding {
            Finding::Opened { name, found } => self.opened(&name, found),
            Finding::Looked { name, found, refreshed } => self.looked(&name, found, refreshed),
            Finding::Filled { name, epoch, records } => self.filled(&name, &epoch, records),
        }
    }

    fn opened(&mut self, name: &RoomName, found: Result<Found, FleetError>) {
        let Some(Stage::Opening { waiting, is_stale }) = self.rooms.remove(name) else { return };
        match found {
            Ok(found) => {
                let room = self.delivery.insert(name.clone(), found.done.clone());
                for (watcher, opened) in waiting {
                    let head = room.watch(watcher);
                    opened(Ok((room.clone(), head)));
                }
                let watched = Watched {
                    room,
                    following: Following::new(found.done.clone()),
                    next_look: Instant::now() + LOOK_EVERY,
                    is_looking: false,
                    next_note: Instant::now() + NOTE_EVERY,
                    waiting: Vec::new(),
                };
                self.rooms.insert(name.clone(), Stage::Open(watched));
                // The hub that published last in it may have died since.
                self.fleet.ends.moved(name, &found.done);
                if is_stale {
                    self.look(name.clone(), None);
                }
                self.fleet.complete_if_stalled(name, &found);
            }
            Err(error) => {
                self.fleet.link.unwatch(name);
                refuse(waiting, &Arc::new(error.into()));
            }
        }
    }

    /// Looks how far a room is. A look for somebody who refreshes begins after that was asked for.
    fn look(&mut self, name: RoomName, refreshed: Option<Refreshed>) {
        if let Some(Stage::Open(watched)) = self.rooms.get_mut(&name) {
            watched.is_looking = true;
        }
        let fleet = self.fleet.clone();
        self.find_out(async move {
            let deadline = Instant::now() + PATIENCE;
            let found = match refreshed {
                Some(_) => fleet.look_surely(&name, deadline).await,
                None => fleet.look(&name, deadline).await,
            };
            Finding::Looked { name, found, refreshed }
        });
    }

    fn looked(&mut self, name: &RoomName, found: Result<Found, FleetError>, refreshed: Option<Refreshed>) {
        let look_every = self.look_every();
        let Some(Stage::Open(watched)) = self.rooms.get_mut(name) else {
            if let Some(done) = refreshed {
                done(Ok(()));
            }
            return;
        };
        watched.is_looking = false;
        watched.next_look = Instant::now() + look_every;
        if watched.next_note <= Instant::now() {
            watched.next_note = Instant::now() + NOTE_EVERY;
            self.fleet.ends.moved(name, watched.following.head());
        }
        match found {
            Ok(found) => {
                // What was assigned may have been acknowledged already.
                let until = Position { epoch: found.epoch().clone(), offset: found.head };
                let deadline = Instant::now() + PATIENCE;
                watched.waiting.extend(refreshed.map(|done| Waiting { until, deadline, done: Some(done) }));
                if *found.epoch() > watched.following.head().epoch {
                    self.cross(name, found.epoch().clone());
                }
                self.take(name, |following| following.looked(&found.done.epoch, found.done.offset));
                self.fleet.complete_if_stalled(name, &found);
            }
            Err(error) => {
                tracing::debug!(room = %name, %error, "a room could not be looked at");
                if let Some(done) = refreshed {
                    done(Err(Arc::new(error.into())));
                }
            }
        }
    }

    fn filled(&mut self, name: &RoomName, epoch: &Epoch, records: Result<Vec<Record>, FleetError>) {
        let records = match records {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(room = %name, %error, "a hole could not be filled yet");
                if let Some(Stage::Open(watched)) = self.rooms.get_mut(name) {
                    watched.following.unfilled(epoch);
                    let error = Arc::new(StoreError::from(error));
                    for waiting in watched.waiting.drain(..) {
                        waiting.answer(Err(error.clone()));
                    }
                }
                return;
            }
        };
        self.take(name, |following| following.filled(epoch, records));
    }

    fn hear(&mut self, event: BusEvent) {
        match event {
            BusEvent::Said { room, chunk } => match self.rooms.get_mut(&room) {
                Some(Stage::Opening { is_stale, .. }) => *is_stale = true,
                Some(Stage::Open(_)) => match chunk {
                    Chunk::Messages { from, records } => {
                        self.take(&room, |following| following.piece(&from.epoch, records));
                    }
                    Chunk::Done(done) => {
                        self.take(&room, |following| following.looked(&done.epoch, done.offset));
                    }
                    Chunk::Epoch(epoch) => {
                        self.take(&room, |following| following.looked(&epoch, Offset::ZERO));
                    }
                },
                None => {}
            },
            BusEvent::Unreadable(room) => self.look(room, None),
            BusEvent::Interrupted => {
                let now = Instant::now();
                for stage in self.rooms.values_mut() {
                    match stage {
                        Stage::Opening { is_stale, .. } => *is_stale = true,
                        Stage::Open(watched) => watched.next_look = now,
                    }
                }
                self.chores();
            }
        }
    }

    /// Has a room take a piece of news, and does what follows from it.
    fn take(&mut self, name: &RoomName, news: impl FnOnce(&mut Following) -> Steps) {
        let Some(Stage::Open(watched)) = self.rooms.get_mut(name) else { return };
        let Steps { skip, deliver, fill, is_rotated } = news(&mut watched.following);
        if let Some(to) = skip {
            tracing::debug!(room = %name, %to, "messages that the log has no more are skipped");
            self.delivery.skip(&watched.room, to);
        }
        if !deliver.is_empty() {
            let now = clock::now();
            self.fleet.ends.moved(name, watched.following.head());
            self.delivery.append(&watched.room, deliver.into_iter().map(|record| (record, now)));
            watched.room.tell();
        }
        let head = watched.following.head().clone();
        for waiting in watched.waiting.extract_if(.., |waiting| waiting.until <= head) {
            waiting.answer(Ok(()));
        }
        let must_look = is_rotated && !watched.is_looking;
        if let Some((after, until)) = fill {
            let (fleet, name) = (self.fleet.clone(), name.clone());
            let epoch = head.epoch;
            self.find_out(async move {
                let after = Position { epoch: epoch.clone(), offset: after };
                let records = fleet.read(&name, &after, until, Instant::now() + PATIENCE).await;
                Finding::Filled { name, epoch, records }
            });
        }
        if must_look {
            self.look(name.clone(), None);
        }
    }

    /// The room goes on in a later epoch, which Redis learns of only once the one before is sealed.
    fn cross(&mut self, name: &RoomName, epoch: Epoch) {
        if let Some(Stage::Open(watched)) = self.rooms.get_mut(name) {
            watched.following.cross(epoch.clone());
            self.delivery.cross(&watched.room, epoch);
        }
    }

    /// How often each room is looked at.
    fn look_every(&self) -> Duration {
        let rooms = u32::try_from(self.rooms.len()).unwrap_or(u32::MAX);
        let spread = LOOK_EVERY.max(Duration::from_secs(1) * rooms / LOOKS_A_SECOND);
        // Hubs that began together don't go on together.
        spread.mul_f64(0.75 + fastrand::f64() / 2.0)
    }

    /// Looks at rooms whose turn it is, forgets those that left memory, and keeps to memory's bounds.
    fn chores(&mut self) {
        self.delivery.trim(clock::now());
        let now = Instant::now();
        let mut due = Vec::new();
        let mut gone = Vec::new();
        for (name, stage) in &mut self.rooms {
            if let Stage::Open(watched) = stage {
                for late in watched.waiting.extract_if(.., |waiting| waiting.deadline <= now) {
                    late.answer(Err(Arc::new(FleetError::Deadline.into())));
                }
                if self.delivery.get(name).is_none() {
                    gone.push(name.clone());
                } else if watched.next_look <= now && !watched.is_looking {
                    due.push(name.clone());
                }
            }
        }
        for name in gone {
            self.forget_if_gone(&name);
        }
        due.truncate(LOOKS_A_SECOND as usize / 10);
        for name in due {
            self.look(name, None);
        }
    }
}

fn refuse(waiting: Vec<(Watcher, Opened)>, error: &Arc<StoreError>) {
    for (_, opened) in waiting {
        opened(Err(error.clone()));
    }
}

impl Fleet {
    /// Subscribes a room on the bus, then looks at it.
    async fn enter(self: &Arc<Self>, room: &RoomName) -> Result<Found, FleetError> {
        self.link.watch(room).await?;
        self.look(room, Instant::now() + PATIENCE).await
    }

    /// Looks at a room for somebody who has seen more of it than this hub has: a Redis that was cut off
    /// must not have the last word.
    pub(super) async fn look_surely(
        self: &Arc<Self>,
        room: &RoomName,
        deadline: Instant,
    ) -> Result<Found, FleetError> {
        let found = self.look(room, deadline).await?;
        match self.table.fence(room, deadline).await? {
            Some(fence) if fence.epoch > *found.epoch() => Err(FleetError::Behind),
            _ => Ok(found),
        }
    }
}
