//! The browser driver: the core on a page's WebSocket, timers and listeners.
//!
//! [`Driver`] is what `npm/src` builds on. JavaScript owns what belongs to the page (listeners,
//! promises, the cookie's fetch, page events) and is called through [`Host`]; this module owns the
//! core, the socket and the timer. A frame is parsed once, by the browser's `JSON.parse`, and its
//! payload goes back as the object it came as.
//!
//! JavaScript is never called while the core is borrowed: what is to be done drains from the core's
//! queue, one effect after another, so that a callback may call any method of the driver. What it
//! causes joins the queue that is being drained.

mod decode;
mod encode;
mod host;
mod socket;
#[cfg(test)]
mod tests;
mod timer;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use twine_protocol::{Connect, InstanceId, Position, RoomName};
use wasm_bindgen::prelude::*;

use crate::core::{
    CallId, ClosedReason, Config, Core, Delivery, Effect, Error, Outcome, SocketId, State, SubscribeOptions,
};
pub use host::Host;
use socket::{Event, Socket};
use timer::Timer;

/// Constant time, and 2.3 KB brotli less than the standard library's allocator.
#[global_allocator]
static ALLOCATOR: rlsf::SmallGlobalTlsf = rlsf::SmallGlobalTlsf::new();

/// A client in a page: the core and what drives it.
#[derive(Debug)]
#[wasm_bindgen]
pub struct Driver(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    this: Weak<Inner>,
    host: Host,
    core: RefCell<Core<JsValue>>,
    /// The app's calls that are not complete, each with what JavaScript knows it by.
    calls: RefCell<Vec<(CallId, JsValue)>>,
    socket: RefCell<Option<Socket>>,
    timer: RefCell<Option<Timer>>,
    draining: Cell<bool>,
}

#[wasm_bindgen]
impl Driver {
    /// A client that waits for [`Driver::connect`]. `seed` is any number that differs between clients.
    #[wasm_bindgen(constructor)]
    pub fn new(host: Host, instance: &str, scope: Option<String>, token: Option<String>, seed: f64) -> Self {
        let connect =
            Connect { instance: InstanceId::new(instance).ok(), scope, token, ..Connect::default() };
        let config = Config { connect, cookie: true, seed: seed.to_bits() };
        Self(Rc::new_cyclic(|this| Inner {
            this: this.clone(),
            host,
            core: RefCell::new(Core::new(config)),
            calls: RefCell::default(),
            socket: RefCell::default(),
            timer: RefCell::default(),
            draining: Cell::default(),
        }))
    }

    /// Connects; where the next attempt is being waited for, at once.
    pub fn connect(&self) {
        self.0.run(Core::connect);
    }

    /// Ends the connection and stays away until [`Driver::connect`].
    pub fn disconnect(&self) {
        self.0.run(|core, _| core.disconnect());
    }

    /// Tells that the network may be back, or that the page is seen again.
    pub fn wake(&self) {
        self.0.run(Core::wake);
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
            Some(Err(_)) => return self.0.refuse(&call, "bad_position", room),
            Some(Ok(position)) => Some(position),
            None => None,
        };
        let options = SubscribeOptions { after, history, token };
        self.0.call(call, room, |core, now, room| core.subscribe(now, room, options));
    }

    /// Unsubscribes a room; `call` is given back by [`Host::unsubscribed`] or [`Host::failed`].
    pub fn unsubscribe(&self, call: JsValue, room: &str) {
        self.0.call(call, room, Core::unsubscribe);
    }

    /// Takes a call of [`Driver::subscribe`] back; it is given back by [`Host::failed`].
    pub fn withdraw(&self, call: &JsValue) {
        let id = self.0.calls.borrow().iter().find(|(_, known)| known == call).map(|(id, _)| *id);
        if let Some(id) = id {
            self.0.run(|core, now| core.withdraw(now, id));
        }
    }

    /// Tells whether a room has listeners now: with the first it is delivered, once it is
    /// subscribed; without any it is not read any further.
    pub fn listening(&self, room: &str, listening: bool) {
        let Ok(name) = RoomName::new(room) else {
            // Once is enough.
            if listening {
                self.0.refuse(&JsValue::UNDEFINED, "bad_room", room);
            }
            return;
        };
        let told = self.0.run(|core, now| {
            if listening {
                core.attach(now, &name)
            } else {
                core.detach(now, &name);
                Ok(())
            }
        });
        if let Err(error) = told {
            self.0.fail(&JsValue::UNDEFINED, &error);
        }
    }

    /// The fetch that [`Host::fetch_cookie`] began is over, whatever came of it.
    #[wasm_bindgen(js_name = cookieSettled)]
    pub fn cookie_settled(&self) {
        self.0.run(Core::cookie_settled);
    }

    /// The promises that a message's listeners returned are settled.
    pub fn settled(&self, room: &str, epoch: &str, offset: f64) {
        if let (Ok(room), Ok(position)) =
            (RoomName::new(room), Position::new(epoch, host::integer(offset).unwrap_or(u64::MAX)))
        {
            self.0.run(|core, now| core.delivered(now, &room, &position));
        }
    }
}

