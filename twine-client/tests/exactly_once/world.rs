//! The core, the model hub, the wire between them, and an app that listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::sample::Index;
use twine_client::core::{
    CallId, Config, Core, DeliveryId, Effect, Error, Outcome, SocketId, State, SubscribeOptions, limits,
};
use twine_protocol::{ClientFrame, Disconnect, ErrorCode, Position, RoomName, ServerFrame, Subscribe};

use crate::hub::{Hub, Peer, Serial, refusal};
use crate::oracle::Oracle;

/// One thing that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// So many frames arrive, both ways.
    Flow(usize),
    /// So many messages arrive at once: the driver does not look in between.
    Burst(usize),
    Publish(usize, usize),
    /// Time passes.
    Tick(u64),
    /// The socket is cut, and the client is told.
    Cut,
    /// The socket is cut, and nobody is told.
    Stall,
    /// The hub starts anew, perhaps from a backup.
    Restart {
        lost: usize,
        forget: bool,
    },
    /// A room goes on in a new epoch, on the connections there are.
    Rotate(usize),
    /// The hub says that it goes.
    Drain,
    /// Retention.
    Delete {
        room: usize,
        keep: usize,
    },
    /// The next subscribe is refused for now.
    Busy,
    /// The next socket can't be opened.
    Unreachable,
    Ping,
    /// A message under way comes twice.
    Repeat(Index),
    /// Two messages under way change places.
    Swap(Index),
    /// A message under way is lost.
    Lose(Index),
    Subscribe {
        room: usize,
        history: Option<u32>,
        /// After one of the positions that the room ever had.
        after: Option<Index>,
    },
    Unsubscribe(usize),
    Attach(usize),
    Detach(usize),
    Connect,
    Disconnect,
    Wake,
    /// The oldest promise of a callback is settled.
    Settle,
    /// The driver stores what the next page has to know.
    Store,
    /// The page is reloaded; after a crash, with what was stored some time ago.
    Reload {
        crash: bool,
    },
    /// What the next callback does.
    Mood(Mood),
}

/// What a callback does while it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mood {
    Detach,
    Reattach,
    Unsubscribe,
    Disconnect,
    /// It returns a promise.
    Pend,
}

pub(crate) struct World {
    config: Config,
    core: Core<Serial>,
    /// What the tab's storage holds.
    stored: Vec<(RoomName, Position)>,
    /// Rooms of the page before, which the hub has not agreed to yet for this one.
    returning: BTreeSet<RoomName>,
    now: u64,
    hub: Hub,
    rooms: Vec<RoomName>,
    wire: Option<Wire>,
    /// Frames of abandoned sockets: they may still arrive.
    debris: VecDeque<(SocketId, ServerFrame<Serial>)>,
    state: State,
    unreachable: bool,
    mood: Option<Mood>,
    /// The subscriptions as the app knows them.
    oracles: BTreeMap<RoomName, Oracle>,
    listening: BTreeSet<RoomName>,
    /// Each room's last request, to know which answer counts.
    asked: BTreeMap<RoomName, u64>,
    calls: BTreeMap<CallId, RoomName>,
}

/// A socket, with what is under way on it.
struct Wire {
    socket: SocketId,
    open: bool,
    /// Neither end hears the other any more.
    stalled: bool,
    peer: Peer,
    to_hub: VecDeque<ClientFrame>,
    to_client: VecDeque<ServerFrame<Serial>>,
}

impl Wire {
    /// Whether a later request for the same room has come with this one.
    fn overtakes(&self, ask: &Subscribe) -> bool {
        self.to_hub.iter().any(|later| match later {
            ClientFrame::Subscribe(later) => later.room == ask.room,
            ClientFrame::Unsubscribe(later) => later.room == ask.room,
            _ => false,
        })
    }
}

