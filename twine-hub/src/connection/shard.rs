//! The event loop of one shard: sockets, news from other threads, time.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Source as _;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use twine_protocol::{ErrorCode, RoomName, ServerFrame};

use super::answers::Answers;
use super::drain::Drain;
use super::fanout::LocalRoom;
use super::guest::{GUESTS, Hosted};
use super::inbox::{Event, Inbox};
use super::session::Unsaved;
use super::socket::{Socket, Sockets};
use super::state::{Connection, Key, Phase, Waits};
use super::wheel::Wheel;
use super::{Handover, Options, Place};
use crate::auth::Permissions;
use crate::clock;
use crate::deflate::{Deflater, Inflater};
use crate::rooms::{Rooms, Watch, frames};
use crate::seldom::Seldom;
use crate::session::{Holder, Sessions};
use crate::telemetry::Telemetry;

/// The waker's token; connections have their slots' numbers.
const NEWS: Token = Token(usize::MAX);
/// One read takes this much.
pub(super) const READ_BUFFER: usize = 64 << 10;
/// How often news is looked for, and what came of it. Where no disk is waited for, what one round asks for is there in the
/// next: a connection, its session and its room come in one turn, and leave in one write.
const ROUNDS_OF_NEWS: usize = 4;
/// The wait after a poll that failed.
const POLL_BACKOFF: Duration = Duration::from_millis(10);

/// What a shard works with, shared with others.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) rooms: Rooms,
    pub(super) sessions: Sessions,
    pub(super) permissions: Option<Permissions>,
    pub(super) telemetry: Arc<Telemetry>,
}

/// One event loop and all it owns.
pub(super) struct Shard {
    pub(super) poll: Poll,
    inbox: Arc<Inbox>,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) rooms: Rooms,
    pub(super) sessions: Sessions,
    pub(super) permissions: Option<Permissions>,
    pub(super) options: Options,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) connections: Slab<Connection>,
    pub(super) sockets: Sockets,
    pub(super) guests: Slab<Hosted>,
    /// Guests that are to be read.
    pub(super) speaking: VecDeque<Key>,
    pub(super) deflater: Deflater,
    pub(super) inflater: Inflater,
    pub(super) local_rooms: Slab<LocalRoom>,
    pub(super) names: HashMap<RoomName, u32>,
    /// Connections that fell behind their rooms but can be written to: brought up to date at the
    /// end of the turn.
    pub(super) lagging: Vec<Key>,
    /// Connections that have had their share of a turn and are brought further in the next.
    pub(super) later: Vec<Key>,
    /// Answers of this turn that are not written yet.
    pub(super) answers: Answers,
    /// Connections found broken where they could not be removed.
    pub(super) broken: Vec<Key>,
    pub(super) unsaved: Unsaved,
    next_generation: u32,
    pub(super) next_ticket: NonZeroU64,
    pub(super) read_failures: Seldom,
    poll_failures: Seldom,
    pub(super) wheel: Wheel,
    /// The memory of an empty mailbox.
    news: Vec<Event>,
    pub(super) buffer: Vec<u8>,
    /// Connections with more to read than their share of a turn.
    pub(super) unread: Vec<Key>,
    pub(super) ping: Bytes,
    /// The origin of who came last, which is the next one's most of the time: one text for all.
    pub(super) origin: Arc<str>,
    /// Set once the shard drains.
    pub(super) draining: Option<Drain>,
}

impl Shard {
    pub(super) fn new(surroundings: Surroundings, options: Options) -> std::io::Result<Self> {
        let Surroundings { rooms, sessions, permissions, telemetry } = surroundings;
        let poll = Poll::new()?;
        let inbox = Arc::new(Inbox::new(Waker::new(poll.registry(), NEWS)?));
        let tick = (options.heartbeat / 64).clamp(Duration::from_millis(10), Duration::from_secs(1));
        Ok(Self {
            poll,
            watch: inbox.clone(),
            holder: inbox.clone(),
            inbox,
            rooms,
            sessions,
            permissions,
            options,
            telemetry,
            connections: Slab::new(),
            sockets: Sockets::default(),
            guests: Slab::new(),
            speaking: VecDeque::new(),
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            local_rooms: Slab::new(),
            names: HashMap::new(),
            lagging: Vec::new(),
            later: Vec::new(),
            answers: Answers::default(),
            broken: Vec::new(),
            unsaved: Unsaved::new(clock::now()),
            next_generation: 0,
            next_ticket: NonZeroU64::MIN,
            read_failures: Seldom::default(),
            poll_failures: Seldom::default(),
            wheel: Wheel::new(tick, clock::now()),
            news: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            unread: Vec::new(),
            ping: frames::frame(&ServerFrame::Ping),
            origin: Arc::default(),
            draining: None,
        })
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        self.inbox.clone()
    }

