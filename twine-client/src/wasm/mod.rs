//! The browser driver: the core on a page's WebSocket, timers and listeners.
//!
//! [`Driver`] is what `npm/src` builds on. JavaScript owns what belongs to the page (the socket, the
//! timer, listeners, promises, the cookie's fetch, storage, page events) and is called through
//! [`Host`]; this module owns the core. Closures that cross from Rust would cost 2 KB. A frame is
//! parsed once, by the browser's `JSON.parse`, and its payload goes back as the object it came as.
//!
//! What crosses costs more than what is done with it, texts most of all. So a message comes in by
//! [`Driver::received`] with its room as a number, and goes out by [`Host::deliver`], and in between
//! nothing but the clock is asked for. All else is read by `decode`, which alone says what is wrong.
//!
//! JavaScript is never called while the core is borrowed: what is to be done drains from the core's
//! queue, one effect after another, so that a callback may call any method of the driver. What it
//! causes joins the queue that is being drained.

mod decode;
mod encode;
mod host;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};

use twine_protocol::{
    ClientFrame, Connect, Epoch, InstanceId, Message, Offset, Pong, Position, RoomName, ServerFrame,
    SessionId,
};
use wasm_bindgen::prelude::*;

use crate::core::{
    CallId, ClosedReason, Config, Core, Delivery, DeliveryId, Effect, Error, Outcome, SocketId, State,
    SubscribeOptions,
};
pub use host::Host;

/// Constant time, and 2.3 KB brotli less than the standard library's allocator.
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

/// A client in a page: the core and what drives it.
#[derive(Debug)]
#[wasm_bindgen]
pub struct Driver {
    host: Host,
    core: RefCell<Core<JsValue>>,
    /// The rooms that have listeners, each at its handle.
    rooms: RefCell<Vec<Option<RoomName>>>,
    /// The app's calls that are not complete, each with what JavaScript knows it by.
    calls: RefCell<Vec<(CallId, JsValue)>>,
    /// The socket that the host has; what is meant for another one is in vain.
    socket: Cell<Option<SocketId>>,
    /// Set where the host is to open it, once all is known that is said with its handshake: whether something may be.
    wanted: Cell<Option<bool>>,
    /// When the host's timer runs.
    timer: Cell<Option<u64>>,
    draining: Cell<bool>,
    /// When the last event came.
    now: Cell<u64>,
    /// The epoch of the last message, which the host knows.
    epoch: RefCell<Option<Epoch>>,
    /// Whether the host knows that there is something to be saved.
    told: Cell<bool>,
}

#[wasm_bindgen]
impl Driver {
    /// A client that waits for [`Driver::connect`]. `seed` is any number that differs between clients;
    /// `session` and `prev` are what an earlier client has left, or something that is no id.
    #[wasm_bindgen(constructor)]
    pub fn new(
        host: Host,
        instance: &str,
        session: &str,
        prev: &str,
        scope: Option<String>,
        token: Option<String>,
        seed: f64,
    ) -> Self {
        let instance = InstanceId::new(instance).ok();
        let prev = InstanceId::new(prev).ok();
        let connect = Connect { session: SessionId::new(session).ok(), instance, prev, scope, token };
        let config = Config { connect, cookie: true, seed: seed.to_bits() };
        Self {
            host,
            core: RefCell::new(Core::new(config)),
            rooms: RefCell::default(),
            calls: RefCell::default(),
            socket: Cell::default(),
            wanted: Cell::default(),
            timer: Cell::default(),
            draining: Cell::default(),
            now: Cell::default(),
            epoch: RefCell::default(),
            told: Cell::default(),
        }
    }

    /// Connects; where the next attempt is being waited for, at once.
    pub fn connect(&self) {
        self.run(Core::connect);
    }

    /// Ends the connection and stays away until [`Driver::connect`].
    pub fn disconnect(&self) {
        self.run(|core, _| core.disconnect());
    }

    /// Tells that the network may be back, or that the page is seen again.
    pub fn wake(&self) {
        self.run(Core::wake);
    }

