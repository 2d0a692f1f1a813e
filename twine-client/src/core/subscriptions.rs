//! What the app asks of rooms, and what the hub says about them.

use twine_protocol::{
    ClientFrame, CloseCode, EpochChange, ErrorCode, ErrorFrame, Gap, Message, Pong, Position, RoomName,
    Subscribe, Subscribed, Unsubscribe,
};

use super::connection::Phase;
use super::room::{Link, Verdict, Waiting};
use super::{CallId, Core, Delivery, DeliveryId, Effect, Error, Outcome, SocketId, SubscribeOptions, limits};

/// An unsubscribe request under way.
#[derive(Debug)]
pub(super) struct Leaving {
    request: u64,
    pub(super) left: Left,
    pub(super) call: Option<CallId>,
    pub(super) until: u64,
}

/// A room that the hub is to be told has been left.
#[derive(Debug, Clone)]
pub(super) struct Left {
    pub(super) room: RoomName,
    /// Where it was not, and is wanted again before the hub has heard of it, it is as if it had not been left: a
    /// component that is mounted twice must not cost what its session holds.
    pub(super) was_in_force: bool,
}

impl<P> Core<P> {
    /// Wants the messages of a room. Completes when the hub has agreed, now or after it has come
    /// back; for a room that is subscribed already, and with no options, at once.
    ///
    /// A room has one cursor, whoever listens. Where it is subscribed already, an `after` other than
    /// the position it is at fails with [`Error::AlreadySubscribed`]: moving there would lose messages,
    /// or repeat them, for the other listeners. `history` is what was asked for: all listeners get
    /// messages again that are within it.
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
        let SubscribeOptions { mut after, history, token } = options;
        // What an earlier page has stored gives way to what this one asks for.
        let place = room.after().or(room.cursor().filter(|_| room.was_in_force()));
        if after.is_some() && place.is_some() {
            if after.as_ref() != place {
                self.complete(call, Err(Error::AlreadySubscribed { room: name.clone() }));
                return call;
            }
            after = None;
        }
        room.wanted = true;
        let as_it_is = after.is_none() && history.is_none();
        if token.is_some() {
            room.token = token;
        }
        if as_it_is
            && matches!(room.link, Link::Live | Link::Behind)
            && let Some(position) = room.cursor().cloned()
        {
            self.complete(call, Ok(Outcome::Subscribed { position, recovered: None }));
            return call;
        }
        room.calls.push(Waiting { call, after, history });
        // A request that is under way, or will be made by itself, answers this call too.
        let is_asked = as_it_is && room.link != Link::Idle;
        if let Some(index) = self.left_at(name, false) {
            self.left.swap_remove(index);
        }
        if !is_asked {
            self.ask(now, name);
        }
        call
    }

    /// Wants no more of a room: nothing of it is delivered after this call. Completes when the hub
    /// has agreed, or at once where it knows of nothing to end.
    pub fn unsubscribe(&mut self, now: u64, name: &RoomName) -> CallId {
        let call = self.new_call();
        let mut left = Left { room: name.clone(), was_in_force: false };
        let mut wanted = false;
        if let Some(room) = self.rooms.get_mut(name) {
            wanted = room.wanted;
            left.was_in_force = room.was_in_force();
            let withdrawn = std::mem::take(&mut room.calls);
            let link = room.link;
            if withdrawn.is_empty() {
                room.forget();
            } else {
                room.withdraw();
            }
            if !left.was_in_force && matches!(self.phase, Phase::Opening { .. }) {
                // Where it is wanted again, what was asked for is under way still.
                room.link = link;
            }
            self.moved = true;
            self.rooms.tidy(name);
            self.retract(name);
            self.fail(withdrawn, &Error::Withdrawn { room: name.clone() });
        }
        match self.phase {
            Phase::Online(online) if wanted => self.leave(now, online.socket, left, Some(call)),
            // Before it is asked for again, if it is.
            Phase::Opening { socket, .. } if left.was_in_force => self.leave(now, socket, left, Some(call)),
            Phase::Online(_) => self.complete(call, Ok(Outcome::Unsubscribed)),
            // Whether the session holds it is known once there is one.
            _ => {
                self.remember_left(left);
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
        call
    }

    /// The position up to which an earlier client of this tab was through with a room: with no `after`
    /// of its own, a subscription starts there. Without effect where the room is subscribed already.
    pub fn restore(&mut self, name: &RoomName, position: Position) {
        if let Some(room) = self.rooms.insert(name)
            && room.cursor().is_none()
        {
            room.restore(position);
        }
    }

    /// Takes a [`Core::subscribe`] back that is not complete: it fails with [`Error::Withdrawn`], and
    /// what it alone asked for does not come. The room stays subscribed: [`Core::unsubscribe`] ends that.
    pub fn withdraw(&mut self, now: u64, call: CallId) {
        let Some((room, index)) = self.rooms.iter_mut().find_map(|room| {
            let index = room.calls.iter().position(|waiting| waiting.call == call)?;
            Some((room, index))
        }) else {
            return;
        };
        let name = room.name.clone();
        let history = room.history();
        room.calls.remove(index);
        // The answer to the request under way would repeat messages for those who have had them.
        let is_too_much = room.history() != history && room.cursor().is_some();
        if is_too_much && matches!(room.link, Link::Asked { .. }) {
            // Also where no one listens, and it is therefore not asked for before someone does.
            room.link = Link::Behind;
            self.ask(now, &name);
        }
        self.complete(call, Err(Error::Withdrawn { room: name }));
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
    pub fn detach(&mut self, now: u64, name: &RoomName) {
        let first = self.retract(name);
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.listening = false;
        if let Some(first) = first {
            room.retract(&first);
            // The request under way is void: calls that wait for its answer need another one.
            if room.link == Link::Behind {
                self.ask(now, name);
            }
        }
        self.rooms.tidy(name);
    }

    /// The listeners of a room are through with a delivery, and with the promises that they gave. One
    /// that does not count any more, since the cursor was moved, is ignored.
    pub fn delivered(&mut self, now: u64, room: &RoomName, delivery: DeliveryId) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.delivered(delivery);
            self.moved(now);
        }
    }

    /// The listeners have returned from a delivery, and one of them gave a promise: delivery goes on,
    /// but the acknowledged cursor stays before this message until [`Core::delivered`], at most
    /// [`limits::SETTLE_WAIT`].
    pub fn pending(&mut self, now: u64, room: &RoomName, delivery: DeliveryId) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.pending(now, delivery);
        }
    }

    pub(super) fn on_message(&mut self, now: u64, message: Message<P>) {
        let Some(room) = self.rooms.get_mut(&message.room) else { return };
        self.next_delivery = self.next_delivery.wrapping_add(1);
        let delivery = DeliveryId(self.next_delivery);
        match room.message(message.offset, delivery) {
            Verdict::Accept((position, recovered)) => self.effects.push_back(Effect::Deliver(Delivery {
                delivery,
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

    pub(super) fn on_epoch(&mut self, now: u64, frame: EpochChange) {
        let name = frame.room.clone();
        match self.rooms.get_mut(&name).map(|room| room.epoch(frame)) {
            Some(Verdict::Accept(())) => self.moved(now),
            Some(Verdict::Hole) => self.ask_anew(now, &name),
            Some(Verdict::Ignore) | None => {}
        }
    }

    pub(super) fn on_gap(&mut self, now: u64, gap: Gap) {
        match self.rooms.get_mut(&gap.room).map(|room| room.gap(&gap)) {
            Some(Verdict::Accept(())) => {
                self.effects.push_back(Effect::Gap(gap));
                self.moved(now);
            }
            Some(Verdict::Hole) => self.ask_anew(now, &gap.room),
            Some(Verdict::Ignore) | None => {}
        }
    }

    pub(super) fn on_subscribed(&mut self, now: u64, frame: Subscribed) {
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
        self.moved(now);
        for Waiting { call, .. } in calls {
            self.complete(call, Ok(Outcome::Subscribed { position: position.clone(), recovered }));
        }
    }

    /// Tells the hub at once how far the cursors are: the page may be about to go.
    pub fn acknowledge(&mut self, now: u64) {
        self.tell_cursors(now, false);
    }

    /// Tells the hub of the cursors that have moved, or answers its ping with them.
    pub(super) fn tell_cursors(&mut self, now: u64, mut is_answer: bool) {
        let Phase::Online(online) = &mut self.phase else { return };
        online.acks.told();
        let n_rooms = if online.acks.are_kept() { limits::ACK_ROOMS } else { 0 };
        loop {
            let moved = self.rooms.iter_mut().filter_map(|room| Some((room.name.clone(), room.ack(now)?)));
            let cursors: Vec<_> = moved.take(n_rooms).collect();
            if cursors.is_empty() && !is_answer {
                return;
            }
            is_answer = false;
            self.effects.push_back(Effect::Send(online.socket, ClientFrame::Pong(Pong { cursors })));
        }
    }

    /// A cursor has moved.
    fn moved(&mut self, now: u64) {
        self.moved = true;
        if let Phase::Online(online) = &mut self.phase {
            online.acks.moved(now);
        }
    }

    pub(super) fn on_left(&mut self, request: u64) {
        if let Some(index) = self.leaving.iter().position(|leaving| leaving.request == request) {
            let leaving = self.leaving.swap_remove(index);
            if let Some(call) = leaving.call {
                self.complete(call, Ok(Outcome::Unsubscribed));
            }
        }
    }

    pub(super) fn on_error(&mut self, now: u64, frame: ErrorFrame) {
        let ErrorFrame { id, code, message } = frame;
        if let Some(id) = id {
            if self.leaving.iter().any(|leaving| leaving.request == id) {
                // Whatever the hub has against it: nothing of the room is delivered any more.
                self.on_left(id);
            } else if let Some(name) = self.rooms.asked(id) {
                self.on_refused(now, &name, code, message);
                return;
            }
            // There was nothing to leave, or a later request has overtaken this one.
            if code == ErrorCode::NotSubscribed {
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
            let again = now.saturating_add(self.backoff.jitter(room.setbacks.max(1)));
            room.setbacks = room.setbacks.saturating_add(1);
            room.link = Link::Refused { again };
            self.rooms_due = self.rooms_due.min(again);
            self.effects.push_back(Effect::Error(error));
            return;
        }
        let calls = std::mem::take(&mut room.calls);
        room.forget();
        self.moved = true;
        self.rooms.tidy(name);
        if calls.is_empty() {
            self.effects.push_back(Effect::Error(error));
            return;
        }
        self.fail(calls, &error);
    }

    /// Asks the hub for all rooms that it was not asked for on this connection.
    pub(super) fn ask_all(&mut self, now: u64) {
        for name in self.rooms.names() {
            if self.rooms.get(&name).is_some_and(|room| room.link == Link::Idle) {
                self.ask(now, &name);
            }
        }
    }

    /// Asks the hub for a room, where it is wanted and there is a hub.
    fn ask(&mut self, now: u64, name: &RoomName) {
        let Some(socket) = self.socket() else { return };
        let id = self.next_request();
        let until = self.patience(now);
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.is_due()) else { return };
        room.link = Link::Asked { id, until };
        let frame = Subscribe {
            id,
            room: name.clone(),
            after: room.after().or(room.cursor()).cloned(),
            stored: room.after().is_none() && room.is_stored(),
            history: room.history(),
            token: room.token.clone(),
        };
        self.rooms_due = self.rooms_due.min(until);
        self.effects.push_back(Effect::Send(socket, ClientFrame::Subscribe(frame)));
    }

    /// Asks again from the cursor, for something after it is missing.
    fn ask_anew(&mut self, now: u64, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        // Also where no one listens, and it is therefore not asked for before someone does.
        room.link = Link::Behind;
        room.setbacks += 1;
        if room.setbacks > limits::SETBACKS_MAX {
            room.setbacks = 0;
            self.replace(now, CloseCode::Normal, None);
        } else {
            self.ask(now, name);
        }
    }

    /// Rooms whose time has come: refused ones are asked for again; a request without an answer
    /// means that the connection is broken.
    pub(super) fn look_after_rooms(&mut self, now: u64) {
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

    /// Until when the hub has to answer what is asked of it now: where it has not said `connected` yet, it has the time
    /// for that as well.
    fn patience(&self, now: u64) -> u64 {
        let from = if let Phase::Opening { until, .. } = self.phase { until } else { now };
        from.saturating_add(limits::REQUEST_WAIT)
    }

    /// Tells the hub of rooms that were left while it could not be told, `all` or those that were in force.
    pub(super) fn tell_left(&mut self, now: u64, socket: SocketId, all: bool) {
        while let Some(index) = self.left.iter().position(|left| all || left.was_in_force) {
            let left = self.left.swap_remove(index);
            if let Some(room) = self.rooms.get_mut(&left.room).filter(|room| !room.wanted) {
                room.link = Link::Idle;
                self.rooms.tidy(&left.room);
            }
            self.leave(now, socket, left, None);
        }
    }

    fn leave(&mut self, now: u64, socket: SocketId, left: Left, call: Option<CallId>) {
        let id = self.next_request();
        let until = self.patience(now);
        self.rooms_due = self.rooms_due.min(until);
        let room = left.room.clone();
        self.leaving.push(Leaving { request: id, left, call, until });
        self.effects.push_back(Effect::Send(socket, ClientFrame::Unsubscribe(Unsubscribe { id, room })));
    }

    /// The session may still hold the room: the next connection ends that. One that was in force is in a session
    /// that is known, if there are any; what was not may be in one of which nothing was heard.
    pub(super) fn remember_left(&mut self, left: Left) {
        let is_useless = if left.was_in_force {
            self.config.connect.session.is_none()
        } else {
            self.rooms.get(&left.room).is_some_and(|room| room.wanted)
        };
        if is_useless {
            return;
        }
        if self.left_at(&left.room, left.was_in_force).is_none() && self.left.len() < limits::ROOMS_MAX {
            self.left.push(left);
        }
    }

    fn left_at(&self, room: &RoomName, was_in_force: bool) -> Option<usize> {
        self.left.iter().position(|left| left.was_in_force == was_in_force && left.room == *room)
    }

    /// Takes the room's queued deliveries back, and the losses that were told after them: whoever
    /// reads on from there is told again. Gives the position of the first.
    pub(super) fn retract(&mut self, name: &RoomName) -> Option<Position> {
        let mut first = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Deliver(delivery) if delivery.room == *name => {
                    first.get_or_insert(delivery.position);
                }
                Effect::Gap(gap) if first.is_some() && gap.room == *name => {}
                other => self.effects.push_back(other),
            }
        }
        first
    }

    fn next_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }
}
