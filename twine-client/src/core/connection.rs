//! The connection's life: cookie, socket, what is said first, heartbeat, and coming back.

use twine_protocol::{ClientFrame, CloseCode, Connected};

use super::acks::Acks;
use super::room::Link;
use super::{ClosedReason, Core, Effect, Error, Outcome, SocketId, State, limits};

/// Where the connection stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    Idle,
    Cookie {
        until: u64,
    },
    /// The socket is being opened, or the hub has not answered yet. What is said is on its way all the same.
    Opening {
        socket: SocketId,
        until: u64,
    },
    Online(Online),
    Waiting {
        until: u64,
    },
    Closed,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Online {
    pub(super) socket: SocketId,
    since: u64,
    /// When the hub was last heard.
    heard: u64,
    /// How long it may be silent.
    silence: u64,
    /// When the cookie is to be renewed.
    cookie: u64,
    pub(super) acks: Acks,
}

impl Phase {
    pub(super) fn deadline(&self) -> Option<u64> {
        match self {
            Self::Idle | Self::Closed => None,
            Self::Cookie { until } | Self::Opening { until, .. } | Self::Waiting { until } => Some(*until),
            Self::Online(online) => Some(online.deadline()),
        }
    }
}

impl Online {
    pub(super) fn deadline(&self) -> u64 {
        self.silent_at().min(self.cookie).min(self.acks.due())
    }

    fn silent_at(&self) -> u64 {
        self.heard.saturating_add(self.silence)
    }
}

impl<P> Core<P> {
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

    /// Ends the connection, and forgets the session and all rooms: the user has left, and whoever
    /// connects next is somebody else. Calls that wait fail with [`Error::Closed`].
    pub fn forget(&mut self) {
        self.disconnect();
        self.config.connect.session = None;
        self.config.connect.prev = None;
        self.left.clear();
        for name in self.rooms.names() {
            self.retract(&name);
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            // Those that were made after `disconnect`.
            let calls = std::mem::take(&mut room.calls);
            room.forget();
            self.rooms.tidy(&name);
            self.fail(calls, &Error::Closed);
        }
        self.moved = true;
    }

    /// The cookie was fetched, or could not be.
    pub fn cookie_settled(&mut self, now: u64) {
        if matches!(self.phase, Phase::Cookie { .. }) {
            self.open(now);
        }
    }

    /// The socket is open: the hub has as much time again for its answer.
    pub fn opened(&mut self, now: u64, socket: SocketId) {
        let Phase::Opening { socket: ours, until } = &mut self.phase else { return };
        if *ours != socket {
            return;
        }
        let before = std::mem::replace(until, now.saturating_add(limits::CONNECT_WAIT));
        // What was asked for with the handshake waits for that answer too.
        let more = until.saturating_sub(before);
        self.rooms_due = self.rooms_due.saturating_add(more);
        for room in self.rooms.iter_mut() {
            if let Link::Asked { until, .. } = &mut room.link {
                *until = until.saturating_add(more);
            }
        }
        for leaving in &mut self.leaving {
            leaving.until = leaving.until.saturating_add(more);
        }
    }

