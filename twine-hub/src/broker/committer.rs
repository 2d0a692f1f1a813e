//! The order of one process: one committer numbers messages, commits them, and delivers them.
//!
//! Whatever waits when it comes [round](crate::rounds) is committed as one transaction (group commit), so
//! that the cost of a sync is shared by all who wait for it. Only after the commit do the messages
//! reach the rooms, and after that their publishers are answered and the rooms' watchers told: an offset
//! that anyone has seen is never given to another message.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twine_protocol::api::Published;
use twine_protocol::{Position, RoomName};

use super::PublishError;
use super::backlog::Pending;
use super::publishing::Outcome;
use crate::clock;
use crate::rooms::{Delivery, NewMessage, Opened, Options, Room, Watcher, locked};
use crate::rounds::{Queue, Rounds};
use crate::store::{Record, Retention, StoreError, Writer};
use crate::telemetry::Telemetry;
use crate::wakes;

/// Commands of one round at most. Every kind counts: whoever may connect can have rooms opened, and
/// must not hold up the publishes that wait in between.
const MAX_COMMANDS: usize = 1_024;
/// Messages and bytes of one transaction, so that no publisher waits for an endless one; the publish
/// that reaches a bound is still taken.
const MAX_MESSAGES: usize = 4_096;
const MAX_BYTES: usize = 16 << 20;
/// How often retention removes old messages, and how many at once at least: a batch must not hold up
/// publishes noticeably, and must keep up with them.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
const EXPIRE_BATCH: usize = 500;
/// Where messages are kept for ever.
const LOOK_AGAIN: Duration = Duration::from_hours(24);
/// How often a store that failed is tried, where no publish does.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What the committer is asked.
pub(super) enum Command {
    Publish(Publish),
    Open { name: RoomName, watcher: Watcher, opened: Opened },
    Release { name: RoomName },
}

/// Messages to commit, all or none.
pub(super) struct Publish {
    pub(super) messages: Vec<NewMessage>,
    pub(super) arrived: Instant,
    pub(super) pending: Pending,
    pub(super) answer: oneshot::Sender<Outcome>,
}

impl Publish {
    fn answer(self, outcome: Outcome) {
        let Self { pending, answer, .. } = self;
        // Who is answered may publish again at once, and finds its room free.
        drop(pending);
        // A publisher that hung up wants no answer.
        drop(answer.send(outcome));
    }
}

/// What it owns, and does in rounds.
pub(crate) struct Committer {
    waiting: Arc<Queue<Command>>,
    writer: Box<dyn Writer>,
    delivery: Delivery,
    retention: Retention,
    window: Duration,
    telemetry: Arc<Telemetry>,
    health: Health,
    last_time: u64,
    next_expiry: Instant,
    /// Messages of the last group of publishes.
    last_group: usize,
    /// Whether the store waits for a disk: publishes come meanwhile.
    waits: bool,
    /// Rooms whose watchers are to be told of what was committed last, with what is committed next; by name.
    untold: Vec<Arc<Room>>,
    /// When a store that failed is tried again; `None` while it works.
    next_probe: Option<Instant>,
}

/// Whether the last attempt to write succeeded; shared with whoever asks.
#[derive(Clone)]
pub(super) struct Health(Arc<Mutex<Result<(), Arc<StoreError>>>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Ok(()))))
    }
}

impl Health {
    pub(super) fn get(&self) -> Result<(), Arc<StoreError>> {
        locked(&self.0).clone()
    }

    fn set(&self, report: Result<(), Arc<StoreError>>) {
        let mut health = locked(&self.0);
        match (&*health, &report) {
            (Ok(()), Err(error)) => {
                tracing::error!(%error, "publishes are refused until the store works again");
            }
            (Err(_), Ok(())) => tracing::info!("the store works again"),
            _ => {}
        }
        *health = report;
    }
}

/// What a transaction will add to one room.
struct Addition {
    room: Arc<Room>,
    head: Position,
    records: Vec<(Record, Instant)>,
}

