//! The event loop of one shard: sockets, news from other threads, time.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::event::Source as _;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use twine_protocol::{Disconnect, Epoch, ErrorCode, ErrorFrame, Offset, RoomName, ServerFrame};

use super::fanout::LocalRoom;
use super::inbox::{Event, Inbox};
use super::session::Session;
use super::socket::Socket;
use super::subscription::Subscription;
use super::websocket::{self, Fragments};
use super::wheel::Wheel;
use super::{Caller, Handover, Options, Place};
use crate::auth::Permissions;
use crate::clock;
use crate::rooms::{Rooms, Watch, frames};
use crate::seldom::Seldom;
use crate::session::{Holder, Sessions};
use crate::telemetry::{Code, Telemetry};

/// The waker's token; connections have their slots' numbers.
const NEWS: Token = Token(usize::MAX);
/// One read takes this much; a busy connection gets a few reads and then others their turn.
const READ_BUFFER: usize = 64 << 10;
const READS_A_TURN: usize = 4;
/// Rooms that may be opened for one connection at the same time; it is not read meanwhile.
const MAX_OPENING: usize = 64;
/// How long a closed connection may take to close its side.
const LINGER: Duration = Duration::from_secs(2);
/// The wait after a poll that failed.
const POLL_BACKOFF: Duration = Duration::from_millis(10);
/// A client that is told to go comes back after a random time up to this.
const MAX_RETRY: Duration = Duration::from_secs(3);

/// A connection, for as long as it lives: slots are used again, generations are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[cfg(test)]
impl Key {
    pub(crate) fn of_slot(slot: u32) -> Self {
        Self { slot, generation: 0 }
    }
}

/// A connection of this shard.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) phase: Phase,
    pub(super) subscriptions: Vec<Subscription>,
    generation: u32,
    /// When the client was last heard of.
    pub(super) heard: Instant,
    pub(super) next_ping: Instant,
    /// When it is looked at next, and the number of the alarm that is set for it.
    pub(super) look_at: Instant,
    pub(super) alarm: u32,
    /// Held while it waits for its session, or for the one read of the store that it has under way.
    pub(super) waits: Option<Waits>,
    /// Rooms that are being opened for it.
    pub(super) n_opening: usize,
    /// Which subscription catches up first next time.
    turn: usize,
    /// Whether it is among [`Shard::lagging`] already.
    is_lagging: bool,
    /// Whether the poll has told that nothing more comes: then reading goes on to the end.
    is_ending: bool,
    /// What of the client's bytes is not a whole message yet, or has to wait.
    input: Option<Box<Input>>,
    /// Whether it is not read until it takes some of the answers that wait for it, or knows its session.
    pub(super) is_paused: bool,
    /// Who opened it; let go once it has said `connect`, unless permissions ask for it later.
    pub(super) caller: Option<Box<Caller>>,
    pub(super) session: Option<Box<Session>>,
    _place: Place,
}

/// One of the connections that wait for another thread, counted until dropped. How many there are
/// says how busy the hub is: what it has to do for those that are there costs the same at any time,
/// and what it has to do for those that come back goes through here.
pub(super) struct Waits(Arc<Telemetry>);

