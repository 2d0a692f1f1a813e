//! One room as its subscriber sees it: a cursor, and what may move it.
//!
//! ```text
//!              ask                subscribed             message, no listener
//!   ┌──────┐ ───────▶ ┌───────┐ ────────────▶ ┌──────┐ ─────────────────────▶ ┌────────┐
//!   │ Idle │          │ Asked │ ◀──────────── │ Live │                        │ Behind │
//!   └──────┘          └───────┘     hole      └──────┘                        └────────┘
//!      ▲                │   ▲                                   a listener attaches │
//!      │ connection     ▼   └────────────────────────────────────────────────────┘
//!      │ lost         Refused: asked again after a while
//! ```
//!
//! Invariant: while `Live`, everything up to `cursor` was handed out, in order and once, or was
//! announced as lost, and the next message is `cursor.offset + 1` of `cursor.epoch`.

use twine_protocol::{Epoch, EpochChange, Gap, GapReason, Offset, Position, RoomName, Subscribed};

use super::{CallId, DeliveryId, limits};

/// A room that is subscribed, or listened to, or both.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: RoomName,
    /// Subscribed by the app, or a room of the session.
    pub(super) wanted: bool,
    /// Whether there is a listener.
    pub(super) listening: bool,
    pub(super) link: Link,
    /// A token for this room, where the app gave one.
    pub(super) token: Option<String>,
    /// The app's calls that the next `subscribed` completes, and what they ask for.
    pub(super) calls: Vec<Waiting>,
    /// Refused for now, or asked anew, so many times since a message got through.
    pub(super) setbacks: u32,
    /// The last position handed out, or said by the hub.
    cursor: Option<Position>,
    /// Whether the cursor was stored by an earlier client, and the hub has not answered it yet.
    stored: bool,
    /// The head when the room was last subscribed, until the cursor has passed it.
    head: Option<Position>,
    /// What the hub knows of our cursor.
    acked: Option<Position>,
    /// Deliveries whose listeners are not through, in the order they were made.
    open: Vec<Open>,
}

/// How a room stands on the present connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// The hub does not know that we want it.
    Idle,
    /// Request `id` is under way; what comes for the room before its answer is from an earlier
    /// subscription and does not count.
    Asked { id: u64, until: u64 },
    /// Delivery goes on after the cursor.
    Live,
    /// The hub delivers, but no one listened, and the cursor stayed.
    Behind,
    /// Refused for now: asked again at this time.
    Refused { again: u64 },
}

/// What a frame means for a room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<T> {
    /// It takes the cursor on.
    Accept(T),
    /// Nothing new in it.
    Ignore,
    /// Something before it is missing: ask again from the cursor.
    Hole,
}

/// A `subscribe` call of the app that is not complete.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) call: CallId,
    pub(super) after: Option<Position>,
    pub(super) history: Option<u32>,
}

#[derive(Debug)]
struct Open {
    delivery: DeliveryId,
    position: Position,
    /// When it stops holding the cursor back; set when its callbacks have returned.
    until: Option<u64>,
}

impl Room {
    pub(super) fn new(name: RoomName) -> Self {
        Self {
            name,
            wanted: false,
            listening: false,
            link: Link::Idle,
            token: None,
            calls: Vec::new(),
            setbacks: 0,
            cursor: None,
            stored: false,
            head: None,
            acked: None,
            open: Vec::new(),
        }
    }

    pub(super) fn cursor(&self) -> Option<&Position> {
        self.cursor.as_ref()
    }

    /// Where the calls that wait want to start, if one of them says so.
    pub(super) fn after(&self) -> Option<&Position> {
        self.calls.iter().find_map(|waiting| waiting.after.as_ref())
    }

    /// How many messages before the head the calls that wait want.
    pub(super) fn history(&self) -> Option<u32> {
        self.calls.iter().filter_map(|waiting| waiting.history).max()
    }

    /// Whether the hub should be asked for the room: someone waits for messages or for the answer.
    pub(super) fn is_due(&self) -> bool {
        self.wanted && (self.listening || !self.calls.is_empty())
    }

    /// Whether nothing is left to remember.
    pub(super) fn is_idle(&self) -> bool {
        !self.wanted && !self.listening && !self.stored && self.link == Link::Idle
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored
    }

    /// Whether the hub has agreed to this subscription at least once.
    pub(super) fn was_in_force(&self) -> bool {
        self.cursor.is_some() && !self.stored
    }

    /// Starts at what an earlier client stored.
    pub(super) fn restore(&mut self, position: Position) {
        self.cursor = Some(position);
        self.stored = true;
    }

    /// Ends the subscription on this side; a later one starts at the head.
    pub(super) fn forget(&mut self) {
        self.wanted = false;
        self.link = Link::Idle;
        self.token = None;
        self.setbacks = 0;
        self.cursor = None;
        self.stored = false;
        self.head = None;
        self.acked = None;
        self.open.clear();
    }

    /// Ends a subscription that may not have been in force; then it is as if it had not been asked
    /// for, and what an earlier client stored stays.
    pub(super) fn withdraw(&mut self) {
        let stored = self.cursor.take().filter(|_| self.stored);
        self.forget();
        if let Some(position) = stored {
            self.restore(position);
        }
    }

