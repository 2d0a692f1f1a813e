//! The client without its I/O: one deterministic state machine that both drivers run.
//!
//! Events go in as method calls that carry `now`, milliseconds of any monotonic clock; what is to
//! be done comes out of [`Core::poll_effect`]. Nothing in here opens a socket, reads a clock, runs
//! a callback or blocks, so that a driver may call it from anywhere and a test drives years of
//! network weather in a second. `P` is a payload: raw JSON natively, a JavaScript value in a browser.
//!
//! ```text
//!            connect()        cookie_settled, or 3 s     opened            `connected`
//!   ┌──────┐ ───────▶ ┌────────┐ ───────────▶ ┌─────────┐ ────▶ ┌──────────┐ ───▶ ┌────────┐
//!   │ Idle │          │ Cookie │              │ Opening │       │ Greeting │      │ Online │
//!   └──────┘          └────────┘              └─────────┘       └──────────┘      └────────┘
//!                         ▲                        │ closed, silence, too late │      │
//!                         │   timer, wake()   ┌─────────┐                      │      │
//!                         └────────────────── │ Waiting │ ◀────────────────────┴──────┘
//!                                             └─────────┘
//!   disconnect(), or a close code that forbids to come back: from everywhere to `Closed`
//! ```
//!
//! # What a driver does
//!
//! After each call, and before the next frame, it drains [`Core::poll_effect`] until it is empty,
//! with the core not borrowed while callbacks run: they may call the core again. Then it arms one
//! timer for [`Core::deadline`]; a timer that is armed earlier may stay, since [`Core::timer`] does
//! nothing before its time.
//!
//! What a room's cursor is and what may move it is in `room.rs`; this file owns the connection and
//! what the app asks for.

mod backoff;
mod effect;
pub mod limits;
mod room;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use twine_protocol::{
    ClientFrame, CloseCode, Connect, Connected, ErrorCode, ErrorFrame, Message, Pong, Position, RoomName,
    ServerFrame, Subscribe, Subscribed, Unsubscribe,
};

use backoff::Backoff;
pub use effect::{CallId, ClosedReason, Delivery, Effect, Error, Outcome, SocketId, State};
use room::{Link, Room, Verdict};
use rooms::Rooms;

/// How a client is set up.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What the first `connect` frame says; the session is replaced by the one the hub gives.
    pub connect: Connect,
    /// Whether to fetch the hub's cookie before each connection; a driver without a cookie jar says no.
    pub cookie: bool,
    /// Any number that differs between clients: it spreads their retries.
    pub seed: u64,
}

/// What to ask for when a room is subscribed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Deliver what comes after this position; `None`: from the session's cursor, else from the head.
    pub after: Option<Position>,
    /// Start at the earlier of the cursor and this many messages before the head.
    pub history: Option<u32>,
    /// A token for this room, where the hub asks for one. It is sent again with each reconnection.
    pub token: Option<String>,
}

/// The state machine of one client; see the [module](self).
#[derive(Debug)]
pub struct Core<P> {
    config: Config,
    phase: Phase,
    rooms: Rooms,
    /// Unsubscribe requests under way: their frame's id, room and call.
    leaving: Vec<Leaving>,
    /// Rooms unsubscribed while there was no connection to say so on.
    left: Vec<RoomName>,
    /// The app's calls that are not complete.
    n_calls: usize,
    next_call: u64,
    next_request: u64,
    next_socket: u64,
    /// When the first room may need attention; it may be early.
    rooms_due: u64,
    backoff: Backoff,
    effects: VecDeque<Effect<P>>,
}

/// Where the connection stands.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle,
    Cookie { until: u64 },
    Opening { socket: SocketId, until: u64 },
    Greeting { socket: SocketId, until: u64 },
    Online(Online),
    Waiting { until: u64 },
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Online {
    socket: SocketId,
    since: u64,
    /// When the hub was last heard.
    heard: u64,
    /// How long it may be silent.
    silence: u64,
    /// When the cookie is to be renewed.
    cookie: u64,
}

#[derive(Debug)]
struct Leaving {
    request: u64,
    room: RoomName,
    call: Option<CallId>,
    until: u64,
}