impl Inner {
    /// Lets the core take an event, and does what it wants done.
    fn run<R>(&self, event: impl FnOnce(&mut Core<JsValue>, u64) -> R) -> R {
        let result = event(&mut self.core.borrow_mut(), host::now());
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
            let Some(effect) = effect else { break };
            self.perform(effect);
        }
        self.draining.set(false);
        self.arm();
    }

    fn perform(&self, effect: Effect<JsValue>) {
        match effect {
            Effect::Deliver(delivery) => self.deliver(delivery),
            Effect::Send(id, frame) => self.on_socket(id, |socket| socket.send(&encode::encode(&frame))),
            Effect::Open(id) => self.open(id),
            Effect::Close(id, code) => {
                self.on_socket(id, |socket| socket.close(code));
                self.socket.take();
            }
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

    fn deliver(&self, delivery: Delivery<JsValue>) {
        let Delivery { room, position, recovered, data, .. } = delivery;
        let pending = self.host.deliver(&data, position.epoch.as_str(), recovered);
        let mut core = self.core.borrow_mut();
        if pending {
            core.pending(host::now(), &room, &position);
        } else {
            core.delivered(host::now(), &room, &position);
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

    fn open(&self, id: SocketId) {
        let this = self.this.clone();
        let on_event = move |event: Event| {
            // The page may have let go of the client.
            if let Some(this) = this.upgrade() {
                this.run(|core, now| match event {
                    Event::Opened => core.opened(now, id),
                    Event::Text(text) => match decode::decode(&text) {
                        Ok(Some(frame)) => core.frame(now, id, frame),
                        Ok(None) => core.heard(now, id),
                        Err(fault) => core.garbled(now, id, fault),
                    },
                    Event::Binary => core.garbled(now, id, "a binary frame"),
                    Event::Closed(code, reason) => core.closed(now, id, code, &reason),
                });
            }
        };
        match self.host.open() {
            Some(socket) => drop(self.socket.replace(Some(Socket::new(id, socket, on_event)))),
            None => self.core.borrow_mut().closed(host::now(), id, 1006, ""),
        }
    }

    fn on_socket(&self, id: SocketId, act: impl FnOnce(&Socket)) {
        if let Some(socket) = self.socket.borrow().as_ref().filter(|socket| socket.id() == id) {
            act(socket);
        }
    }

    /// Keeps one timer at the core's deadline. An earlier one may stay: it finds nothing to do.
    fn arm(&self) {
        let deadline = self.core.borrow().deadline();
        let mut timer = self.timer.borrow_mut();
        match deadline {
            None => *timer = None,
            Some(at) if timer.as_ref().is_some_and(|timer| timer.at() <= at) => {}
            Some(at) => {
                let this = self.this.clone();
                *timer = Some(Timer::new(at, at.saturating_sub(host::now()), move || {
                    if let Some(this) = this.upgrade() {
                        this.timer.take();
                        this.run(Core::timer);
                    }
                }));
            }
        }
    }
}

/// Times and offsets stay below 2^53: they are exact as JavaScript numbers.
#[allow(clippy::cast_precision_loss)]
fn number(value: u64) -> f64 {
    value as f64
}
