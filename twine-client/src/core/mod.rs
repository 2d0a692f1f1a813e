//! The client without its I/O: one deterministic state machine that both drivers run.
//!
//! Events go in as method calls that carry `now`, milliseconds of any monotonic clock; what is to
//! be done comes out of [`Core::poll_effect`]. Nothing in here opens a socket, reads a clock, runs
//! a callback or blocks, so that a driver may call it from anywhere and a test drives years of
//! network weather in a second. `P` is a payload: raw JSON natively, a JavaScript value in a browser.
//!
//! ```text
//!            connect()        cookie_settled, or 3 s       `connected`
//!   ┌──────┐ ───────▶ ┌────────┐ ───────────▶ ┌─────────┐ ───────────▶ ┌────────┐
//!   │ Idle │          │ Cookie │              │ Opening │              │ Online │
//!   └──────┘          └────────┘              └─────────┘              └────────┘
//!                         ▲                        │ closed, silence, too late │
//!                         │   timer, wake()   ┌─────────┐                      │
//!                         └────────────────── │ Waiting │ ◀────────────────────┘
//!                                             └─────────┘
//!   disconnect(), or a close code that forbids to come back: from everywhere to `Closed`
//! ```
//!
//! # What a driver does
//!
//! After each call it drains [`Core::poll_effect`] until it is empty, with the core not borrowed while
//! callbacks run: they may call the core again. Where several frames came at once it may hand in all
//! of them first; what is queued is bounded by that. Then it arms one timer for [`Core::deadline`]; a
//! timer that is armed earlier may stay, since [`Core::timer`] does nothing before its time.
//!
//! `connection.rs` has the transitions above, `subscriptions.rs` what is asked of rooms and answered,
//! `room.rs` the rules of a cursor, `acks.rs` when the hub is told of cursors.

mod acks;
mod backoff;
mod connection;
mod effect;
pub mod limits;
mod room;
mod rooms;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use twine_protocol::{CloseCode, Connect, ErrorCode, Position, RoomName, ServerFrame, SessionId};

use backoff::Backoff;
use connection::Phase;
pub use effect::{CallId, ClosedReason, Delivery, DeliveryId, Effect, Error, Outcome, SocketId, State};
use room::{Room, Waiting};
use rooms::Rooms;
use subscriptions::{Leaving, Left};

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
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Deliver what comes after this position; `None`: from the session's cursor, else from the head.
    /// A room that is subscribed already is not moved: see [`Core::subscribe`].
    pub after: Option<Position>,
    /// Start at the earlier of the cursor and this many messages before the head. Where the room is
    /// subscribed already, all its listeners get these messages, also those that had them.
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
    left: Vec<Left>,
    /// The app's calls that are not complete.
    n_calls: usize,
    next_call: u64,
    next_request: u64,
    next_socket: u64,
    next_delivery: u32,
    /// Whether an attempt says something with its handshake, the one under way or the next: as long as that works.
    early: bool,
    /// Whether what [`Core::take_moved`] tells of has changed.
    moved: bool,
    /// When the first room may need attention; it may be early.
    rooms_due: u64,
    backoff: Backoff,
    effects: VecDeque<Effect<P>>,
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
            next_delivery: 0,
            early: true,
            moved: false,
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
        match &self.phase {
            Phase::Online(online) => Some(online.deadline().min(self.rooms_due)),
            phase => phase.deadline(),
        }
    }

    /// The room's cursor: the last position handed out or said by the hub.
    pub fn cursor(&self, room: &RoomName) -> Option<&Position> {
        self.rooms.get(room).and_then(Room::cursor)
    }

    /// The session that the hub keeps for this client, to be named by whoever comes after it.
    pub fn session(&self) -> Option<&SessionId> {
        self.config.connect.session.as_ref()
    }

    /// Each room's position up to which its listeners are through, promises included: to be stored,
    /// and given to [`Core::restore`] by whoever comes after this client.
    pub fn settled(&mut self, now: u64) -> Vec<(RoomName, Position)> {
        self.rooms.iter_mut().filter_map(|room| Some((room.name.clone(), room.settled(now)?))).collect()
    }

    /// Whether [`Core::session`] or [`Core::settled`] may say something else than when this was asked last.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
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
            ServerFrame::Subscribed(answer) if online => self.on_subscribed(now, answer),
            ServerFrame::Unsubscribed(answer) if online => self.on_left(answer.id),
            ServerFrame::Epoch(epoch) if online => self.on_epoch(now, epoch),
            ServerFrame::Gap(gap) if online => self.on_gap(now, gap),
            ServerFrame::Ping if online => self.tell_cursors(now, true),
            ServerFrame::Connected(connected) if !online => self.on_connected(now, socket, connected),
            ServerFrame::Error(error) => self.on_error(now, error),
            ServerFrame::Disconnect(notice) => {
                // It has served until now, and others do: no attempt has failed.
                if notice.code == ErrorCode::Draining && matches!(self.phase, Phase::Online(_)) {
                    self.backoff.reset();
                }
                self.replace(now, CloseCode::Normal, Some(notice.retry));
            }
            // Out of turn, or of a later version.
            _ => {}
        }
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

    fn fail(&mut self, calls: Vec<Waiting>, error: &Error) {
        for Waiting { call, .. } in calls {
            self.complete(call, Err(error.clone()));
        }
    }

    fn report(&mut self, state: State) {
        self.effects.push_back(Effect::State(state));
    }
}

impl fmt::Debug for SubscribeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeOptions")
            .field("after", &self.after)
            .field("history", &self.history)
            // A secret.
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish()
    }
}