impl<P> Core<P> {
    /// A client that waits for [`Core::connect`].
    pub fn new(config: Config) -> Self {
        Self {
            backoff: Backoff::new(config.seed),
            config,
            phase: Phase::Idle,
            rooms: Rooms::default(),
            leaving: Vec::new(),
            left: Vec::new(),
            n_calls: 0,
            next_call: 0,
            next_request: 0,
            next_socket: 0,
            rooms_due: u64::MAX,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do. Call it until it gives `None`, after each call of another method.
    pub fn poll_effect(&mut self) -> Option<Effect<P>> {
        self.effects.pop_front()
    }

    /// When to call [`Core::timer`]; `None`: not before something else happens.
    pub fn deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Closed => None,
            Phase::Cookie { until }
            | Phase::Opening { until, .. }
            | Phase::Greeting { until, .. }
            | Phase::Waiting { until } => Some(until),
            Phase::Online(online) => {
                Some(online.heard.saturating_add(online.silence).min(online.cookie).min(self.rooms_due))
            }
        }
    }

    /// The session that the hub gave, for a driver that stores it.
    pub fn session(&self) -> Option<&twine_protocol::SessionId> {
        self.config.connect.session.as_ref()
    }

    /// The room's cursor: the last position handed out or said by the hub.
    pub fn cursor(&self, room: &RoomName) -> Option<&Position> {
        self.rooms.get(room).and_then(Room::cursor)
    }

    // What the app asks for.

    /// Connects, or does so at once where the next attempt is still being waited for.
    pub fn connect(&mut self, now: u64) {
        if matches!(self.phase, Phase::Idle | Phase::Waiting { .. } | Phase::Closed) {
            self.start(now);
        }
    }