impl Committer {
    /// Takes what comes in `waiting`.
    pub(super) fn new(
        waiting: Arc<Queue<Command>>,
        writer: Box<dyn Writer>,
        delivery: Delivery,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
        health: Health,
    ) -> Self {
        Self {
            last_time: writer.last_time(),
            waits: writer.waits(),
            untold: Vec::new(),
            waiting,
            writer,
            delivery,
            retention,
            window: options.idempotency_window,
            telemetry,
            health,
            next_expiry: clock::now(),
            last_group: 0,
            next_probe: None,
        }
    }

    /// The room in memory; taken there from the store if need be.
    fn room(&mut self, name: &RoomName) -> Result<Arc<Room>, StoreError> {
        if let Some(room) = self.delivery.get(name) {
            return Ok(room);
        }
        let offset = self.writer.head(name)?;
        let head = Position { epoch: self.writer.epoch().clone(), offset };
        Ok(self.delivery.insert(name.clone(), head))
    }

    fn open(&mut self, name: &RoomName, watcher: Watcher) -> Result<(Arc<Room>, Position), Arc<StoreError>> {
        let room = self.room(name).map_err(Arc::new)?;
        let head = room.watch(watcher);
        Ok((room, head))
    }

    /// Commits a group of publishes as one transaction, answers it and has it delivered.
    fn commit(&mut self, mut group: Vec<Publish>) {
        self.tell_all_but(&group);
        // They have waited for this commit, and wait for no other.
        let late = std::mem::take(&mut self.untold);
        // In the order of names, so that what happens is the same each time a simulation is replayed.
        let mut additions = BTreeMap::new();
        let result = self.store(&mut group, &mut additions);
        let report = result.as_ref().map(drop).map_err(Clone::clone);
        self.note_health(report);
        // Who is woken finds all of it.
        wakes::together(|| match result {
            Ok(answers) => {
                // What has come while the disk was waited for may be for the same rooms, and is next, if nothing else is.
                let is_next = self.waits && self.next_expiry > clock::now() && self.waiting.has_more();
                let mut told = Vec::with_capacity(additions.len());
                for Addition { room, records, .. } in additions.into_values() {
                    self.telemetry.published.inc_by(records.len() as u64);
                    self.delivery.append(&room, records);
                    if late.binary_search_by(|late| late.name().cmp(room.name())).is_err() {
                        if is_next { &mut self.untold } else { &mut told }.push(room);
                    }
                }
                // Before it is delivered, which takes longer: meanwhile publishers send what comes next.
                for (publish, published) in group.into_iter().zip(answers) {
                    publish.answer(Ok(published));
                }
                for room in late.into_iter().chain(told) {
                    room.tell();
                }
            }
            Err(error) => {
                for name in additions.keys() {
                    self.delivery.drop_if_idle(name);
                }
                for publish in group {
                    publish.answer(Err(PublishError::Store(error.clone())));
                }
                for room in late {
                    room.tell();
                }
            }
        });
    }

    /// Tells the watchers of rooms that something was committed into, save those that get more in this group: that is
    /// delivered with it, in one write a socket, a commit later.
    fn tell_all_but(&mut self, group: &[Publish]) {
        if self.untold.is_empty() {
            return;
        }
        let messages = group.iter().flat_map(|publish| &publish.messages);
        let names: HashSet<_> = messages.map(|message| &message.room).collect();
        let told = self.untold.extract_if(.., |room| !names.contains(room.name()));
        wakes::together(|| told.for_each(|room| room.tell()));
    }

    fn store(
        &mut self,
        group: &mut [Publish],
        additions: &mut BTreeMap<RoomName, Addition>,
    ) -> Result<Vec<Vec<Published>>, Arc<StoreError>> {
        self.writer.begin()?;
        let stored = group.iter_mut().map(|publish| {
            let arrived = publish.arrived;
            publish.messages.drain(..).map(|message| self.append(message, arrived, additions)).collect()
        });
        match stored.collect::<Result<_, StoreError>>() {
            Ok(answers) => {
                self.writer.commit()?;
                Ok(answers)
            }
            Err(error) => {
                self.writer.rollback();
                Err(Arc::new(error))
            }
        }
    }

