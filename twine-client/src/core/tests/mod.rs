//! Each transition of the core, event by event. What holds over whole histories is tested against a
//! model hub in `tests/exactly_once`.

mod acknowledging;
mod connection;
mod cursor;
mod listeners;
mod stored;
mod storm;
mod subscribing;

use twine_protocol::{
    ClientFrame, CloseCode, Connected, Disconnect, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap, GapReason,
    Lost, Message, Offset, Position, RoomName, ServerFrame, SessionId, Subscribe, Subscribed, Unsubscribed,
};

use super::*;

/// A core at a time, and what it did last.
struct Bench {
    core: Core<u32>,
    now: u64,
    /// What was said on the way, and is still to be handed out.
    early: Vec<Effect<u32>>,
    /// What was handed out as [`Bench::effects`].
    handed: Vec<(Position, DeliveryId)>,
}

impl Bench {
    fn new() -> Self {
        let core = Core::new(Config { seed: 1, ..Config::default() });
        Self { core, now: 1_000_000, early: Vec::new(), handed: Vec::new() }
    }

    /// Connected, with the greeting's effects taken.
    fn online() -> (Self, SocketId) {
        let mut bench = Self::new();
        bench.core.connect(bench.now);
        let socket = bench.get_online();
        (bench, socket)
    }

    fn get_online(&mut self) -> SocketId {
        self.get_online_with(&[])
    }

    /// From the request for a socket to `connected`; what is sent behind `connect` stays queued, as do the
    /// effects that follow.
    fn get_online_with(&mut self, rooms: &[&str]) -> SocketId {
        self.get_online_as(Some("s1"), rooms)
    }

    /// The same, in this session or in none.
    fn get_online_as(&mut self, session: Option<&str>, rooms: &[&str]) -> SocketId {
        let socket = self.open();
        let mut sent = self.effects();
        assert!(matches!(sent.remove(0), Effect::Send(_, ClientFrame::Connect(_))));
        self.early = sent;
        self.core.frame(self.now, socket, connected(session, rooms));
        assert_eq!(self.core.poll_effect(), Some(Effect::State(State::Connected)));
        socket
    }

    /// From the request for a socket to its opening; what is sent on it stays queued.
    fn open(&mut self) -> SocketId {
        let mut effects = self.effects();
        let socket = opened_socket(&effects);
        effects.retain(|effect| matches!(effect, Effect::Send(to, _) if *to == socket));
        self.early = effects;
        self.core.opened(self.now, socket);
        socket
    }

    /// With one listener on `chat`, which was asked for, and not `connected` yet.
    fn asking() -> (Self, SocketId, Subscribe) {
        let mut bench = Self::new();
        bench.core.attach(bench.now, &room("chat")).unwrap();
        bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
        bench.core.connect(bench.now);
        let socket = bench.open();
        let ask = asked(&bench.effects());
        (bench, socket, ask)
    }

    /// A message arrives, and its listeners return.
    fn deliver(&mut self, socket: SocketId, offset: u64) {
        let effects = self.frame(socket, message(offset));
        assert!(matches!(effects[..], [Effect::Deliver(_)]), "{effects:?}");
        self.through(offset);
    }

    /// The listeners are through with the last delivery of a message.
    fn through(&mut self, offset: u64) {
        let delivery = self.last_delivery(offset);
        self.core.delivered(self.now, &room("chat"), delivery);
    }

    /// The listeners of the last delivery of a message return a promise.
    fn promise(&mut self, offset: u64) {
        let delivery = self.last_delivery(offset);
        self.core.pending(self.now, &room("chat"), delivery);
    }

    fn last_delivery(&self, offset: u64) -> DeliveryId {
        self.handed.iter().rev().find(|(position, _)| *position == at("e1", offset)).unwrap().1
    }

    /// Time passes; what is due is done.
    fn tick(&mut self, time: u64) -> Vec<Effect<u32>> {
        self.now += time;
        self.core.timer(self.now);
        self.effects()
    }