impl World {
    pub(crate) fn new(seed: u64, cookie: bool) -> Self {
        let rooms = ["a", "b", "c"].map(|name| RoomName::new(name).expect("it is a name"));
        let config = Config { seed, cookie, ..Config::default() };
        Self {
            core: Core::new(config.clone()),
            config,
            stored: Vec::new(),
            returning: BTreeSet::new(),
            now: 0,
            hub: Hub::default(),
            rooms: rooms.into(),
            wire: None,
            debris: VecDeque::new(),
            state: State::Idle,
            unreachable: false,
            mood: None,
            oracles: BTreeMap::new(),
            listening: BTreeSet::new(),
            asked: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Flow(n) => self.flow(n),
            Step::Burst(n) => {
                for _ in 0..n {
                    if !self.burst_once() {
                        break;
                    }
                }
            }
            Step::Rotate(room) => {
                self.hub.rotate(&self.rooms[room]);
                self.fan_out();
            }
            Step::Publish(room, n) => {
                for _ in 0..n {
                    self.hub.publish(&self.rooms[room]);
                }
                self.fan_out();
            }
            Step::Tick(time) => {
                self.now += time;
                self.core.timer(self.now);
            }
            Step::Cut => self.cut(1006),
            Step::Stall => {
                if let Some(wire) = &mut self.wire {
                    wire.stalled = true;
                    wire.peer = Peer::default();
                }
            }
            Step::Restart { lost, forget } => {
                self.hub.restart(lost, forget);
                self.cut(1012);
            }
            Step::Drain => {
                let notice = Disconnect { code: ErrorCode::Draining, retry: 1_500 };
                self.send(ServerFrame::Disconnect(notice));
            }
            Step::Delete { room, keep } => self.hub.cut(&self.rooms[room], keep),
            Step::Busy => self.hub.busy = true,
            Step::Unreachable => self.unreachable = true,
            Step::Ping => self.send(ServerFrame::Ping),
            Step::Repeat(index) => {
                if let Some((at, queue)) = self.message(index) {
                    queue.insert(at, queue[at].clone());
                }
            }
            Step::Swap(index) => {
                if let Some((at, queue)) = self.message(index)
                    && matches!(queue.get(at + 1), Some(ServerFrame::Message(_)))
                {
                    queue.swap(at, at + 1);
                }
            }
            Step::Lose(index) => {
                if let Some((at, queue)) = self.message(index) {
                    queue.remove(at);
                }
            }
            Step::Subscribe { room, history, after } => self.subscribe(room, history, after),
            Step::Unsubscribe(room) => self.unsubscribe(&self.rooms[room].clone()),
            Step::Attach(room) => self.attach(&self.rooms[room].clone()),
            Step::Detach(room) => self.detach(&self.rooms[room].clone()),
            Step::Connect => self.core.connect(self.now),
            Step::Disconnect => self.core.disconnect(),
            Step::Wake => self.core.wake(self.now),
            Step::Settle => self.settle(),
            Step::Store => self.stored = self.core.settled(self.now),
            Step::Reload { crash } => self.reload(crash),
            Step::Mood(mood) => self.mood = Some(mood),
        }
        self.drain();
    }

    /// The network is well, everybody listens, and each room gets a last message: then all of them
    /// must have been seen.
    pub(crate) fn come_to_rest(&mut self) {
        self.hub.busy = false;
        self.unreachable = false;
        self.mood = None;
        for room in 0..self.rooms.len() {
            self.step(Step::Attach(room));
        }
        self.step(Step::Connect);
        self.rest();
        for room in 0..self.rooms.len() {
            self.step(Step::Publish(room, 1));
        }
        self.rest();
        assert_eq!(self.state, State::Connected);
        for (room, oracle) in &self.oracles {
            oracle.is_current(&self.hub.serials(room));
        }
        assert!(self.calls.is_empty(), "calls without an answer: {:?}", self.calls);
    }

    /// Lets everything that is under way arrive, and time pass until a dead connection is noticed
    /// and replaced; a hub that is well pings meanwhile.
    fn rest(&mut self) {
        for _ in 0..40 {
            self.flow(usize::MAX);
            if let Some(wire) = &self.wire
                && !wire.stalled
            {
                self.send(ServerFrame::Ping);
                self.flow(usize::MAX);
            }
            self.step(Step::Tick(5_000));
        }
    }

    fn flow(&mut self, n: usize) {
        for _ in 0..n {
            if !self.flow_once() {
                return;
            }
        }
    }

    /// One frame arrives; whether there was one.
    fn flow_once(&mut self) -> bool {
        if let Some((socket, frame)) = self.debris.pop_front() {
            self.core.frame(self.now, socket, frame);
            self.drain();
            return true;
        }
        let Some(wire) = self.wire.as_mut().filter(|wire| !wire.stalled) else { return false };
        if !wire.open {
            if std::mem::take(&mut self.unreachable) {
                self.cut(1006);
            } else {
                wire.open = true;
                let socket = wire.socket;
                self.core.opened(self.now, socket);
            }
        } else if let Some(frame) = wire.to_hub.pop_front() {
            match &frame {
                ClientFrame::Subscribe(ask) if wire.overtakes(ask) => {
                    wire.to_client.push_back(refusal(ask.id, ErrorCode::NotSubscribed));
                }
                _ => wire.to_client.extend(self.hub.handle(&mut wire.peer, frame)),
            }
        } else if let Some(frame) = wire.to_client.pop_front() {
            let socket = wire.socket;
            if let ServerFrame::Subscribed(answer) = &frame
                && self.asked.get(&answer.room) == Some(&answer.id)
                && let Some(oracle) = self.oracles.get_mut(&answer.room)
            {
                let position = Position { epoch: answer.epoch.clone(), offset: answer.offset };
                oracle.starts(self.hub.serial_at(&answer.room, &position));
                self.returning.remove(&answer.room);
                oracle.heads(self.hub.serial_at(&answer.room, &answer.head));
                if self.core.cursor(&answer.room) != Some(&position) {
                    oracle.moves();
                }
            }
            self.core.frame(self.now, socket, frame);
        } else {
            return false;
        }
        self.drain();
        true
    }

