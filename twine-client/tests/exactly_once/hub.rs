//! A hub as simple as its promises: rooms are lists, a subscriber is a place in one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::sample::Index;
use twine_protocol::{
    ClientFrame, Connected, Epoch, EpochChange, ErrorCode, ErrorFrame, Gap, GapReason, Lost, Message, Offset,
    Position, RoomName, ServerFrame, SessionId, Subscribe, Subscribed, Unsubscribed,
};

/// A message's payload: counted from 1 in its room, over all epochs, whatever becomes of the log.
pub(crate) type Serial = u64;

#[derive(Default)]
pub(crate) struct Hub {
    logs: BTreeMap<RoomName, Log>,
    n_epochs: u32,
    /// Refuse the next subscribe as `unavailable`.
    pub(crate) busy: bool,
}

/// What the hub knows of one connection: a place in each room it subscribes.
#[derive(Default)]
pub(crate) struct Peer {
    places: BTreeMap<RoomName, Place>,
}

struct Log {
    eras: Vec<Era>,
    /// What retention has deleted: everything at or before.
    cut: Place,
    /// The serial at each position there ever was. No position is ever given to another message.
    serials: BTreeMap<Position, Serial>,
    next: Serial,
}

struct Era {
    epoch: Epoch,
    messages: Vec<Serial>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    era: usize,
    offset: usize,
}

impl Hub {
    pub(crate) fn publish(&mut self, room: &RoomName) {
        self.log(room).publish();
    }

    /// The room goes on in a new epoch.
    pub(crate) fn rotate(&mut self, room: &RoomName) {
        let epoch = self.new_epoch();
        self.log(room).open(epoch);
    }

    /// Starts anew, from a backup that lacks the last `lost` messages and, with `forget`, the last epoch.
    pub(crate) fn restart(&mut self, lost: usize, forget: bool) {
        let names: Vec<_> = self.logs.keys().cloned().collect();
        for name in names {
            let epoch = self.new_epoch();
            let log = self.log(&name);
            if forget && log.eras.len() > 1 {
                log.eras.pop();
            }
            if let Some(era) = log.eras.last_mut() {
                era.messages.truncate(era.messages.len().saturating_sub(lost));
            }
            log.cut = log.cut.min(log.head());
            log.open(epoch);
        }
    }

    /// Retention deletes all but the last `keep` messages of the room's present epoch.
    pub(crate) fn cut(&mut self, room: &RoomName, keep: usize) {
        let log = self.log(room);
        let head = log.head();
        log.cut = log.cut.max(Place { era: head.era, offset: head.offset.saturating_sub(keep) });
    }

    /// Answers a frame, and goes on delivering.
    pub(crate) fn handle(&mut self, peer: &mut Peer, frame: ClientFrame) -> Vec<ServerFrame<Serial>> {
        let mut answers = match frame {
            ClientFrame::Connect(_) => vec![ServerFrame::Connected(Connected {
                session: Some(SessionId::new("s").expect("it is short and plain")),
                resumed: false,
                adopted: false,
                heartbeat: 25_000,
                rooms: Vec::new(),
            })],
            ClientFrame::Subscribe(ask) => vec![self.subscribe(peer, ask)],
            ClientFrame::Unsubscribe(ask) => vec![match peer.places.remove(&ask.room) {
                Some(_) => ServerFrame::Unsubscribed(Unsubscribed { id: ask.id, room: ask.room }),
                None => refusal(ask.id, ErrorCode::NotSubscribed),
            }],
            _ => Vec::new(),
        };
        answers.extend(self.deliver(peer));
        answers
    }

    /// Everything that the peer's places have not reached yet.
    pub(crate) fn deliver(&mut self, peer: &mut Peer) -> Vec<ServerFrame<Serial>> {
        let mut frames = Vec::new();
        for (room, place) in &mut peer.places {
            let log = self.logs.get(room).expect("a place is in a log");
            while let Some(frame) = log.advance(room, place) {
                frames.push(frame);
            }
        }
        frames
    }

    /// The serial of the last message at or before this position.
    pub(crate) fn serial_at(&self, room: &RoomName, position: &Position) -> Serial {
        self.logs[room].serials[position]
    }

    /// One of the positions that the room ever had.
    pub(crate) fn any_position(&self, room: &RoomName, index: Index) -> Option<Position> {
        let serials = &self.logs.get(room)?.serials;
        serials.keys().nth(index.index(serials.len())).cloned()
    }

    /// The serials that are in the room's log, deleted or not.
    pub(crate) fn serials(&self, room: &RoomName) -> BTreeSet<Serial> {
        self.logs
            .get(room)
            .into_iter()
            .flat_map(|log| &log.eras)
            .flat_map(|era| &era.messages)
            .copied()
            .collect()
    }