    /// Runs until drained.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        while self.turn(&mut events) {}
    }

    /// Waits for something to do and does it; false once drained.
    pub(super) fn turn(&mut self, events: &mut Events) -> bool {
        for key in std::mem::take(&mut self.later) {
            self.lag(key);
        }
        let is_idle = self.unread.is_empty() && self.lagging.is_empty() && self.speaking.is_empty();
        let may_wait = is_idle && self.inbox.fall_asleep();
        let wait = if may_wait { clock::until(self.next_due()) } else { Duration::ZERO };
        if let Err(error) = self.poll.poll(events, Some(wait))
            && error.kind() != ErrorKind::Interrupted
        {
            self.poll_failures
                .say(|unsaid| tracing::error!(%error, unsaid, "a shard can't poll its sockets"));
            std::thread::sleep(POLL_BACKOFF);
        }
        self.inbox.wake_up();
        for key in std::mem::take(&mut self.unread) {
            self.readable(key);
        }
        for event in &*events {
            self.socket_event(event);
        }
        // What is committed is delivered before more is read, also what was committed while something else was delivered.
        // Otherwise what publishers send together, and once was cut, would be committed and delivered in parts for good,
        // each while the other is on its way.
        self.hear_all_news();
        self.guests_speak();
        self.hear_all_news();
        let now = clock::now();
        if self.wheel.due() <= now {
            self.see_late_guests_off(now);
        }
        while let Some(due) = self.wheel.turn(now) {
            for key in due {
                self.goes_off(key, now);
            }
        }
        self.send_away_due(now);
        self.settle();
        self.save_sessions(now);
        !self.draining.as_ref().is_some_and(|drain| self.connections.is_empty() || drain.is_over(now))
    }

    /// Until when nothing is to be done by the clock.
    fn next_due(&self) -> Instant {
        let wheel = self.wheel.due();
        self.draining.as_ref().map_or(wheel, |drain| drain.next().min(wheel))
    }

    /// Brings up to date who fell behind, writes answers and removes what broke, until none of it makes more.
    fn settle(&mut self) {
        while !(self.lagging.is_empty() && self.answers.is_empty() && self.broken.is_empty()) {
            for key in std::mem::take(&mut self.broken) {
                self.remove(key);
            }
            for key in std::mem::take(&mut self.lagging) {
                if let Some(connection) = self.connection(key) {
                    connection.is_lagging = false;
                    self.catch_up(key);
                }
            }
            self.write_answers();
        }
    }

    /// Has a connection catch up at the end of the turn.
    pub(super) fn lag(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && !std::mem::replace(&mut connection.is_lagging, true)
        {
            self.lagging.push(key);
        }
    }

    /// Hears what is in the mailbox, and what comes of it meanwhile.
    fn hear_all_news(&mut self) {
        for _ in 0..ROUNDS_OF_NEWS {
            self.hear_news();
            if self.inbox.is_quiet() {
                break;
            }
        }
    }

    /// Hears all that is in the mailbox.
    pub(super) fn hear_news(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        self.inbox.take(&mut news);
        for event in news.drain(..) {
            self.hear(event);
        }
        self.news = news;
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Adopt(place, handover) => self.adopt(place, handover),
            Event::Visit(visit) => self.welcome(visit),
            Event::Rings(guest) => self.guest_rings(guest),
            Event::Moved(room) => self.moved(room),
            Event::Opened { room, result } => self.opened(room, result),
            Event::Steps { connection, room, ticket, result } => self.steps(connection, room, ticket, result),
            Event::Refreshed { connection, room, ticket, result } => {
                self.refreshed(connection, room, ticket, result);
            }
            Event::Attached { connection, result } => self.attached(connection, result),
            Event::Lose { connection, ticket, why } => self.lose_session(connection, ticket, why),
            Event::Probe { connection, ticket } => self.probe(connection, ticket),
            Event::Refresh { connection, ticket } => self.refresh_session(connection, ticket),
            Event::Knock(knock) => knock.hear(),
            Event::Drain { window, until } => self.drain(window, until),
        }
    }

    fn socket_event(&mut self, event: &mio::event::Event) {
        let slot = event.token().0;
        if slot >= GUESTS && event.token() != NEWS {
            let is_ending = event.is_read_closed() || event.is_error();
            return self.note_guest(slot - GUESTS, is_ending);
        }
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let key = connection.key(u32::try_from(slot).unwrap_or(u32::MAX));
        connection.is_ending |= event.is_read_closed() || event.is_error();
        let is_ending = connection.is_ending;
        if event.is_writable() && self.sockets.get(key.slot).is_some_and(Socket::is_blocked) {
            self.writable(key);
        }
        if event.is_readable() || is_ending {
            self.readable(key);
        }
    }

    /// The connection, if it still lives.
    pub(super) fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.slot as usize)?;
        (connection.key(key.slot) == key).then_some(connection)
    }

    /// What tells one that has a slot from those who had it before.
    pub(super) fn new_generation(&mut self) -> u32 {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        generation
    }

    fn adopt(&mut self, place: Place, handover: Handover) {
        let generation = self.new_generation();
        let mut socket = Socket::new(mio::net::TcpStream::from_std(handover.socket), handover.is_compressed);
        let entry = self.connections.vacant_entry();
        let token = Token(entry.key());
        let registered = socket.stream_mut().register(
            self.poll.registry(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Err(error) = registered {
            tracing::warn!(%error, "a connection could not be watched and is dropped");
            return;
        }
        let key = Key { slot: u32::try_from(entry.key()).unwrap_or(u32::MAX), generation };
        let Handover { answer, mut read, mut caller, .. } = handover;
        if caller.origin == self.origin {
            caller.origin = self.origin.clone();
        } else {
            self.origin = caller.origin.clone();
        }
        entry.insert(Connection::new(place, caller, generation, self.wheel.at(), &self.options));
        self.sockets.insert(token.0, socket);
        self.telemetry.connections.inc();
        self.look_in(key, self.options.connect_timeout);
        let is_draining = self.draining.is_some();
        // Then what it has said is in vain.
        self.answer_upgrade(key, answer, if is_draining { &mut [] } else { &mut read });
        if is_draining {
            self.send_away(key, ErrorCode::Draining);
        }
    }

    /// Goes on where the socket took no more.
    fn writable(&mut self, key: Key) {
        if self.connection(key).is_none() {
            return;
        }
        let Some(socket) = self.sockets.get_mut(key.slot) else { return };
        let Ok(is_flushed) = socket.flush() else { return self.remove(key) };
        // Who takes what waits for it is there, even if it has had no chance to say so.
        self.heard(key);
        self.resume(key);
        let Some(connection) = self.connection(key) else { return };
        match connection.phase {
            Phase::Closing if is_flushed => self.finish(key),
            _ if is_flushed => self.lag(key),
            _ => {}
        }
    }

    /// Says that nothing more will be written to a connection, once all is.
    pub(super) fn finish(&mut self, key: Key) {
        if let Some(socket) = self.sockets.get_mut(key.slot) {
            socket.finish();
        }
    }

    /// Whether so many wait that who comes new has to come later.
    pub(super) fn is_busy(&self) -> bool {
        usize::try_from(self.telemetry.waiting.get()).is_ok_and(|n| n >= self.options.max_waiting)
    }

    /// A connection waits from now on, until its `waits` is dropped.
    pub(super) fn wait(&mut self, key: Key) {
        let waits = Waits::begin(&self.telemetry);
        if let Some(connection) = self.connection(key) {
            connection.waits = Some(waits);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let all = self.connections.iter();
        all.map(|(slot, connection)| connection.key(u32::try_from(slot).unwrap_or(u32::MAX)))
    }
}

/// Drained, or in a panic: connections that come after are closed.
impl Drop for Shard {
    fn drop(&mut self) {
        self.inbox.close();
        let open = i64::try_from(self.connections.len()).unwrap_or_default();
        self.telemetry.connections.dec_by(open);
        self.see_guests_off();
    }
}