    fn burst_once(&mut self) -> bool {
        let Some(wire) = self.wire.as_mut().filter(|wire| wire.open && !wire.stalled) else { return false };
        if !matches!(wire.to_client.front(), Some(ServerFrame::Message(_))) {
            return false;
        }
        let Some(frame) = wire.to_client.pop_front() else { return false };
        self.core.frame(self.now, wire.socket, frame);
        true
    }

    /// Does what the core wants done, as a driver does: callbacks may call the core.
    fn drain(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::FetchCookie => self.core.cookie_settled(self.now),
                Effect::Open { socket, .. } => {
                    self.abandon();
                    self.wire = Some(Wire {
                        socket,
                        open: false,
                        stalled: false,
                        peer: Peer::default(),
                        to_hub: VecDeque::new(),
                        to_client: VecDeque::new(),
                    });
                }
                Effect::Send(socket, frame) => {
                    if let ClientFrame::Subscribe(ask) = &frame {
                        self.asked.insert(ask.room.clone(), ask.id);
                    }
                    if let ClientFrame::Pong(pong) = &frame {
                        for (room, cursor) in &pong.cursors {
                            if let Some(oracle) = self.oracles.get(room) {
                                let serial = self.hub.serial_at(room, cursor);
                                oracle.acknowledges(serial, self.now, limits::SETTLE_WAIT);
                            }
                        }
                    }
                    if let Some(wire) = self.wire.as_mut().filter(|wire| wire.socket == socket) {
                        wire.to_hub.push_back(frame);
                    }
                }
                Effect::Close(socket, _) if self.wire.as_ref().is_some_and(|wire| wire.socket == socket) => {
                    self.abandon();
                }
                Effect::Deliver(delivery) => {
                    let log = self.hub.serials(&delivery.room);
                    let oracle = self.oracles.get_mut(&delivery.room).expect("it is subscribed");
                    assert!(self.listening.contains(&delivery.room), "nobody listens");
                    assert_eq!(self.hub.serial_at(&delivery.room, &delivery.position), delivery.data);
                    oracle.sees(delivery.data, delivery.recovered, &log);
                    self.callback(&delivery.room, delivery.delivery, delivery.data);
                }
                Effect::Gap(gap) => {
                    if let Some(oracle) = self.oracles.get_mut(&gap.room) {
                        oracle.loses(self.hub.serial_at(&gap.room, &gap.to), gap.from.epoch != gap.to.epoch);
                    }
                }
                Effect::State(state) => self.state = state,
                Effect::Done(call, result) => {
                    let room = self.calls.remove(&call);
                    // A subscription that never came into force is over when its call has failed.
                    if let Err(Error::AlreadySubscribed { room }) = &result {
                        assert!(self.oracles.contains_key(room), "nobody has subscribed {room}");
                    } else if let (Some(room), Err(_)) = (&room, &result)
                        && self.returning.contains(room)
                        && self.oracles.contains_key(room)
                    {
                        // What was stored stays where it was: the page asks again.
                        let call = self.core.subscribe(self.now, room, SubscribeOptions::default());
                        self.calls.insert(call, room.clone());
                    } else if let (Some(room), Err(_)) = (room, &result)
                        && self.oracles.get(&room).is_some_and(|oracle| !oracle.is_in_force())
                    {
                        self.oracles.remove(&room);
                    } else if let Ok(Outcome::Subscribed { position, .. }) = result {
                        assert!(!position.epoch.is_empty());
                    }
                }
                // A hub that is busy is all that anything goes wrong with by itself.
                Effect::Error(Error::Refused { code: ErrorCode::Unavailable, .. }) | Effect::Close(..) => {}
                other => panic!("nobody has asked for {other:?}"),
            }
        }
    }

    fn callback(&mut self, room: &RoomName, delivery: DeliveryId, serial: Serial) {
        match self.mood.take() {
            None => {}
            Some(Mood::Detach) => self.detach(room),
            Some(Mood::Reattach) => {
                self.detach(room);
                self.attach(room);
            }
            Some(Mood::Unsubscribe) => self.unsubscribe(room),
            Some(Mood::Disconnect) => self.core.disconnect(),
            Some(Mood::Pend) => {
                self.core.pending(self.now, room, delivery);
                if let Some(oracle) = self.oracles.get_mut(room) {
                    oracle.is_pending(serial, delivery, self.now);
                }
                return;
            }
        }
        self.core.delivered(self.now, room, delivery);
    }

    fn subscribe(&mut self, room: usize, history: Option<u32>, after: Option<Index>) {
        let room = self.rooms[room].clone();
        // History asked for again is a wish to see messages twice: no promise then.
        let history = if self.oracles.contains_key(&room) { None } else { history };
        // What was stored would give way to a position that is asked for: another promise.
        let after = after.filter(|_| !self.returning.contains(&room));
        let after = after.and_then(|index| self.hub.any_position(&room, index));
        let oracle = self.oracles.entry(room.clone()).or_default();
        if let Some(after) = &after {
            oracle.asks(self.hub.serial_at(&room, after));
        }
        let options = SubscribeOptions { history, after, ..SubscribeOptions::default() };
        let call = self.core.subscribe(self.now, &room, options);
        self.calls.insert(call, room);
    }

    fn unsubscribe(&mut self, room: &RoomName) {
        self.oracles.remove(room);
        self.returning.remove(room);
        // A crash before this is stored would bring back what was left: no promise then.
        self.stored.retain(|(stored, _)| stored != room);
        let call = self.core.unsubscribe(self.now, room);
        self.calls.insert(call, room.clone());
    }

    fn attach(&mut self, room: &RoomName) {
        self.listening.insert(room.clone());
        self.core.attach(self.now, room).expect("there are few rooms");
    }

    fn detach(&mut self, room: &RoomName) {
        self.listening.remove(room);
        self.core.detach(self.now, room);
    }

    /// Another page takes the place of this one, and wants the same rooms.
    fn reload(&mut self, crash: bool) {
        if !crash {
            self.core.acknowledge(self.now);
            self.drain();
            self.stored = self.core.settled(self.now);
        }
        self.abandon();
        // Nobody is left to hear it.
        self.debris.clear();
        self.calls.clear();
        self.asked.clear();
        self.returning.clear();
        self.core = Core::new(self.config.clone());
        for (room, position) in &self.stored {
            self.core.restore(room, position.clone());
        }
        for (room, oracle) in &mut self.oracles {
            match self.stored.iter().find(|(stored, _)| stored == room) {
                Some((_, position)) if oracle.is_in_force() => {
                    oracle.reloads(self.hub.serial_at(room, position));
                    self.returning.insert(room.clone());
                }
                // What was never stored starts anew; so does what was left and wanted again since.
                _ => *oracle = Oracle::default(),
            }
            let call = self.core.subscribe(self.now, room, SubscribeOptions::default());
            self.calls.insert(call, room.clone());
        }
        for room in &self.listening {
            self.core.attach(self.now, room).expect("there are few rooms");
        }
        if self.state != State::Idle {
            self.core.connect(self.now);
        }
    }

    fn settle(&mut self) {
        for (room, oracle) in &mut self.oracles {
            if let Some(delivery) = oracle.settles() {
                self.core.delivered(self.now, room, delivery);
            }
        }
    }

    fn fan_out(&mut self) {
        if let Some(wire) = self.wire.as_mut().filter(|wire| !wire.stalled) {
            wire.to_client.extend(self.hub.deliver(&mut wire.peer));
        }
    }

    fn send(&mut self, frame: ServerFrame<Serial>) {
        if let Some(wire) = self.wire.as_mut().filter(|wire| wire.open && !wire.stalled) {
            wire.to_client.push_back(frame);
        }
    }

    /// The socket is cut; what is under way to the client is lost, or comes when it is too late.
    fn cut(&mut self, code: u16) {
        if let Some(wire) = &self.wire {
            let socket = wire.socket;
            self.abandon();
            self.core.closed(self.now, socket, code, "");
        }
    }

    fn abandon(&mut self) {
        if let Some(wire) = self.wire.take() {
            self.debris.extend(wire.to_client.into_iter().map(|frame| (wire.socket, frame)));
        }
    }

    /// One of the messages under way to the client.
    fn message(&mut self, index: Index) -> Option<(usize, &mut VecDeque<ServerFrame<Serial>>)> {
        let queue = &mut self.wire.as_mut()?.to_client;
        let messages: Vec<_> = queue
            .iter()
            .enumerate()
            .filter(|(_, frame)| matches!(frame, ServerFrame::Message(_)))
            .map(|(at, _)| at)
            .collect();
        if messages.is_empty() {
            return None;
        }
        Some((messages[index.index(messages.len())], queue))
    }
}