    fn subscribe(&mut self, peer: &mut Peer, ask: Subscribe) -> ServerFrame<Serial> {
        if std::mem::take(&mut self.busy) {
            return refusal(ask.id, ErrorCode::Unavailable);
        }
        let live = peer.places.get(&ask.room).copied();
        let log = self.log(&ask.room);
        let head = log.head();
        let mut answer = Subscribed {
            id: ask.id,
            room: ask.room.clone(),
            epoch: log.eras[head.era].epoch.clone(),
            offset: Offset::ZERO,
            head: log.position(head),
            recovered: None,
            reason: None,
            lost: None,
        };
        let mut place = match &ask.after {
            None => live.unwrap_or(head),
            Some(after) => {
                let (place, reason) = log.resolve(after);
                answer.recovered = Some(reason.is_none());
                answer.reason = reason;
                if reason == Some(GapReason::Expired) {
                    answer.lost = Some(Lost { from: after.clone(), to: log.position(place), count: None });
                }
                place
            }
        };
        if let Some(history) = ask.history {
            let history = usize::try_from(history).expect("it is small");
            let before = Place { era: head.era, offset: head.offset.saturating_sub(history) };
            place = place.min(before.max(log.cut));
        }
        let position = log.position(place);
        answer.epoch = position.epoch;
        answer.offset = position.offset;
        peer.places.insert(ask.room, place);
        ServerFrame::Subscribed(answer)
    }

    fn log(&mut self, room: &RoomName) -> &mut Log {
        if !self.logs.contains_key(room) {
            let mut log =
                Log { eras: Vec::new(), cut: Place { era: 0, offset: 0 }, serials: BTreeMap::new(), next: 1 };
            log.open(self.new_epoch());
            self.logs.insert(room.clone(), log);
        }
        self.logs.get_mut(room).expect("it was just put there")
    }

    /// Later epochs sort higher, but for every fifth: a clock was set back.
    fn new_epoch(&mut self) -> Epoch {
        self.n_epochs += 1;
        let clock = if self.n_epochs.is_multiple_of(5) { 0 } else { self.n_epochs };
        Epoch::new(&format!("{clock:06}-{}", self.n_epochs)).expect("it is short and plain")
    }
}

impl Log {
    fn open(&mut self, epoch: Epoch) {
        let last = self.eras.iter().rev().find_map(|era| era.messages.last()).copied().unwrap_or(0);
        self.serials.insert(Position { epoch: epoch.clone(), offset: Offset::ZERO }, last);
        self.eras.push(Era { epoch, messages: Vec::new() });
    }

    fn publish(&mut self) {
        let serial = self.next;
        self.next += 1;
        self.eras.last_mut().expect("a log has an epoch from the start").messages.push(serial);
        self.serials.insert(self.position(self.head()), serial);
    }

    fn head(&self) -> Place {
        let era = self.eras.len() - 1;
        Place { era, offset: self.eras[era].messages.len() }
    }

    fn position(&self, place: Place) -> Position {
        let offset = Offset::new(place.offset as u64).expect("it is small");
        Position { epoch: self.eras[place.era].epoch.clone(), offset }
    }

    /// Where a client goes on that was last at `after`, and what is wrong with that.
    fn resolve(&self, after: &Position) -> (Place, Option<GapReason>) {
        let Some(era) = self.eras.iter().position(|era| era.epoch == after.epoch) else {
            return (self.head(), Some(GapReason::Unknown));
        };
        let end = self.eras[era].messages.len();
        let place = Place { era, offset: usize::try_from(after.offset.get()).expect("it is small") };
        if place.offset > end {
            return (Place { era, offset: end }.max(self.cut), Some(GapReason::Unknown));
        }
        // Half of the losses are told at once, the others as they are come upon.
        if place < self.cut && self.cut.offset.is_multiple_of(2) {
            return (self.cut, Some(GapReason::Expired));
        }
        (place, None)
    }

    /// The frame that takes a subscriber from `place` to the next one.
    fn advance(&self, room: &RoomName, place: &mut Place) -> Option<ServerFrame<Serial>> {
        let from = self.position(*place);
        if *place < self.cut {
            *place = self.cut;
            let to = self.position(self.cut);
            let reason = GapReason::Expired;
            return Some(ServerFrame::Gap(Gap { room: room.clone(), from, to, count: None, reason }));
        }
        if let Some(serial) = self.eras[place.era].messages.get(place.offset) {
            place.offset += 1;
            return Some(ServerFrame::Message(Message {
                room: room.clone(),
                offset: from.offset.next(),
                time: 0,
                id: None,
                sender: None,
                data: *serial,
            }));
        }
        let next = self.eras.get(place.era + 1)?;
        *place = Place { era: place.era + 1, offset: 0 };
        Some(ServerFrame::Epoch(EpochChange { room: room.clone(), epoch: next.epoch.clone(), prev: from }))
    }
}

/// The answer to a request that comes to nothing.
pub(crate) fn refusal(id: u64, code: ErrorCode) -> ServerFrame<Serial> {
    ServerFrame::Error(ErrorFrame { id: Some(id), code, message: String::new() })
}