    /// The answer to the request under way. Gives the loss that it announces.
    ///
    /// It is authoritative: the cursor becomes what it says, whether that sorts higher or lower.
    pub(super) fn subscribed(&mut self, frame: Subscribed) -> Option<Gap> {
        let position = Position { epoch: frame.epoch, offset: frame.offset };
        let before = self.cursor.replace(position.clone());
        if before.as_ref() != Some(&position) {
            self.open.clear();
        }
        self.link = Link::Live;
        self.stored = false;
        self.head = Some(frame.head);
        // The hub takes a room in where it begins, and is told of everything else: how far a cursor
        // was that this client brought, and that a loss was heard of.
        let is_known = before.is_none() && frame.recovered != Some(false);
        self.acked = is_known.then(|| position.clone());
        if frame.recovered != Some(false) {
            return None;
        }
        let (from, to, count) = match frame.lost {
            Some(lost) => (lost.from, lost.to, lost.count),
            // What was asked for, and what is given instead.
            None => (self.after().cloned().or(before).unwrap_or_else(|| position.clone()), position, None),
        };
        Some(Gap {
            room: self.name.clone(),
            from,
            to,
            count,
            reason: frame.reason.unwrap_or(GapReason::Unknown),
        })
    }

    /// A message, to be delivered as `delivery`: its position, and whether it is from before the
    /// subscription.
    pub(super) fn message(&mut self, offset: Offset, delivery: DeliveryId) -> Verdict<(Position, bool)> {
        if self.link != Link::Live {
            return Verdict::Ignore;
        }
        if !self.listening {
            self.link = Link::Behind;
            return Verdict::Ignore;
        }
        let Some(cursor) = self.cursor.as_mut() else { return Verdict::Hole };
        if offset <= cursor.offset {
            return Verdict::Ignore;
        }
        if offset != cursor.offset.next() {
            return Verdict::Hole;
        }
        cursor.offset = offset;
        let position = cursor.clone();
        let recovered = self.is_recovered(&position);
        self.setbacks = 0;
        if self.open.len() >= limits::UNSETTLED_MAX {
            self.open.remove(0);
        }
        self.open.push(Open { delivery, position: position.clone(), until: None });
        Verdict::Accept((position, recovered))
    }

    /// The log goes on in a new epoch: only where the old one has been read to its end.
    pub(super) fn epoch(&mut self, frame: EpochChange) -> Verdict<()> {
        self.step(&frame.prev, Position { epoch: frame.epoch, offset: Offset::ZERO })
    }

    /// Messages that will not come.
    pub(super) fn gap(&mut self, frame: &Gap) -> Verdict<()> {
        if self.cursor.as_ref() == Some(&frame.to) {
            return Verdict::Ignore;
        }
        let verdict = self.step(&frame.from, frame.to.clone());
        // A gap may jump over the head's epoch unseen: there the order of their names has to do,
        // which is wrong only where a clock was set back as well.
        if verdict == Verdict::Accept(())
            && frame.to.epoch != frame.from.epoch
            && self.head.as_ref().is_some_and(|head| frame.to > *head)
        {
            self.head = None;
        }
        verdict
    }

    /// Moves the cursor without a message, if it is exactly where the hub believes it to be.
    fn step(&mut self, from: &Position, to: Position) -> Verdict<()> {
        if self.link != Link::Live {
            return Verdict::Ignore;
        }
        let Some(cursor) = self.cursor.as_mut().filter(|cursor| *cursor == from) else {
            return Verdict::Hole;
        };
        // Epochs may be named out of order (a clock set back), so that having passed the head is
        // remembered instead of compared.
        if to.epoch != cursor.epoch && self.head.as_ref().is_some_and(|head| head.epoch == cursor.epoch) {
            self.head = None;
        }
        *cursor = to;
        Verdict::Accept(())
    }

    /// The listeners are through with this delivery.
    pub(super) fn delivered(&mut self, delivery: DeliveryId) {
        if let Some(index) = self.open.iter().position(|open| open.delivery == delivery) {
            self.open.remove(index);
        }
    }

    /// The listeners have returned from this delivery, and one of them gave a promise.
    pub(super) fn pending(&mut self, now: u64, delivery: DeliveryId) {
        if let Some(open) = self.open.iter_mut().find(|open| open.delivery == delivery) {
            open.until = Some(now.saturating_add(limits::SETTLE_WAIT));
        }
    }

    /// The queued delivery of the message at `first` is taken back, and those after it. The answer
    /// to a request from further on does not count any more.
    pub(super) fn retract(&mut self, first: &Position) {
        if let Some(index) = self.open.iter().position(|open| open.position == *first) {
            self.open.truncate(index);
        }
        self.cursor = Some(before(first));
        if matches!(self.link, Link::Live | Link::Asked { .. }) {
            self.link = Link::Behind;
        }
    }

    /// Everything up to here is through.
    pub(super) fn settled(&mut self, now: u64) -> Option<Position> {
        while self.open.first().is_some_and(|open| open.until.is_some_and(|until| until <= now)) {
            self.open.remove(0);
        }
        match self.open.first() {
            Some(open) => Some(before(&open.position)),
            None => self.cursor.clone(),
        }
    }

    /// The cursor to acknowledge, if it moved since the last time.
    pub(super) fn ack(&mut self, now: u64) -> Option<Position> {
        if !matches!(self.link, Link::Live | Link::Behind) {
            return None;
        }
        let settled = self.settled(now).filter(|settled| self.acked.as_ref() != Some(settled))?;
        self.acked = Some(settled.clone());
        Some(settled)
    }

    fn is_recovered(&mut self, position: &Position) -> bool {
        match &self.head {
            None => false,
            // The head is of a later epoch than what is being caught up.
            Some(head) if head.epoch != position.epoch => true,
            Some(head) if position.offset <= head.offset => true,
            Some(_) => {
                self.head = None;
                false
            }
        }
    }
}

/// The position before a message: offsets are dense.
fn before(position: &Position) -> Position {
    let offset = Offset::new(position.offset.get().saturating_sub(1)).unwrap_or(Offset::ZERO);
    Position { epoch: Epoch::clone(&position.epoch), offset }
}