impl Waits {
    fn begin(telemetry: &Arc<Telemetry>) -> Self {
        telemetry.waiting.inc();
        Self(telemetry.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

/// The life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the `connect` frame.
    New {
        /// How long.
        until: Instant,
    },
    /// Has said `connect` and waits for its session.
    Attaching {
        /// How long; then it goes on without one.
        until: Instant,
    },
    /// Talks.
    Open,
    /// Has been told to close; what it still sends is not read.
    Closing {
        /// When it is removed even if it doesn't close its side.
        until: Instant,
    },
}

impl Connection {
    /// The subscription that catches up first this time: each in turn.
    pub(super) fn next_turn(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.subscriptions.len().max(1);
        self.turn
    }

    /// Whether it asks for more than it takes, and has to wait.
    fn is_greedy(&self) -> bool {
        let is_attaching = matches!(self.phase, Phase::Attaching { .. });
        self.socket.is_full() || self.n_opening >= MAX_OPENING || is_attaching
    }

    /// This connection's key, given the slot it lies in.
    pub(super) fn key(&self, slot: u32) -> Key {
        Key { slot, generation: self.generation }
    }
}

#[derive(Default)]
struct Input {
    rest: Vec<u8>,
    fragments: Fragments,
}

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
    poll: Poll,
    inbox: Arc<Inbox>,
    pub(super) watch: Arc<dyn Watch>,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) rooms: Rooms,
    pub(super) sessions: Sessions,
    pub(super) permissions: Option<Permissions>,
    pub(super) epoch: Epoch,
    pub(super) options: Options,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) connections: Slab<Connection>,
    pub(super) local_rooms: Slab<LocalRoom>,
    pub(super) names: HashMap<RoomName, u32>,
    /// Connections that fell behind their rooms but can be written to: brought up to date at the
    /// end of the turn.
    pub(super) lagging: Vec<Key>,
    /// Connections that have had their share of a turn and are brought further in the next.
    pub(super) later: Vec<Key>,
    /// Connections found broken where they could not be removed.
    pub(super) broken: Vec<Key>,
    /// Connections whose sessions have changed since they were saved, and when they are next.
    pub(super) unsaved: Vec<Key>,
    pub(super) next_save: Instant,
    /// Whether that is at the end of this turn.
    pub(super) saves_at_once: bool,
    next_generation: u32,
    pub(super) next_ticket: u64,
    pub(super) read_failures: Seldom,
    poll_failures: Seldom,
    pub(super) wheel: Wheel,
    /// The memory of an empty mailbox.
    news: Vec<Event>,
    buffer: Vec<u8>,
    /// Connections with more to read than their share of a turn.
    unread: Vec<Key>,
    pub(super) ping: Bytes,
    /// Set once the shard drains: when to give up waiting.
    draining: Option<Instant>,
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
            epoch: rooms.epoch().clone(),
            rooms,
            sessions,
            permissions,
            options,
            telemetry,
            connections: Slab::new(),
            local_rooms: Slab::new(),
            names: HashMap::new(),
            lagging: Vec::new(),
            later: Vec::new(),
            broken: Vec::new(),
            unsaved: Vec::new(),
            next_save: clock::now(),
            saves_at_once: false,
            next_generation: 0,
            next_ticket: 0,
            read_failures: Seldom::default(),
            poll_failures: Seldom::default(),
            wheel: Wheel::new(tick, clock::now()),
            news: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            unread: Vec::new(),
            ping: frames::frame(&ServerFrame::Ping),
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
        let may_wait = self.unread.is_empty() && self.lagging.is_empty() && self.inbox.fall_asleep();
        let wait = if may_wait { clock::until(self.wheel.due()) } else { Duration::ZERO };
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
        let mut news = std::mem::take(&mut self.news);
        self.inbox.take(&mut news);
        for event in news.drain(..) {
            self.hear(event);
        }
        self.news = news;
        let now = clock::now();
        while let Some(due) = self.wheel.turn(now) {
            for alarm in due {
                self.goes_off(alarm, now);
            }
        }
        self.settle();
        self.save_sessions(now);
        let is_drained = self.draining.is_some_and(|until| self.connections.is_empty() || now >= until);
        if is_drained {
            self.inbox.close();
        }
        !is_drained
    }

    /// Brings up to date who fell behind, and removes what broke, until neither makes more of it.
    fn settle(&mut self) {
        while !(self.lagging.is_empty() && self.broken.is_empty()) {
            for key in std::mem::take(&mut self.broken) {
                self.remove(key);
            }
            for key in std::mem::take(&mut self.lagging) {
                if let Some(connection) = self.connection(key) {
                    connection.is_lagging = false;
                    self.catch_up(key);
                }
            }
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

    fn hear(&mut self, event: Event) {
        match event {
            Event::Adopt(place, handover) => self.adopt(place, handover),
            Event::Moved(room) => self.moved(room),
            Event::Opened { room, result } => self.opened(room, result),
            Event::Steps { connection, room, ticket, result } => self.steps(connection, room, ticket, result),
            Event::Attached { connection, result } => self.attached(connection, result),
            Event::Lose { connection, ticket, why } => self.lose_session(connection, ticket, why),
            Event::Probe { connection, ticket } => self.probe(connection, ticket),
            Event::Drain { until } => self.drain(until),
        }
    }

    fn socket_event(&mut self, event: &mio::event::Event) {
        let slot = event.token().0;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let key = connection.key(u32::try_from(slot).unwrap_or(u32::MAX));
        connection.is_ending |= event.is_read_closed() || event.is_error();
        let is_ending = connection.is_ending;
        if event.is_writable() && connection.socket.is_blocked() {
            self.writable(key);
        }
        if event.is_readable() || is_ending {
            self.readable(key);
        }
    }

    /// The connection, if it still lives.
    pub(super) fn connection(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.slot as usize)?;
        (connection.generation == key.generation).then_some(connection)
    }

    fn adopt(&mut self, place: Place, handover: Handover) {
        let now = clock::now();
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let mut socket = Socket::new(mio::net::TcpStream::from_std(handover.socket));
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
        let spread = 0.5 + fastrand::f64() / 2.0;
        entry.insert(Connection {
            socket,
            phase: Phase::New { until: now + self.options.connect_timeout },
            subscriptions: Vec::new(),
            generation,
            heard: now,
            next_ping: now + self.options.heartbeat.mul_f64(spread),
            look_at: now,
            alarm: 0,
            waits: None,
            n_opening: 0,
            turn: 0,
            is_lagging: false,
            is_ending: false,
            input: None,
            is_paused: false,
            caller: Some(Box::new(handover.caller)),
            session: None,
            _place: place,
        });
        self.telemetry.connections.inc();
        self.look_in(key, self.options.connect_timeout.min(self.options.heartbeat / 2));
        if self.draining.is_some() {
            self.send_away(key, ErrorCode::Draining);
        } else if !handover.read.is_empty() {
            self.feed(key, &mut handover.read.to_vec());
        }
    }

    /// Reads a connection's frames.
    fn readable(&mut self, key: Key) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 1.. {
            let Some(connection) = self.connection(key) else { break };
            if connection.is_greedy() {
                connection.is_paused = true;
                break;
            }
            let is_ending = connection.is_ending;
            match connection.socket.read(&mut buffer) {
                Ok(0) => {
                    self.remove(key);
                    break;
                }
                Ok(n) => {
                    connection.heard = clock::now();
                    self.heard(key);
                    self.feed(key, buffer.get_mut(..n).unwrap_or_default());
                    // Less than asked for: there is no more for now, and the poll will tell when
                    // there is, unless it has told of the end already.
                    if n < READ_BUFFER && !is_ending {
                        break;
                    }
                    if turn == READS_A_TURN {
                        self.unread.push(key);
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.remove(key);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes apart what a client sent.
    fn feed(&mut self, key: Key, bytes: &mut [u8]) {
        let max = self.options.max_frame;
        let Some(connection) = self.connection(key) else { return };
        let mut input = connection.input.take().unwrap_or_default();
        let mut joined = std::mem::take(&mut input.rest);
        let is_joined = !joined.is_empty();
        let bytes = if is_joined {
            joined.extend_from_slice(bytes);
            &mut joined[..]
        } else {
            bytes
        };
        let mut at = 0;
        loop {
            let Some(connection) = self.connection(key) else { return };
            if matches!(connection.phase, Phase::Closing { .. }) {
                return;
            }
            if connection.is_greedy() {
                connection.is_paused = true;
                break;
            }
            match websocket::decode(bytes.get_mut(at..).unwrap_or_default(), &mut input.fragments, max) {
                Ok(None) => break,
                Ok(Some((incoming, used))) => {
                    at += used;
                    if let Some(incoming) = incoming {
                        self.incoming(key, incoming);
                    }
                }
                Err(violation) => return self.violation(key, violation),
            }
        }
        // A frame that comes in drops is added to where it lies.
        input.rest = if is_joined {
            joined.drain(..at);
            joined
        } else {
            bytes.get(at..).unwrap_or_default().to_vec()
        };
        if !(input.rest.is_empty() && input.fragments.is_empty())
            && let Some(connection) = self.connection(key)
        {
            connection.input = Some(input);
        }
    }

    /// Goes on where the socket took no more.
    fn writable(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let Ok(is_flushed) = connection.socket.flush() else { return self.remove(key) };
        // Who takes what waits for it is there, even if it has had no chance to say so.
        connection.heard = clock::now();
        self.heard(key);
        self.resume(key);
        let Some(connection) = self.connection(key) else { return };
        match connection.phase {
            Phase::Closing { .. } if is_flushed => connection.socket.finish(),
            _ if is_flushed => self.lag(key),
            _ => {}
        }
    }

    /// Reads on where a connection that was greedy is so no more.
    pub(super) fn resume(&mut self, key: Key) {
        if let Some(connection) = self.connection(key)
            && connection.is_paused
            && !connection.is_greedy()
        {
            connection.is_paused = false;
            self.feed(key, &mut []);
            self.unread.push(key);
        }
    }

    /// Writes a frame that answers a client.
    pub(super) fn answer(&mut self, key: Key, frame: Bytes) {
        if let Some(connection) = self.connection(key)
            && connection.socket.answer(frame).is_err()
        {
            self.broken.push(key);
        }
    }

    /// Refuses one request; the connection goes on.
    pub(super) fn refuse(&mut self, key: Key, id: Option<u64>, code: ErrorCode, message: String) {
        self.count_error(code);
        self.answer(key, frames::frame(&ServerFrame::Error(ErrorFrame { id, code, message })));
    }

    /// Ends a connection for an error, and tells it why.
    pub(super) fn end(&mut self, key: Key, code: ErrorCode, message: &str) {
        self.refuse(key, None, code, format!("{message}; {}", code.remedy()));
        self.close(key, code.close_code().map_or(1011, twine_protocol::CloseCode::as_u16), code.as_str());
    }

    /// Sends a close frame and nothing after it; the connection is removed when the client closes
    /// its side, or soon.
    pub(super) fn close(&mut self, key: Key, code: u16, reason: &str) {
        self.leave_all(key);
        self.answer(key, websocket::close(code, reason));
        let Some(connection) = self.connection(key) else { return };
        connection.phase = Phase::Closing { until: clock::now() + LINGER };
        connection.input = None;
        if !connection.socket.is_blocked() {
            connection.socket.finish();
        }
        self.look_in(key, LINGER);
    }

    pub(super) fn count_error(&self, code: ErrorCode) {
        self.telemetry.errors.get_or_create(&Code { code: code.as_str() }).inc();
    }

    /// Forgets a connection.
    pub(super) fn remove(&mut self, key: Key) {
        self.leave_all(key);
        if self.connection(key).is_none() {
            return;
        }
        let mut connection = self.connections.remove(key.slot as usize);
        self.telemetry.connections.dec();
        // The socket is closed right after, which takes it out of the poll in any case.
        let _ = connection.socket.stream_mut().deregister(self.poll.registry());
    }

    fn leave_all(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let session = connection.session.take();
        for subscription in std::mem::take(&mut connection.subscriptions) {
            self.leave(&subscription);
        }
        if let Some(session) = session {
            self.sessions.detach(session.into_save());
        }
    }

    fn drain(&mut self, until: Instant) {
        self.draining = Some(until);
        let keys: Vec<Key> = self.keys().collect();
        for key in keys {
            self.send_away(key, ErrorCode::Draining);
        }
    }

    /// Asks a client to come back elsewhere or later, not all at once.
    pub(super) fn send_away(&mut self, key: Key, code: ErrorCode) {
        let retry = u64::try_from(MAX_RETRY.mul_f64(fastrand::f64()).as_millis()).unwrap_or_default();
        self.answer(key, frames::frame(&ServerFrame::Disconnect(Disconnect { code, retry })));
        let close = code.close_code().unwrap_or(twine_protocol::CloseCode::Restart);
        self.close(key, close.as_u16(), code.as_str());
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

    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let all = self.connections.iter();
        all.map(|(slot, connection)| connection.key(u32::try_from(slot).unwrap_or(u32::MAX)))
    }

    /// The position of the present epoch with this offset.
    pub(super) fn position(&self, offset: Offset) -> twine_protocol::Position {
        twine_protocol::Position { epoch: self.epoch.clone(), offset }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        let open = i64::try_from(self.connections.len()).unwrap_or_default();
        self.telemetry.connections.dec_by(open);
    }
}