    /// The socket is closed, or could not be opened (code 1006).
    pub fn closed(&mut self, now: u64, socket: SocketId, code: u16, reason: &str) {
        if self.socket() != Some(socket) {
            return;
        }
        // Of what was said with the handshake the hub may have got something else.
        let was_early = self.early && matches!(self.phase, Phase::Opening { .. });
        self.doubt();
        if CloseCode::is_retryable(code) || was_early {
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

    /// The network may be back, or the page is seen again: where there is no connection, or it is
    /// found dead, the next attempt is made at once; one that has been under way for longer than
    /// [`limits::WAKE_PATIENCE`] is made anew.
    pub fn wake(&mut self, now: u64) {
        self.timer(now);
        if let Phase::Opening { until, .. } = self.phase
            && until.saturating_sub(now) < limits::CONNECT_WAIT - limits::WAKE_PATIENCE
        {
            self.replace(now, CloseCode::Normal, None);
        }
        if matches!(self.phase, Phase::Waiting { .. }) {
            self.start(now);
        }
    }

    /// Time has passed.
    pub fn timer(&mut self, now: u64) {
        match self.phase {
            Phase::Cookie { until } if until <= now => self.open(now),
            Phase::Opening { until, .. } if until <= now => {
                self.doubt();
                self.replace(now, CloseCode::Normal, None);
            }
            Phase::Waiting { until } if until <= now => self.start(now),
            Phase::Online(online) => {
                if online.silent_at() <= now {
                    self.replace(now, CloseCode::Normal, None);
                    return;
                }
                if online.cookie <= now {
                    self.phase = Phase::Online(Online { cookie: self.next_cookie(now), ..online });
                    self.effects.push_back(Effect::FetchCookie);
                }
                if online.acks.due() <= now {
                    self.tell_cursors(now, false);
                }
                if self.rooms_due <= now {
                    self.look_after_rooms(now);
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_connected(&mut self, now: u64, socket: SocketId, frame: Connected) {
        if !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        self.phase = Phase::Online(Online {
            socket,
            since: now,
            heard: now,
            silence: frame.heartbeat.saturating_add(limits::SILENCE),
            cookie: self.next_cookie(now),
            acks: Acks::new(frame.session.is_some()),
        });
        self.moved = true;
        self.config.connect.session = frame.session;
        // The hub knows this object from now on; what was there before a reload is taken over.
        self.config.connect.prev = None;
        self.report(State::Connected);
        self.tell_left(now, socket, true);
        for name in frame.rooms {
            let is_left = self.leaving.iter().any(|leaving| leaving.left.room == name);
            if !is_left && let Some(room) = self.rooms.insert(&name) {
                room.wanted = true;
            }
        }
        self.ask_all(now);
    }

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
        self.effects.push_back(Effect::Open { socket, early: self.early });
        self.effects.push_back(Effect::Send(socket, ClientFrame::Connect(self.config.connect.clone())));
        // All this needs no answer first: the hub reads on once it has found the session.
        self.tell_left(now, socket, false);
        self.ask_all(now);
    }

    pub(super) fn socket(&self) -> Option<SocketId> {
        match self.phase {
            Phase::Opening { socket, .. } => Some(socket),
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
    pub(super) fn replace(&mut self, now: u64, code: CloseCode, hint: Option<u64>) {
        self.close_socket(code);
        self.lost(now, hint);
    }

    /// The connection is gone; the next attempt follows.
    fn lost(&mut self, now: u64, hint: Option<u64>) {
        if let Phase::Online(online) = self.phase
            && now.saturating_sub(online.since) >= limits::STABLE
        {
            self.backoff.reset();
            // What was doubted may have been the network.
            self.early = true;
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
        // Before the calls that fail by it, so that they can say why.
        self.report(State::Closed(reason));
        for name in self.rooms.names() {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            let calls = std::mem::take(&mut room.calls);
            // What was never in force is not wanted by anyone who knows of it.
            if !room.was_in_force() {
                room.withdraw();
            }
            self.rooms.tidy(&name);
            self.fail(calls, &Error::Closed);
        }
    }

    /// An attempt came to nothing, and nobody has said why: something on the way may let through no address that says
    /// something, or not all of it. The next one is made the other way.
    fn doubt(&mut self) {
        self.early ^= matches!(self.phase, Phase::Opening { .. });
    }

    /// What was said on the connection is void.
    fn offline(&mut self) {
        self.rooms_due = u64::MAX;
        for room in self.rooms.iter_mut() {
            room.link = Link::Idle;
        }
        for leaving in std::mem::take(&mut self.leaving) {
            self.remember_left(leaving.left);
            if let Some(call) = leaving.call {
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
    }

    fn next_cookie(&self, now: u64) -> u64 {
        if self.config.cookie { now.saturating_add(limits::COOKIE_EVERY) } else { u64::MAX }
    }
}