    /// Adds a message to the transaction, unless its id was there before.
    fn append(
        &mut self,
        message: NewMessage,
        arrived: Instant,
        additions: &mut BTreeMap<RoomName, Addition>,
    ) -> Result<Published, StoreError> {
        let NewMessage { room: name, data, id, sender } = message;
        let time = self.now();
        if let Some(id) = &id {
            let since = time.saturating_sub(clock::millis(self.window));
            if let Some(Position { epoch, offset }) = self.writer.find_id(&name, id, since)? {
                return Ok(Published { room: name, epoch, offset, duplicate: true });
            }
        }
        if !additions.contains_key(&name) {
            let room = self.room(&name)?;
            let head = room.head();
            additions.insert(name.clone(), Addition { room, head, records: Vec::new() });
        }
        let Some(addition) = additions.get_mut(&name) else { return Err(StoreError::Closed) };
        let head = &mut addition.head;
        head.offset = head.offset.next();
        let Position { epoch, offset } = head.clone();
        let record = Record { offset, time, id, sender, data };
        self.writer.append(&name, &record)?;
        addition.records.push((record, arrived));
        Ok(Published { room: name, epoch, offset, duplicate: false })
    }

    /// Milliseconds since 1970 that never go back.
    fn now(&mut self) -> u64 {
        self.last_time = self.last_time.max(clock::unix_millis());
        self.last_time
    }

    /// What is due besides publishing: memory's and retention's bounds, and a look at a store that
    /// failed.
    fn chores(&mut self) {
        let now = clock::now();
        self.delivery.trim(now);
        if self.next_probe.is_some_and(|due| due <= now) {
            let report = self.writer.probe().map_err(Arc::new);
            self.note_health(report);
        }
        if self.next_expiry <= now {
            self.next_expiry = now + EXPIRE_EVERY;
            self.expire(now);
        }
    }

    fn expire(&mut self, now: Instant) {
        let Retention::For(kept) = self.retention else {
            self.next_expiry = now + LOOK_AGAIN;
            return;
        };
        let cut = self.now().saturating_sub(clock::millis(kept));
        // There is a batch for each group while there is more to remove: one that is larger than the
        // group gains on the publishes.
        let batch = EXPIRE_BATCH.max(self.last_group.saturating_mul(2));
        match self.writer.expire(cut, batch) {
            // There is more: go on as soon as the publishes that wait are done.
            Ok(removed) if removed == batch => self.next_expiry = now,
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "old messages could not be removed"),
        }
    }

    fn note_health(&mut self, report: Result<(), Arc<StoreError>>) {
        self.next_probe = report.is_err().then(|| clock::now() + PROBE_EVERY);
        self.health.set(report);
    }
}

impl Rounds for Committer {
    fn due(&self) -> Instant {
        let others = [self.next_probe, self.delivery.next_trim()];
        others.into_iter().flatten().fold(self.next_expiry, Instant::min)
    }

    fn round(&mut self) {
        let mut group = Vec::new();
        let (mut messages, mut bytes) = (0, 0);
        for _ in 0..MAX_COMMANDS {
            let Some(command) = self.waiting.pop() else { break };
            match command {
                Command::Open { name, watcher, opened } => opened(self.open(&name, watcher)),
                Command::Release { name } => self.delivery.drop_if_idle(&name),
                Command::Publish(publish) => {
                    messages += publish.messages.len();
                    bytes += publish.pending.bytes;
                    group.push(publish);
                    if messages >= MAX_MESSAGES || bytes >= MAX_BYTES {
                        break;
                    }
                }
            }
        }
        if group.is_empty() {
            self.tell_all_but(&[]);
        } else {
            self.last_group = messages;
            self.commit(group);
        }
        self.chores();
    }
}

#[cfg(test)]
impl Committer {
    /// Opens the store again, and all rooms cross into the epoch that this begins: what a fleet does
    /// while its hubs run.
    pub(crate) fn reopen(&mut self, open: impl FnOnce() -> Box<dyn Writer>) {
        // The one before is closed first: it holds the store's folder.
        self.writer = crate::store::memory::open(0).writer;
        self.writer = open();
        for room in self.delivery.rooms() {
            self.delivery.cross(&room, self.writer.epoch().clone());
        }
    }
}