    /// Tells the hub at once how far the cursors are: the page may be about to go.
    pub fn acknowledge(&self) {
        self.run(Core::acknowledge);
    }

    /// Calls [`Host::store`] with what is to be stored now.
    pub fn save(&self) {
        self.told.set(false);
        let mut core = self.core.borrow_mut();
        let cursors = core.settled(host::now());
        let session = core.session().cloned();
        drop(core);
        let pong = encode::encode(&ClientFrame::Pong(Pong { cursors }));
        self.host.store(session.as_ref().map(SessionId::as_str), &pong);
    }

    /// Takes what an earlier client has stored of a room; what is no position is ignored.
    pub fn restore(&self, room: &str, epoch: &str, offset: f64) {
        let position = host::integer(offset).and_then(|offset| Position::new(epoch, offset).ok());
        if let (Ok(room), Some(position)) = (RoomName::new(room), position) {
            self.core.borrow_mut().restore(&room, position);
        }
    }

    /// Disconnects, and forgets the session and all rooms.
    pub fn forget(&self) {
        self.run(|core, _| core.forget());
    }

    /// Subscribes a room; `call` is given back by [`Host::subscribed`] or [`Host::failed`].
    ///
    /// An `epoch` makes the room start after that position.
    pub fn subscribe(
        &self,
        call: JsValue,
        room: &str,
        epoch: Option<String>,
        offset: f64,
        history: Option<u32>,
        token: Option<String>,
    ) {
        let after = match epoch.map(|epoch| Position::new(&epoch, host::integer(offset).unwrap_or(u64::MAX)))
        {
            Some(Err(_)) => return self.refuse(&call, "bad_position", room),
            Some(Ok(position)) => Some(position),
            None => None,
        };
        let options = SubscribeOptions { after, history, token };
        self.call(call, room, |core, now, room| core.subscribe(now, room, options));
    }

    /// Unsubscribes a room; `call` is given back by [`Host::unsubscribed`] or [`Host::failed`].
    pub fn unsubscribe(&self, call: JsValue, room: &str) {
        self.call(call, room, Core::unsubscribe);
    }

    /// Takes a call of [`Driver::subscribe`] back; it is given back by [`Host::failed`].
    pub fn withdraw(&self, call: &JsValue) {
        let id = self.calls.borrow().iter().find(|(_, known)| known == call).map(|(id, _)| *id);
        if let Some(id) = id {
            self.run(|core, now| core.withdraw(now, id));
        }
    }

    /// Tells whether a room has listeners now: with the first it is delivered, once it is
    /// subscribed; without any it is not read any further.
    ///
    /// While it has any, `handle` stands for it: a small number that is not 0, and no other room's.
    pub fn listening(&self, room: &str, handle: usize, listening: bool) {
        let Ok(name) = RoomName::new(room) else {
            // Once is enough.
            if listening {
                self.refuse(&JsValue::UNDEFINED, "bad_room", room);
            }
            return;
        };
        let mut rooms = self.rooms.borrow_mut();
        while rooms.len() <= handle {
            rooms.push(None);
        }
        if let Some(slot) = rooms.get_mut(handle) {
            *slot = listening.then(|| name.clone());
        }
        drop(rooms);
        let told = self.run(|core, now| {
            if listening {
                core.attach(now, &name)
            } else {
                core.detach(now, &name);
                Ok(())
            }
        });
        if let Err(error) = told {
            self.fail(&JsValue::UNDEFINED, &error);
        }
    }

    /// The socket that [`Host::open`] made is open.
    pub fn opened(&self) {
        self.on_socket(Core::opened);
    }