    /// Ends the connection and stays away until [`Core::connect`]. Calls that wait for the hub fail
    /// with [`Error::Closed`]; subscriptions that were in force come back with the connection.
    pub fn disconnect(&mut self) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.close_socket(CloseCode::Normal);
        self.end(ClosedReason::Disconnected);
    }

    /// Wants the messages of a room. Completes when the hub has agreed, now or after it has come
    /// back; for a room that is subscribed already, and with no options, at once.
    pub fn subscribe(&mut self, now: u64, name: &RoomName, options: SubscribeOptions) -> CallId {
        let call = self.new_call();
        if self.n_calls > limits::CALLS_MAX {
            self.complete(call, Err(Error::TooManyCalls { limit: limits::CALLS_MAX }));
            return call;
        }
        let Some(room) = self.rooms.insert(name) else {
            self.complete(call, Err(Error::TooManyRooms { limit: limits::ROOMS_MAX }));
            return call;
        };
        room.wanted = true;
        let SubscribeOptions { after, history, token } = options;
        let as_it_is = after.is_none() && history.is_none();
        if token.is_some() {
            room.options.token = token;
        }
        if as_it_is {
            if matches!(room.link, Link::Live | Link::Behind)
                && let Some(position) = room.cursor().cloned()
            {
                self.complete(call, Ok(Outcome::Subscribed { position, recovered: None }));
                return call;
            }
        } else {
            room.options.after = after;
            room.options.history = history;
        }
        room.calls.push(call);
        // A request that is under way, or will be made by itself, answers this call too.
        if !as_it_is || room.link == Link::Idle {
            self.ask(now, name);
        }
        call
    }

    /// Wants no more of a room: nothing of it is delivered after this call. Completes when the hub
    /// has agreed, or at once where it knows of nothing to end.
    pub fn unsubscribe(&mut self, now: u64, name: &RoomName) -> CallId {
        let call = self.new_call();
        let Some(room) = self.rooms.get_mut(name) else {
            self.complete(call, Ok(Outcome::Unsubscribed));
            return call;
        };
        let wanted = room.wanted;
        let withdrawn = std::mem::take(&mut room.calls);
        room.forget();
        self.rooms.tidy(name);
        self.retract(name);
        for waiting in withdrawn {
            self.complete(waiting, Err(Error::Withdrawn { room: name.clone() }));
        }
        match self.phase {
            Phase::Online(online) if wanted => self.leave(now, online.socket, name.clone(), Some(call)),
            _ => {
                if wanted {
                    self.remember_left(name.clone());
                }
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
        call
    }

    /// The room has a first listener: delivery goes on from the cursor.
    ///
    /// # Errors
    /// [`Error::TooManyRooms`] where the client holds as many rooms as it may; nothing has changed.
    pub fn attach(&mut self, now: u64, name: &RoomName) -> Result<(), Error> {
        let Some(room) = self.rooms.insert(name) else {
            return Err(Error::TooManyRooms { limit: limits::ROOMS_MAX });
        };
        room.listening = true;
        if matches!(room.link, Link::Idle | Link::Behind) {
            self.ask(now, name);
        }
        Ok(())
    }

    /// The room's last listener is gone: it is not read past its cursor until one attaches. What
    /// is queued for it is taken back, and comes again then.
    pub fn detach(&mut self, name: &RoomName) {
        let first = self.retract(name);
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.listening = false;
        if let Some(first) = first {
            room.retract(&first);
        }
        self.rooms.tidy(name);
    }

    /// The listeners of a message are through with it, and with the promises that they gave.
    pub fn delivered(&mut self, room: &RoomName, position: &Position) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.delivered(position);
        }
    }

    /// The listeners of a message have returned, and one of them gave a promise: delivery goes on,
    /// but the acknowledged cursor stays before this message until [`Core::delivered`], at most
    /// [`limits::SETTLE_WAIT`].
    pub fn pending(&mut self, now: u64, room: &RoomName, position: &Position) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.pending(now, position);
        }
    }

    // What the network says.

    /// The cookie was fetched, or could not be.
    pub fn cookie_settled(&mut self, now: u64) {
        if matches!(self.phase, Phase::Cookie { .. }) {
            self.open(now);
        }
    }

    /// The socket is open.
    pub fn opened(&mut self, now: u64, socket: SocketId) {
        if matches!(self.phase, Phase::Opening { socket: ours, .. } if ours == socket) {
            self.phase = Phase::Greeting { socket, until: now.saturating_add(limits::CONNECT_WAIT) };
            self.effects.push_back(Effect::Send(socket, ClientFrame::Connect(self.config.connect.clone())));
        }
    }

    /// The socket is closed, or could not be opened (code 1006).
    pub fn closed(&mut self, now: u64, socket: SocketId, code: u16, reason: &str) {
        if self.socket() != Some(socket) {
            return;
        }
        if CloseCode::is_retryable(code) {
            self.lost(now, None);
        } else {
            self.end(ClosedReason::Refused { code, reason: reason.to_owned() });
        }
    }

    /// The hub sent something that is no frame of this protocol.
    ///
    /// A well-formed frame of an unknown type is not that: it is ignored, but for
    /// [`Core::heard`].
    pub fn garbled(&mut self, now: u64, socket: SocketId, detail: &str) {
        if self.socket() == Some(socket) {
            self.effects.push_back(Effect::Error(Error::Garbled { detail: detail.to_owned() }));
            self.replace(now, CloseCode::BadFrame, None);
        }
    }

    /// The hub gave a sign of life that is no frame for the core.
    pub fn heard(&mut self, now: u64, socket: SocketId) {
        if let Phase::Online(online) = &mut self.phase
            && online.socket == socket
        {
            online.heard = now;
        }
    }

    /// The network may be back, or the page is seen again: where the next attempt is being waited
    /// for, it is made at once.
    pub fn wake(&mut self, now: u64) {
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.start(now);
        } else {
            self.timer(now);
        }
    }

    /// Time has passed.
    pub fn timer(&mut self, now: u64) {
        match self.phase {
            Phase::Cookie { until } if until <= now => self.open(now),
            Phase::Opening { until, .. } | Phase::Greeting { until, .. } if until <= now => {
                self.replace(now, CloseCode::Normal, None);
            }
            Phase::Waiting { until } if until <= now => self.start(now),
            Phase::Online(online) => {
                if online.heard.saturating_add(online.silence) <= now {
                    self.replace(now, CloseCode::Normal, None);
                    return;
                }
                if online.cookie <= now {
                    self.phase = Phase::Online(Online { cookie: self.next_cookie(now), ..online });
                    self.effects.push_back(Effect::FetchCookie);
                }
                if self.rooms_due <= now {
                    self.look_after_rooms(now);
                }
            }
            _ => {}
        }
    }

    /// A frame of the hub.
    pub fn frame(&mut self, now: u64, socket: SocketId, frame: ServerFrame<P>) {
        if self.socket() != Some(socket) {
            return;
        }
        self.heard(now, socket);
        let online = matches!(self.phase, Phase::Online(_));
        match frame {
            ServerFrame::Message(message) if online => self.on_message(now, message),
            ServerFrame::Subscribed(subscribed) if online => self.on_subscribed(subscribed),
            ServerFrame::Epoch(epoch) if online => {
                let name = epoch.room.clone();
                if self.rooms.get_mut(&name).is_some_and(|room| room.epoch(epoch) == Verdict::Hole) {
                    self.ask_anew(now, &name);
                }
            }
            ServerFrame::Gap(gap) if online => match self.rooms.get_mut(&gap.room).map(|room| room.gap(&gap))
            {
                Some(Verdict::Accept(())) => self.effects.push_back(Effect::Gap(gap)),
                Some(Verdict::Hole) => self.ask_anew(now, &gap.room),
                Some(Verdict::Ignore) | None => {}
            },
            ServerFrame::Ping if online => self.on_ping(now, socket),
            ServerFrame::Unsubscribed(answer) if online => self.on_left(answer.id),
            ServerFrame::Connected(connected) if !online => self.on_connected(now, socket, connected),
            ServerFrame::Error(error) => self.on_error(now, error),
            ServerFrame::Disconnect(disconnect) => {
                self.replace(now, CloseCode::Normal, Some(disconnect.retry));
            }
            // Out of turn, or of a later version.
            _ => {}
        }
    }

    // Frames.

    fn on_connected(&mut self, now: u64, socket: SocketId, frame: Connected) {
        if !matches!(self.phase, Phase::Greeting { .. }) {
            return;
        }
        self.phase = Phase::Online(Online {
            socket,
            since: now,
            heard: now,
            silence: frame.heartbeat.saturating_add(limits::SILENCE),
            cookie: self.next_cookie(now),
        });
        self.rooms_due = u64::MAX;
        self.config.connect.session = frame.session;
        self.report(State::Connected);
        let left = std::mem::take(&mut self.left);
        for name in frame.rooms {
            if left.contains(&name) {
                self.leave(now, socket, name, None);
            } else if let Some(room) = self.rooms.insert(&name) {
                room.wanted = true;
            }
        }
        for name in self.rooms.names() {
            self.ask(now, &name);
        }
    }

    fn on_message(&mut self, now: u64, message: Message<P>) {
        let Some(room) = self.rooms.get_mut(&message.room) else { return };
        match room.message(message.offset) {
            Verdict::Accept((position, recovered)) => self.effects.push_back(Effect::Deliver(Delivery {
                room: message.room,
                position,
                time: message.time,
                id: message.id,
                sender: message.sender,
                recovered,
                data: message.data,
            })),
            Verdict::Hole => self.ask_anew(now, &message.room),
            Verdict::Ignore => {}
        }
    }

    fn on_subscribed(&mut self, frame: Subscribed) {
        let Some(room) = self.rooms.get_mut(&frame.room) else { return };
        if !matches!(room.link, Link::Asked { id, .. } if id == frame.id) {
            return;
        }
        let recovered = frame.recovered;
        let position = Position { epoch: frame.epoch.clone(), offset: frame.offset };
        let gap = room.subscribed(frame);
        let calls = std::mem::take(&mut room.calls);
        if let Some(gap) = gap {
            self.effects.push_back(Effect::Gap(gap));
        }
        for call in calls {
            self.complete(call, Ok(Outcome::Subscribed { position: position.clone(), recovered }));
        }
    }

    fn on_ping(&mut self, now: u64, socket: SocketId) {
        let cursors: BTreeMap<_, _> =
            self.rooms.iter_mut().filter_map(|room| Some((room.name.clone(), room.ack(now)?))).collect();
        self.effects.push_back(Effect::Send(socket, ClientFrame::Pong(Pong { cursors })));
    }

    fn on_left(&mut self, request: u64) {
        if let Some(index) = self.leaving.iter().position(|leaving| leaving.request == request) {
            let leaving = self.leaving.swap_remove(index);
            if let Some(call) = leaving.call {
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
    }

    fn on_error(&mut self, now: u64, frame: ErrorFrame) {
        let ErrorFrame { id, code, message } = frame;
        if let Some(id) = id {
            if self.leaving.iter().any(|leaving| leaving.request == id) {
                // Whatever the hub has against it: nothing of the room is delivered any more.
                self.on_left(id);
                if code == ErrorCode::NotSubscribed {
                    return;
                }
            } else if let Some(name) = self.rooms.asked(id) {
                self.on_refused(now, &name, code, message);
                return;
            }
        }
        self.effects.push_back(Effect::Error(Error::Refused { code, message, room: None }));
    }

    /// A subscription was refused: for good, or until later.
    fn on_refused(&mut self, now: u64, name: &RoomName, code: ErrorCode, message: String) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let error = Error::Refused { code, message, room: Some(name.clone()) };
        if code.is_retryable() {
            let again = now.saturating_add(self.backoff.jitter(room.asked_anew.max(1)));
            room.asked_anew = room.asked_anew.saturating_add(1);
            room.link = Link::Refused { again };
            self.rooms_due = self.rooms_due.min(again);
            self.effects.push_back(Effect::Error(error));
            return;
        }
        let calls = std::mem::take(&mut room.calls);
        room.forget();
        self.rooms.tidy(name);
        if calls.is_empty() {
            self.effects.push_back(Effect::Error(error));
            return;
        }
        for call in calls {
            self.complete(call, Err(error.clone()));
        }
    }

    // Rooms.

    /// Asks the hub for a room, where it is wanted and there is a hub.
    fn ask(&mut self, now: u64, name: &RoomName) {
        let Phase::Online(online) = self.phase else { return };
        let id = self.next_request();
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.is_due()) else { return };
        let until = now.saturating_add(limits::REQUEST_WAIT);
        room.link = Link::Asked { id, until };
        let options = &room.options;
        let frame = Subscribe {
            id,
            room: name.clone(),
            after: options.after.as_ref().or(room.cursor()).cloned(),
            stored: false,
            history: options.history,
            token: options.token.clone(),
        };
        self.rooms_due = self.rooms_due.min(until);
        self.effects.push_back(Effect::Send(online.socket, ClientFrame::Subscribe(frame)));
    }

    /// Asks again from the cursor, for something after it is missing.
    fn ask_anew(&mut self, now: u64, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.asked_anew += 1;
        if room.asked_anew > limits::REASK_MAX {
            room.asked_anew = 0;
            self.replace(now, CloseCode::Normal, None);
        } else {
            self.ask(now, name);
        }
    }

    /// Rooms whose time has come: refused ones are asked for again; a request without an answer
    /// means that the connection is broken.
    fn look_after_rooms(&mut self, now: u64) {
        let mut due = u64::MAX;
        let mut again = Vec::new();
        let mut late = self.leaving.iter().any(|leaving| leaving.until <= now);
        for leaving in &self.leaving {
            due = due.min(leaving.until);
        }
        for room in self.rooms.iter_mut() {
            match room.link {
                Link::Asked { until, .. } if until <= now => late = true,
                Link::Refused { again: at } if at <= now => {
                    room.link = Link::Idle;
                    again.push(room.name.clone());
                }
                Link::Asked { until: at, .. } | Link::Refused { again: at } => due = due.min(at),
                Link::Idle | Link::Live | Link::Behind => {}
            }
        }
        self.rooms_due = due;
        if late {
            self.replace(now, CloseCode::Normal, None);
            return;
        }
        for name in again {
            self.ask(now, &name);
        }
    }

    fn leave(&mut self, now: u64, socket: SocketId, room: RoomName, call: Option<CallId>) {
        let id = self.next_request();
        let until = now.saturating_add(limits::REQUEST_WAIT);
        self.rooms_due = self.rooms_due.min(until);
        self.leaving.push(Leaving { request: id, room: room.clone(), call, until });
        self.effects.push_back(Effect::Send(socket, ClientFrame::Unsubscribe(Unsubscribe { id, room })));
    }

    /// The session may still hold the room: the next connection ends that.
    fn remember_left(&mut self, name: RoomName) {
        if self.config.connect.session.is_some() && self.left.len() < limits::ROOMS_MAX {
            self.left.push(name);
        }
    }

    /// Takes the room's queued deliveries back. Gives the position of the first.
    fn retract(&mut self, name: &RoomName) -> Option<Position> {
        let mut first = None;
        self.effects.retain(|effect| match effect {
            Effect::Deliver(delivery) if delivery.room == *name => {
                if first.is_none() {
                    first = Some(delivery.position.clone());
                }
                false
            }
            _ => true,
        });
        first
    }

    // The connection.

    fn start(&mut self, now: u64) {
        self.report(State::Connecting);
        if self.config.cookie {
            self.phase = Phase::Cookie { until: now.saturating_add(limits::COOKIE_WAIT) };
            self.effects.push_back(Effect::FetchCookie);
        } else {
            self.open(now);
        }
    }

    fn open(&mut self, now: u64) {
        self.next_socket += 1;
        let socket = SocketId(self.next_socket);
        self.phase = Phase::Opening { socket, until: now.saturating_add(limits::CONNECT_WAIT) };
        self.effects.push_back(Effect::Open(socket));
    }

    fn socket(&self) -> Option<SocketId> {
        match self.phase {
            Phase::Opening { socket, .. } | Phase::Greeting { socket, .. } => Some(socket),
            Phase::Online(online) => Some(online.socket),
            Phase::Idle | Phase::Cookie { .. } | Phase::Waiting { .. } | Phase::Closed => None,
        }
    }

    fn close_socket(&mut self, code: CloseCode) {
        if let Some(socket) = self.socket() {
            self.effects.push_back(Effect::Close(socket, code));
        }
    }

    /// Gives this connection up, and comes back.
    fn replace(&mut self, now: u64, code: CloseCode, hint: Option<u64>) {
        self.close_socket(code);
        self.lost(now, hint);
    }

    /// The connection is gone; the next attempt follows.
    fn lost(&mut self, now: u64, hint: Option<u64>) {
        if let Phase::Online(online) = self.phase
            && now.saturating_sub(online.since) >= limits::STABLE
        {
            self.backoff.reset();
        }
        let delay = self.backoff.next(hint);
        self.offline();
        self.phase = Phase::Waiting { until: now.saturating_add(delay) };
        self.report(State::Reconnecting { delay });
    }

    /// Ends for good: only the app starts again.
    fn end(&mut self, reason: ClosedReason) {
        self.offline();
        self.backoff.reset();
        self.phase = Phase::Closed;
        for name in self.rooms.names() {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            let calls = std::mem::take(&mut room.calls);
            // What was never in force is not wanted by anyone who knows of it.
            if room.cursor().is_none() {
                room.forget();
            }
            self.rooms.tidy(&name);
            for call in calls {
                self.complete(call, Err(Error::Closed));
            }
        }
        self.report(State::Closed(reason));
    }

    /// What was said on the connection is void.
    fn offline(&mut self) {
        self.rooms_due = u64::MAX;
        for room in self.rooms.iter_mut() {
            room.link = Link::Idle;
        }
        for leaving in std::mem::take(&mut self.leaving) {
            self.remember_left(leaving.room);
            if let Some(call) = leaving.call {
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
    }

    // Bookkeeping.

    fn next_cookie(&self, now: u64) -> u64 {
        if self.config.cookie { now.saturating_add(limits::COOKIE_EVERY) } else { u64::MAX }
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    fn new_call(&mut self) -> CallId {
        self.next_call += 1;
        self.n_calls += 1;
        CallId(self.next_call)
    }

    fn complete(&mut self, call: CallId, result: Result<Outcome, Error>) {
        self.n_calls -= 1;
        self.effects.push_back(Effect::Done(call, result));
    }

    fn report(&mut self, state: State) {
        self.effects.push_back(Effect::State(state));
    }
}