    /// Online, with one listener on `chat`, subscribed at `e1:offset`.
    fn subscribed(offset: u64) -> (Self, SocketId) {
        let (mut bench, socket) = Self::online();
        bench.core.attach(bench.now, &room("chat")).unwrap();
        bench.core.subscribe(bench.now, &room("chat"), SubscribeOptions::default());
        let ask = asked(&bench.effects());
        bench.core.frame(bench.now, socket, subscribed(ask.id, "e1", offset, ("e1", offset), None));
        assert!(matches!(bench.effects()[..], [Effect::Done(_, Ok(Outcome::Subscribed { .. }))]));
        (bench, socket)
    }

    fn effects(&mut self) -> Vec<Effect<u32>> {
        let effects = std::iter::from_fn(|| self.core.poll_effect());
        let effects: Vec<_> = std::mem::take(&mut self.early).into_iter().chain(effects).collect();
        for effect in &effects {
            if let Effect::Deliver(delivery) = effect {
                self.handed.push((delivery.position.clone(), delivery.delivery));
            }
        }
        effects
    }

    fn frame(&mut self, socket: SocketId, frame: ServerFrame<u32>) -> Vec<Effect<u32>> {
        self.core.frame(self.now, socket, frame);
        self.effects()
    }

    /// The delay that the core announces when it loses its connection; time goes on by it.
    fn wait_for_retry(&mut self) -> u64 {
        let effects = self.effects();
        let delay = effects
            .iter()
            .find_map(|effect| match effect {
                Effect::State(State::Reconnecting { delay }) => Some(*delay),
                _ => None,
            })
            .unwrap_or_else(|| panic!("no reconnecting in {effects:?}"));
        assert_eq!(self.core.deadline(), Some(self.now + delay));
        self.now += delay;
        self.core.timer(self.now);
        delay
    }
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

fn connected(session: Option<&str>, rooms: &[&str]) -> ServerFrame<u32> {
    ServerFrame::Connected(Connected {
        session: session.map(|id| SessionId::new(id).unwrap()),
        resumed: !rooms.is_empty(),
        adopted: false,
        heartbeat: 25_000,
        rooms: rooms.iter().map(|name| room(name)).collect(),
    })
}

fn at(epoch: &str, offset: u64) -> Position {
    Position::new(epoch, offset).unwrap()
}

fn message(offset: u64) -> ServerFrame<u32> {
    ServerFrame::Message(Message {
        room: room("chat"),
        offset: Offset::new(offset).unwrap(),
        time: 0,
        id: None,
        sender: None,
        data: 0,
    })
}

fn subscribed(
    id: u64,
    epoch: &str,
    offset: u64,
    head: (&str, u64),
    recovered: Option<bool>,
) -> ServerFrame<u32> {
    ServerFrame::Subscribed(Subscribed {
        id,
        room: room("chat"),
        epoch: Epoch::new(epoch).unwrap(),
        offset: Offset::new(offset).unwrap(),
        head: at(head.0, head.1),
        recovered,
        reason: None,
        lost: None,
    })
}

fn epoch(next: &str, prev: Position) -> ServerFrame<u32> {
    ServerFrame::Epoch(EpochChange { room: room("chat"), epoch: Epoch::new(next).unwrap(), prev })
}

fn gap(from: Position, to: Position) -> Gap {
    Gap { room: room("chat"), from, to, count: None, reason: GapReason::Expired }
}

fn refusal(id: Option<u64>, code: ErrorCode) -> ServerFrame<u32> {
    ServerFrame::Error(ErrorFrame { id, code, message: String::new() })
}

fn opened_socket(effects: &[Effect<u32>]) -> SocketId {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Open { socket, .. } => Some(*socket),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no socket asked for in {effects:?}"))
}

/// The one `subscribe` among the effects.
fn asked(effects: &[Effect<u32>]) -> Subscribe {
    let asks: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, ClientFrame::Subscribe(frame)) => Some(frame.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(asks.len(), 1, "{effects:?}");
    asks.into_iter().next().unwrap()
}

/// The positions delivered, and whether each counts as recovered.
fn delivered(effects: &[Effect<u32>]) -> Vec<(Position, bool)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver(delivery) => Some((delivery.position.clone(), delivery.recovered)),
            _ => None,
        })
        .collect()
}

fn acked(effects: &[Effect<u32>]) -> Vec<Position> {
    match effects {
        [Effect::Send(_, ClientFrame::Pong(pong))] => {
            pong.cursors.iter().map(|(_, cursor)| cursor.clone()).collect()
        }
        other => panic!("no pong: {other:?}"),
    }
}