    /// The socket has got what `JSON.parse` makes of a text, `null` where that is no JSON; or no text.
    ///
    /// `room` is the handle of the room that the frame names, or 0. An `offset` other than 0 says that
    /// this is a `message` in which nothing is wrong; then nothing else of it is read.
    pub fn received(&self, frame: JsValue, room: usize, offset: f64) {
        let name = self.rooms.borrow().get(room).cloned().flatten();
        let offset =
            host::integer(offset).and_then(|offset| Offset::new(offset).ok()).filter(|at| *at > Offset::ZERO);
        self.on_socket(|core, now, socket| {
            let heard = match (name, offset) {
                // Only the page's side has a use for the rest.
                (Some(room), Some(offset)) => Ok(Some(ServerFrame::Message(Message {
                    room,
                    offset,
                    time: 0,
                    id: None,
                    sender: None,
                    data: frame,
                }))),
                _ => decode::decode(frame),
            };
            match heard {
                Ok(Some(frame)) => core.frame(now, socket, frame),
                Ok(None) => core.heard(now, socket),
                Err(fault) => core.garbled(now, socket, fault),
            }
        });
    }

    /// The socket is closed, or could not be opened.
    pub fn closed(&self, code: u16, reason: &str) {
        self.on_socket(|core, now, socket| core.closed(now, socket, code, reason));
    }

    /// The time has come that [`Host::timer`] was given.
    pub fn timer(&self) {
        self.timer.take();
        self.run(Core::timer);
    }

    /// The fetch that [`Host::fetch_cookie`] began is over, whatever came of it.
    #[wasm_bindgen(js_name = cookieSettled)]
    pub fn cookie_settled(&self) {
        self.run(Core::cookie_settled);
    }

    /// The promises are settled that a room's listeners returned from this [`Host::deliver`].
    pub fn settled(&self, room: &str, delivery: u32) {
        if let Ok(room) = RoomName::new(room) {
            self.run(|core, now| core.delivered(now, &room, DeliveryId(delivery)));
        }
    }
}

impl Driver {
    /// Lets the core take an event, and does what it wants done.
    fn run<R>(&self, event: impl FnOnce(&mut Core<JsValue>, u64) -> R) -> R {
        let now = host::now();
        self.now.set(now);
        let result = event(&mut self.core.borrow_mut(), now);
        self.drain();
        result
    }

    fn call(
        &self,
        call: JsValue,
        room: &str,
        begin: impl FnOnce(&mut Core<JsValue>, u64, &RoomName) -> CallId,
    ) {
        match RoomName::new(room) {
            Ok(name) => self.run(|core, now| {
                let id = begin(core, now, &name);
                self.calls.borrow_mut().push((id, call));
            }),
            Err(_) => self.refuse(&call, "bad_room", room),
        }
    }

    /// Does all that is queued, unless that is under way further up the stack.
    fn drain(&self) {
        if self.draining.replace(true) {
            return;
        }
        loop {
            // The borrow ends with this statement, before anything is called.
            let effect = self.core.borrow_mut().poll_effect();
            if let Some(effect) = effect {
                self.perform(effect);
            } else if let Some(early) = self.wanted.take() {
                self.open(early);
            } else {
                break;
            }
        }
        self.draining.set(false);
        self.arm();
        let moved = self.core.borrow_mut().take_moved();
        if moved && !self.told.replace(true) {
            self.host.moved();
        }
    }

    fn perform(&self, effect: Effect<JsValue>) {
        match effect {
            Effect::Deliver(delivery) => self.deliver(delivery),
            Effect::Open { socket, early } => {
                self.socket.set(Some(socket));
                self.wanted.set(Some(early));
            }
            Effect::Send(id, frame) if self.socket.get() == Some(id) => {
                self.host.send(&encode::encode(&frame));
            }
            Effect::Close(id, code) if self.socket.get() == Some(id) => {
                self.socket.take();
                self.wanted.take();
                self.host.close(code.as_u16());
            }
            Effect::Send(..) | Effect::Close(..) => {}
            Effect::FetchCookie => self.host.fetch_cookie(),
            Effect::State(state) => self.tell_state(&state),
            Effect::Gap(gap) => self.host.gap(
                gap.room.as_str(),
                gap.from.epoch.as_str(),
                number(gap.from.offset.get()),
                gap.to.epoch.as_str(),
                number(gap.to.offset.get()),
                gap.count.map(number),
                gap.reason.as_str(),
            ),
            Effect::Error(error) => self.fail(&JsValue::UNDEFINED, &error),
            Effect::Done(id, result) => self.complete(id, result),
        }
    }

