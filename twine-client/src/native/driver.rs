//! The task of a client: it owns the core, the socket and the timer, and nothing else does.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, Sleep};
use twine_protocol::json::{DecodeError, decode_server};
use twine_protocol::{CloseCode, Connect, Data, InstanceId, RoomName};

use super::early::Early;
use super::socket::{Incoming, Way};
use super::subscription::{Dropped, Ended, Event, Generation, QUEUE_MAX};
use super::transport::{Happened, Transport};
use super::{Error, Subscription};
use crate::core::{CallId, ClosedReason, Config, Core, DeliveryId, Effect, Outcome, State, SubscribeOptions};

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Subscribe {
        room: RoomName,
        options: SubscribeOptions,
        reply: oneshot::Sender<Result<Subscription, Error>>,
    },
    Unsubscribe {
        room: RoomName,
        reply: oneshot::Sender<()>,
    },
    Wake,
    Disconnect {
        reply: oneshot::Sender<()>,
    },
}

pub(super) struct Driver {
    core: Core<Data>,
    /// The core's clock counts from here. It stands still while an event waits for its reader.
    epoch: Instant,
    way: Way,
    transport: Transport,
    /// Sockets that are saying goodbye.
    closing: JoinSet<()>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to; it may be earlier than the core's deadline.
    armed: Option<u64>,
    commands: mpsc::Receiver<Command>,
    dropped: mpsc::UnboundedReceiver<(RoomName, Generation)>,
    dropped_sender: mpsc::UnboundedSender<(RoomName, Generation)>,
    readers: BTreeMap<RoomName, Reader>,
    n_generations: u64,
    calls: BTreeMap<CallId, Call>,
    /// The event whose reader has no room for it: until it has, nothing is read.
    blocked: Option<Blocked>,
    states: watch::Sender<State>,
    /// Told of the first attempt's outcome.
    first: Option<oneshot::Sender<Result<(), Error>>>,
    /// What the last attempt failed with.
    problem: String,
    /// Who waits for the end.
    goodbyes: Vec<oneshot::Sender<()>>,
}

/// The driver's end of a [`Subscription`].
struct Reader {
    generation: Generation,
    events: mpsc::Sender<Event>,
    ended: Ended,
}

enum Call {
    Subscribe {
        events: mpsc::Receiver<Event>,
        ended: Ended,
        dropped: Dropped,
        reply: oneshot::Sender<Result<Subscription, Error>>,
    },
    Unsubscribe(oneshot::Sender<()>),
}

struct Blocked {
    room: RoomName,
    events: mpsc::Sender<Event>,
    event: Event,
    /// For a message: what the core is told when its reader has it.
    delivery: Option<DeliveryId>,
    since: Instant,
}

impl Driver {
    pub(super) fn new(
        way: Way,
        token: Option<String>,
        commands: mpsc::Receiver<Command>,
        states: watch::Sender<State>,
        first: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Self {
        let (dropped_sender, dropped) = mpsc::unbounded_channel();
        let config = Config {
            // The session is kept in memory, for as long as this client lives.
            connect: Connect { instance: instance(), token, ..Connect::default() },
            // No cookie jar: recovery is by the client's own cursors.
            cookie: false,
            // A seed that is not random only spreads retries less well.
            seed: getrandom::u64().unwrap_or(0),
        };
        Self {
            core: Core::new(config),
            epoch: Instant::now(),
            way,
            transport: Transport::None,
            closing: JoinSet::new(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: None,
            commands,
            dropped,
            dropped_sender,
            readers: BTreeMap::new(),
            n_generations: 0,
            calls: BTreeMap::new(),
            blocked: None,
            states,
            first,
            problem: String::new(),
            goodbyes: Vec::new(),
        }
    }

    /// Runs until the core is closed, by the app or by the hub.
    pub(super) async fn run(mut self) {
        self.core.connect(self.now());
        while !self.drain() {
            self.arm();
            let reading = self.blocked.is_none();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => self.core.disconnect(),
                },
                Some((room, generation)) = self.dropped.recv() => self.on_dropped(&room, generation),
                // While an event waits, time stands still for the core.
                () = &mut self.timer, if reading && self.armed.is_some() => {
                    self.armed = None;
                    self.core.timer(self.now());
                }
                happened = self.transport.next(reading) => self.on_transport(happened),
                () = room_for(self.blocked.as_ref()), if !reading => self.unblock(),
                Some(_) = self.closing.join_next() => {}
            }
        }
        while self.closing.join_next().await.is_some() {}
        for goodbye in self.goodbyes {
            // Whoever asked may have gone.
            let _ = goodbye.send(());
        }
    }

    fn now(&self) -> u64 {
        let now = self.blocked.as_ref().map_or_else(Instant::now, |blocked| blocked.since);
        u64::try_from(now.duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the event that waits. The time that it has waited did not pass for the core: neither
    /// the hub's silence nor an answer that was not read counts as late.
    fn resume(&mut self) -> Option<Blocked> {
        let blocked = self.blocked.take()?;
        self.epoch += blocked.since.elapsed();
        Some(blocked)
    }

    /// Sets the timer where the core's deadline is earlier than what it is set to.
    fn arm(&mut self) {
        if let Some(deadline) = self.core.deadline()
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.armed = Some(deadline);
            self.timer.as_mut().reset(self.epoch + Duration::from_millis(deadline));
        }
    }

    /// Does what the core wants done, until an event has to wait. Says whether the core is closed.
    fn drain(&mut self) -> bool {
        while self.blocked.is_none()
            && let Some(effect) = self.core.poll_effect()
        {
            match effect {
                Effect::Open { socket, early } => {
                    self.transport = Transport::Wanted(socket, Early::new(early));
                }
                Effect::Send(socket, frame) => self.transport.send(socket, &frame),
                Effect::Close(_, code) => self.close(code),
                Effect::Deliver(message) => {
                    let (room, delivery) = (message.room.clone(), message.delivery);
                    self.hand_over(room, Event::Message(message), Some(delivery));
                }
                Effect::Gap(gap) => self.hand_over(gap.room.clone(), Event::Gap(gap), None),
                Effect::State(state) => self.on_state(state),
                Effect::Error(error) => self.on_error(error),
                Effect::Done(call, result) => self.on_done(call, result),
                // The native driver has no cookies.
                Effect::FetchCookie => self.core.cookie_settled(self.now()),
            }
        }
        self.transport.open(&self.way);
        self.blocked.is_none() && matches!(*self.states.borrow(), State::Closed(_))
    }

    // Towards the app.

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Subscribe { room, options, reply } => self.subscribe(room, options, reply),
            Command::Unsubscribe { room, reply } => {
                self.forget(&room);
                let call = self.core.unsubscribe(self.now(), &room);
                self.calls.insert(call, Call::Unsubscribe(reply));
            }
            Command::Wake => self.core.wake(self.now()),
            Command::Disconnect { reply } => {
                self.goodbyes.push(reply);
                // What they have not read stays unread: no event waits for them any more.
                self.resume();
                self.readers.clear();
                self.core.disconnect();
            }
        }
    }

    fn subscribe(
        &mut self,
        room: RoomName,
        options: SubscribeOptions,
        reply: oneshot::Sender<Result<Subscription, Error>>,
    ) {
        if let Some(reader) = self.readers.get(&room) {
            let generation = reader.generation;
            if !reader.events.is_closed() && !self.is_abandoned(generation) {
                // Whoever asked may have gone.
                let _ = reply.send(Err(Error::AlreadySubscribed { room }));
                return;
            }
            // Its notice is still under way.
            self.on_dropped(&room, generation);
        }
        if let Err(error) = self.core.attach(self.now(), &room) {
            let _ = reply.send(Err(Error::Call(error)));
            return;
        }
        self.n_generations += 1;
        let generation = Generation(self.n_generations);
        let (sender, events) = mpsc::channel(QUEUE_MAX);
        let ended = Ended::default();
        self.readers.insert(room.clone(), Reader { generation, events: sender, ended: ended.clone() });
        let call = self.core.subscribe(self.now(), &room, options);
        let dropped = Dropped { room, generation, notices: self.dropped_sender.clone() };
        self.calls.insert(call, Call::Subscribe { events, ended, dropped, reply });
    }

    /// Whether the app has dropped its call for this subscription before it was complete.
    fn is_abandoned(&self, generation: Generation) -> bool {
        self.calls.values().any(|call| match call {
            Call::Subscribe { dropped, reply, .. } => dropped.generation == generation && reply.is_closed(),
            Call::Unsubscribe(_) => false,
        })
    }

    fn on_done(&mut self, call: CallId, result: Result<Outcome, crate::core::Error>) {
        match (self.calls.remove(&call), result) {
            (
                Some(Call::Subscribe { events, ended, dropped, reply }),
                Ok(Outcome::Subscribed { position, recovered }),
            ) => {
                let subscription = Subscription::new(position, recovered, events, ended, dropped);
                // Whoever asked may have gone: then the subscription is dropped, and ends.
                let _ = reply.send(Ok(subscription));
            }
            (Some(Call::Subscribe { dropped, reply, .. }), Err(error)) => {
                // Another one may have taken its place meanwhile.
                if self.is_current(&dropped.room, dropped.generation) {
                    self.forget(&dropped.room);
                }
                let _ = reply.send(Err(match error {
                    crate::core::Error::Closed => Error::Closed(self.closed_reason()),
                    error => Error::Call(error),
                }));
            }
            (Some(Call::Unsubscribe(reply)), _) => {
                let _ = reply.send(());
            }
            // A subscription that was dropped: nobody waits.
            _ => {}
        }
    }

    /// Queues an event for the room's reader, or makes it wait.
    fn hand_over(&mut self, room: RoomName, event: Event, delivery: Option<DeliveryId>) {
        let Some(reader) = self.readers.get(&room) else { return };
        match reader.events.try_send(event) {
            Ok(()) => {
                if let Some(delivery) = delivery {
                    self.core.delivered(self.now(), &room, delivery);
                }
            }
            Err(mpsc::error::TrySendError::Full(event)) => {
                let (events, since) = (reader.events.clone(), Instant::now());
                self.blocked = Some(Blocked { room, events, event, delivery, since });
            }
            // Its notice is under way.
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    /// The reader of the waiting event has room, or is gone.
    fn unblock(&mut self) {
        if let Some(Blocked { room, event, delivery, .. }) = self.resume() {
            self.hand_over(room, event, delivery);
        }
    }

    /// The app has dropped a subscription.
    fn on_dropped(&mut self, room: &RoomName, generation: Generation) {
        if self.is_current(room, generation) {
            self.forget(room);
            let _nobody_waits = self.core.unsubscribe(self.now(), room);
        }
    }

    fn is_current(&self, room: &RoomName, generation: Generation) -> bool {
        self.readers.get(room).is_some_and(|reader| reader.generation == generation)
    }

    /// Ends the room's reader, and what waits for it.
    fn forget(&mut self, room: &RoomName) {
        self.readers.remove(room);
        if self.blocked.as_ref().is_some_and(|blocked| blocked.room == *room) {
            self.resume();
        }
        self.core.detach(self.now(), room);
    }

    fn on_state(&mut self, state: State) {
        let outcome = match &state {
            State::Connected => Some(Ok(())),
            State::Reconnecting { .. } => Some(Err(Error::Connect { problem: self.problem.clone() })),
            State::Closed(reason) => Some(Err(Error::Closed(reason.clone()))),
            _ => None,
        };
        if let Some(outcome) = outcome
            && let Some(first) = self.first.take()
        {
            // Whoever asked may have gone.
            let _ = first.send(outcome);
        }
        if let State::Closed(reason @ ClosedReason::Refused { .. }) = &state {
            for reader in self.readers.values() {
                reader.ended.set(Error::Closed(reason.clone()));
            }
        }
        tracing::debug!(state = state.as_str(), problem = self.problem, "connection");
        self.states.send_replace(state);
    }

    fn on_error(&mut self, error: crate::core::Error) {
        tracing::warn!(%error, "the hub reports an error");
        // A room that was in force and is refused for good, at a reconnection.
        if let crate::core::Error::Refused { room: Some(room), .. } = &error
            && !error.is_retryable()
            && let Some(reader) = self.readers.get(room)
        {
            let (room, ended) = (room.clone(), reader.ended.clone());
            ended.set(Error::Call(error));
            self.forget(&room);
        }
    }

    fn closed_reason(&self) -> ClosedReason {
        match &*self.states.borrow() {
            State::Closed(reason) => reason.clone(),
            _ => ClosedReason::Disconnected,
        }
    }

    // Towards the hub.

    fn on_transport(&mut self, happened: Happened) {
        let now = self.now();
        match happened {
            Happened::Opened(socket, stream) => {
                self.transport = Transport::Open(socket, stream);
                self.core.opened(now, socket);
            }
            Happened::Failed(socket, error) => {
                self.transport = Transport::None;
                self.problem = error.to_string();
                self.core.closed(now, socket, 1006, &self.problem);
            }
            Happened::Said(socket, Incoming::Text(text)) => match decode_server(&text) {
                Ok(frame) => self.core.frame(now, socket, frame),
                // Of a later version.
                Err(DecodeError::UnknownType { .. }) => self.core.heard(now, socket),
                Err(error) => self.core.garbled(now, socket, &error.to_string()),
            },
            Happened::Said(socket, Incoming::Alive) => self.core.heard(now, socket),
            Happened::Said(socket, Incoming::Alien) => self.core.garbled(now, socket, "a binary frame"),
            Happened::Said(socket, Incoming::Closed { code, reason }) => {
                if let Transport::Open(_, stream) = std::mem::replace(&mut self.transport, Transport::None) {
                    self.closing.spawn(stream.answer_close());
                }
                self.problem = format!("closed with {code} {reason}");
                self.core.closed(now, socket, code, &reason);
            }
        }
    }

    fn close(&mut self, code: CloseCode) {
        match std::mem::replace(&mut self.transport, Transport::None) {
            Transport::Open(_, stream) => {
                self.closing.spawn(stream.close(code));
            }
            // An attempt that takes too long, or is not wanted any more, is dropped.
            Transport::Opening(..) => "no answer in time".clone_into(&mut self.problem),
            Transport::None | Transport::Wanted(..) => {}
        }
    }
}

/// A name for this client; without one, a session that hangs on a dead connection is copied, not taken over.
fn instance() -> Option<InstanceId> {
    let random = u128::from(getrandom::u64().ok()?) << 64 | u128::from(getrandom::u64().ok()?);
    InstanceId::new(&format!("{random:032x}")).ok()
}

/// The waiting event's reader has room for it, or is gone.
async fn room_for(blocked: Option<&Blocked>) {
    match blocked {
        // The permit is given back at once, and taken again by the only sender there is.
        Some(blocked) => drop(blocked.events.reserve().await),
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