    /// Has the host open the socket that is wanted.
    fn open(&self, early: bool) {
        if let Some(id) = self.socket.get()
            && !self.host.open(early)
        {
            self.core.borrow_mut().closed(host::now(), id, 1006, "");
        }
    }

    fn deliver(&self, delivery: Delivery<JsValue>) {
        let Delivery { delivery, room, position, recovered, data, .. } = delivery;
        let known = self.epoch.replace(Some(position.epoch.clone()));
        let epoch = (known.as_ref() != Some(&position.epoch)).then(|| position.epoch.as_str());
        let pending = self.host.deliver(&data, epoch, recovered, delivery.0);
        let mut core = self.core.borrow_mut();
        if pending {
            core.pending(host::now(), &room, delivery);
        } else {
            // The clock costs more than the rest of this: the hub may be told earlier by what the
            // listeners took.
            core.delivered(self.now.get(), &room, delivery);
        }
    }

    fn tell_state(&self, state: &State) {
        let (delay, reason, code, message) = match state {
            State::Reconnecting { delay } => (Some(number(*delay)), None, None, None),
            State::Closed(reason) => match reason {
                ClosedReason::Refused { code, reason: message } => {
                    (None, Some(reason.as_str()), Some(*code), Some(message.as_str()))
                }
                _ => (None, Some(reason.as_str()), None, None),
            },
            _ => (None, None, None, None),
        };
        self.host.state(state.as_str(), delay, reason, code, message);
    }

    fn complete(&self, id: CallId, result: Result<Outcome, Error>) {
        let call = {
            let mut calls = self.calls.borrow_mut();
            let Some(index) = calls.iter().position(|(other, _)| *other == id) else { return };
            calls.swap_remove(index).1
        };
        match result {
            Ok(Outcome::Subscribed { position, recovered }) => {
                self.host.subscribed(
                    &call,
                    position.epoch.as_str(),
                    number(position.offset.get()),
                    recovered,
                );
            }
            Ok(_) => self.host.unsubscribed(&call),
            Err(error) => self.fail(&call, &error),
        }
    }

    /// Tells the error by its code; where the words are the hub's, with those. The client's own are
    /// the page side's, for formatting them here would take another 2 KB.
    fn fail(&self, call: &JsValue, error: &Error) {
        let (detail, room) = match error {
            Error::Refused { message, room, .. } => (Some(message.as_str()), room.as_ref()),
            Error::Garbled { detail } => (Some(detail.as_str()), None),
            Error::Withdrawn { room } => (None, Some(room)),
            _ => (None, None),
        };
        self.host.failed(call, error.code(), detail, error.is_retryable(), room.map(RoomName::as_str));
    }

    /// A call that the core never sees, since it is not valid.
    fn refuse(&self, call: &JsValue, code: &str, room: &str) {
        self.host.failed(call, code, None, false, Some(room));
    }

    /// Lets the core take an event of the socket that there is.
    fn on_socket(&self, event: impl FnOnce(&mut Core<JsValue>, u64, SocketId)) {
        if let Some(socket) = self.socket.get() {
            self.run(|core, now| event(core, now, socket));
        }
    }

    /// Keeps one timer at the core's deadline. An earlier one may stay: it finds nothing to do.
    fn arm(&self) {
        let deadline = self.core.borrow().deadline();
        let is_early = self.timer.get() <= deadline && self.timer.get().is_some();
        if deadline.is_none() || !is_early {
            self.timer.set(deadline);
            self.host.timer(deadline.map(|at| number(at.saturating_sub(host::now()))));
        }
    }
}

/// Times and offsets stay below 2^53: they are exact as JavaScript numbers.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}
