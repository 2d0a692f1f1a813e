//! A subscription's cursor, from the request until it is live, and again whenever it falls behind.
//!
//! ```text
//! subscribe → Opening ─(room in memory; first page)→ Behind ─(cursor at the shard's)→ Live
//!                                                      ↑                              │
//!                                                      └──────(socket took no more)───┘
//! ```
//! Whatever a cursor moves over, it moves in [`Shard::catch_up`] or in a pass of
//! [`super::fanout`]: recovery, history and slow readers are the same operation.

use std::sync::Arc;

use bytes::Bytes;
use twine_protocol::{
    ErrorCode, Gap, Offset, Position, ServerFrame, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

use super::fanout::plus;
use super::inbox::Event;
use super::shard::{Key, Shard};
use crate::rooms::{PageRequest, Steps, TailRead, frames};
use crate::store::StoreError;
use crate::store::page::{Limit, Loss, Start};

/// What one read of the log brings. A socket rarely takes more at once, and what it does not take
/// is read again later, not kept.
const PAGE: Limit = Limit { messages: 1_000, bytes: 128 << 10 };
/// Reads of memory that one connection is given until others have their turn.
const READS_A_TURN: usize = 8;

/// A room on a connection.
pub(super) struct Subscription {
    /// The room's slot in this shard.
    pub(super) room: u32,
    pub(super) state: State,
}

pub(super) enum State {
    /// Not answered yet: waits for the room, or for its first page under this ticket.
    Opening(Box<Opening>),
    /// At the shard's cursor, in this place of the room's live ones.
    Live { index: u32 },
    /// Somewhere before the shard's cursor.
    Behind(Box<Behind>),
}

pub(super) struct Opening {
    request: Subscribe,
    ticket: u64,
}

pub(super) struct Behind {
    cursor: Position,
    /// The read that is under way, if one is.
    ticket: Option<u64>,
}

impl State {
    pub(super) fn behind(cursor: Position) -> Self {
        Self::Behind(Box::new(Behind { cursor, ticket: None }))
    }
}

impl Shard {
    pub(super) fn subscription(&mut self, key: Key, room: u32) -> Option<&mut Subscription> {
        let mut all = self.connection(key)?.subscriptions.iter_mut();
        all.find(|subscription| subscription.room == room)
    }

    /// Takes a `subscribe` frame.
    pub(super) fn subscribe(&mut self, key: Key, mut request: Subscribe) {
        let max = self.options.max_rooms;
        request.history = request.history.map(|n| n.min(self.options.max_history)).filter(|n| *n > 0);
        if let Some(room) = self.names.get(&request.room).copied()
            && let Some(subscription) = self.subscription(key, room)
        {
            let opening = matches!(subscription.state, State::Opening(_));
            if !opening && request.after.is_none() && request.history.is_none() {
                return self.repeat(key, room, &request);
            }
            // It starts anew, from where it says.
            self.abandon(key, room);
        }
        let Some(connection) = self.connection(key) else { return };
        if connection.subscriptions.len() >= max {
            let code = ErrorCode::TooManyRooms;
            let message = format!("this connection has {max} rooms, the most it may; {}", code.remedy());
            return self.refuse(key, Some(request.id), code, message);
        }
        let room = self.enter(&request.room);
        let ticket = self.ticket();
        let state = State::Opening(Box::new(Opening { request, ticket }));
        if let Some(connection) = self.connection(key) {
            connection.subscriptions.push(Subscription { room, state });
        }
        match self.local_rooms.get_mut(room as usize) {
            Some(local) if local.open.is_none() => local.waiting.push(key),
            _ => self.begin(key, room),
        }
    }

    /// Takes an `unsubscribe` frame.
    pub(super) fn unsubscribe(&mut self, key: Key, request: &Unsubscribe) {
        let room = self.names.get(&request.room).copied();
        if room.is_none_or(|room| self.subscription(key, room).is_none()) {
            let code = ErrorCode::NotSubscribed;
            let message =
                format!("this connection is not subscribed to {:?}; {}", request.room, code.remedy());
            return self.refuse(key, Some(request.id), code, message);
        }
        if let Some(room) = room {
            self.abandon(key, room);
        }
        let Unsubscribe { id, room } = request.clone();
        self.answer(key, frames::frame(&ServerFrame::Unsubscribed(Unsubscribed { id, room })));
    }

    /// Ends a subscription; a request that was not answered yet is told so.
    fn abandon(&mut self, key: Key, room: u32) {
        let Some(connection) = self.connection(key) else { return };
        let Some(at) = connection.subscriptions.iter().position(|s| s.room == room) else { return };
        let subscription = connection.subscriptions.swap_remove(at);
        if let State::Opening(opening) = &subscription.state {
            let message = "a later request for the same room came before this one was answered".into();
            self.refuse(key, Some(opening.request.id), ErrorCode::NotSubscribed, message);
        }
        self.leave(&subscription);
    }

    /// Answers a subscribe for what is subscribed already.
    fn repeat(&mut self, key: Key, room: u32, request: &Subscribe) {
        let Some(head) = self.open_room(room).map(|open| open.cursor) else { return };
        let cursor = match self.subscription(key, room).map(|subscription| &subscription.state) {
            Some(State::Behind(behind)) => behind.cursor.clone(),
            _ => self.position(head),
        };
        self.answer_subscribe(key, room, request, cursor, None);
    }

    /// The room has come into memory: begins whatever waited for it.
    pub(super) fn begin_waiting(&mut self, room: u32) {
        for key in self.take_waiting(room) {
            self.begin(key, room);
        }
    }

    /// The room can't be had: refuses whatever waited for it.
    pub(super) fn fail_waiting(&mut self, room: u32, error: &Arc<StoreError>) {
        for key in self.take_waiting(room) {
            self.fail(key, room, error);
        }
    }

    fn take_waiting(&mut self, room: u32) -> Vec<Key> {
        self.local_rooms
            .get_mut(room as usize)
            .map(|local| std::mem::take(&mut local.waiting))
            .unwrap_or_default()
    }

    /// Refuses a subscription that was not answered yet.
    fn fail(&mut self, key: Key, room: u32, error: &StoreError) {
        let Some(connection) = self.connection(key) else { return };
        let Some(at) = connection.subscriptions.iter().position(|s| s.room == room) else { return };
        let subscription = connection.subscriptions.swap_remove(at);
        if let State::Opening(opening) = &subscription.state {
            self.unavailable(key, opening.request.id, error);
        }
        self.leave(&subscription);
    }

    /// Finds the cursor of a subscription whose room is in memory: here, or with the store's help.
    fn begin(&mut self, key: Key, room: u32) {
        // What is new goes to the live ones first, so that the shard's cursor is the head.
        self.advance(room);
        let Some(open) = self.open_room(room) else { return };
        let (head, kept) = (open.cursor, open.room.kept(open.cursor));
        let Some(subscription) = self.subscription(key, room) else { return };
        let State::Opening(opening) = &subscription.state else { return };
        let Opening { request, ticket } = &**opening;
        let (request, ticket) = (request.clone(), *ticket);
        let start = match (request.after.clone(), request.history) {
            (None, None) => Start::After(self.position(head)),
            (Some(after), None) => Start::After(after),
            (None, Some(n)) => Start::Last(n),
            (Some(after), Some(n)) => Start::AfterOrLast(after, n),
        };
        match self.in_memory(&start, head, kept) {
            Some(cursor) => {
                self.answer_subscribe(key, room, &request, cursor.clone(), None);
                if let Some(subscription) = self.subscription(key, room) {
                    subscription.state = State::behind(cursor);
                }
                self.lagging.push(key);
            }
            None => self.ask(key, room, start, ticket),
        }
    }

    /// The cursor of `start`, where everything after it is in memory.
    fn in_memory(&self, start: &Start, head: Offset, kept: u64) -> Option<Position> {
        let first = head.get().saturating_sub(kept);
        let after = |position: &Position| {
            let fits = position.epoch == self.epoch && (first..=head.get()).contains(&position.offset.get());
            fits.then_some(position.offset)
        };
        let last = |n: u32| (u64::from(n) <= kept).then(|| head.get() - u64::from(n));
        let offset = match start {
            Start::After(position) => after(position)?,
            Start::Last(n) => Offset::new(last(*n)?).ok()?,
            Start::AfterOrLast(position, n) => after(position)?.min(Offset::new(last(*n)?).ok()?),
        };
        Some(self.position(offset))
    }

    fn answer_subscribe(
        &mut self,
        key: Key,
        room: u32,
        request: &Subscribe,
        cursor: Position,
        loss: Option<Loss>,
    ) {
        let Some(head) = self.open_room(room).map(|open| open.cursor) else { return };
        let recovered = request.after.is_some().then_some(loss.is_none());
        let told = loss.filter(|_| request.after.is_some());
        let (missing, reason) = told.map(|loss| (loss.lost, loss.reason)).unzip();
        let subscribed = Subscribed {
            id: request.id,
            room: request.room.clone(),
            epoch: cursor.epoch,
            offset: cursor.offset,
            head: self.position(head),
            recovered,
            reason,
            lost: missing,
        };
        self.answer(key, frames::frame(&ServerFrame::Subscribed(subscribed)));
    }

    /// Asks the store for the page at `start`.
    fn ask(&mut self, key: Key, room: u32, start: Start, ticket: u64) {
        let Some(local) = self.local_rooms.get(room as usize) else { return };
        let Some(open) = &local.open else { return };
        let until = self.position(open.cursor);
        let request = PageRequest { room: local.name.clone(), start, until, limit: PAGE };
        let inbox = self.inbox();
        let done = Box::new(move |result| inbox.push(Event::Steps { connection: key, room, ticket, result }));
        self.rooms.read(request, done);
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// A page that was asked for has come.
    pub(super) fn steps(&mut self, key: Key, room: u32, ticket: u64, result: Result<Steps, Arc<StoreError>>) {
        let Some(subscription) = self.subscription(key, room) else { return };
        let opening = match &mut subscription.state {
            State::Opening(opening) if opening.ticket == ticket => Some(opening.request.clone()),
            State::Behind(behind) if behind.ticket == Some(ticket) => {
                behind.ticket = None;
                None
            }
            // The subscription has started anew since.
            _ => return,
        };
        match (result, opening) {
            (Ok(Steps { start, loss, all }), Some(request)) => {
                self.answer_subscribe(key, room, &request, start.clone(), loss);
                if let Some(subscription) = self.subscription(key, room) {
                    subscription.state = State::behind(start);
                }
                self.take_steps(key, room, all);
            }
            (Ok(Steps { start, loss, all }), None) => {
                if let Some(loss) = loss {
                    self.tell_gap(key, room, start, loss);
                }
                self.take_steps(key, room, all);
            }
            (Err(error), Some(_)) => self.fail(key, room, &error),
            // The cursor stays; the next look at the connection tries again.
            (Err(error), None) => {
                tracing::warn!(%error, "a subscription could not be brought up to date and will try again");
            }
        }
    }

    /// Moves a cursor over a loss, and tells so.
    fn tell_gap(&mut self, key: Key, room: u32, start: Position, loss: Loss) {
        let Some(local) = self.local_rooms.get(room as usize) else { return };
        let Loss { lost, reason } = loss;
        let gap = Gap { room: local.name.clone(), from: lost.from, to: lost.to, count: lost.count, reason };
        self.answer(key, frames::frame(&ServerFrame::Gap(gap)));
        self.set_cursor(key, room, start);
    }

    /// Writes as much of a page as the socket takes. What it does not take is dropped: the cursor
    /// knows where to go on.
    fn take_steps(&mut self, key: Key, room: u32, steps: Vec<crate::rooms::Step>) {
        let frames: Vec<Bytes> = steps.iter().map(|step| step.frame.clone()).collect();
        let sent = self.write(key, &frames);
        if let Some(last) = sent.checked_sub(1).and_then(|last| steps.into_iter().nth(last)) {
            self.set_cursor(key, room, last.cursor);
        }
        self.lagging.push(key);
    }

    fn set_cursor(&mut self, key: Key, room: u32, cursor: Position) {
        if let Some(Subscription { state: State::Behind(behind), .. }) = self.subscription(key, room) {
            behind.cursor = cursor;
        }
    }

    /// Writes frames of a room to one connection and says how many went.
    fn write(&mut self, key: Key, frames: &[Bytes]) -> usize {
        let Some(connection) = self.connection(key) else { return 0 };
        if let Ok(sent) = connection.socket.send(frames) {
            self.telemetry.delivered.inc_by(sent.frames as u64);
            sent.frames
        } else {
            self.broken.push(key);
            0
        }
    }

    /// Brings all subscriptions of a connection up to date, as far as its socket takes it and
    /// memory has it; where it has not, asks the store for one page.
    pub(super) fn catch_up(&mut self, key: Key) {
        let (mut at, mut reads) = (0, 0);
        loop {
            let Some(connection) = self.connection(key) else { return };
            if connection.socket.is_blocked() {
                return;
            }
            let Some(Subscription { room, state }) = connection.subscriptions.get_mut(at) else { return };
            let room = *room;
            let State::Behind(behind) = state else {
                at += 1;
                continue;
            };
            if behind.ticket.is_some() {
                // One page a connection is read at a time.
                return;
            }
            let cursor = behind.cursor.clone();
            let Some(open) = self.local_rooms.get_mut(room as usize).and_then(|local| local.open.as_mut())
            else {
                at += 1;
                continue;
            };
            if reads == READS_A_TURN {
                return self.later.push(key);
            }
            let is_current = cursor.epoch == self.epoch;
            if is_current && cursor.offset == open.cursor {
                self.join_live(key, room);
                at += 1;
                continue;
            }
            let read = if is_current {
                open.room.read(cursor.offset, open.cursor, PAGE.bytes)
            } else {
                TailRead::Store
            };
            match read {
                TailRead::Entries(entries) => {
                    reads += 1;
                    let frames: Vec<Bytes> = entries.into_iter().map(|entry| entry.frame).collect();
                    let sent = self.write(key, &frames);
                    if sent == 0 {
                        return;
                    }
                    let cursor = self.position(plus(cursor.offset, sent));
                    self.set_cursor(key, room, cursor);
                }
                TailRead::Store => {
                    let ticket = self.ticket();
                    if let Some(Subscription { state: State::Behind(behind), .. }) =
                        self.subscription(key, room)
                    {
                        behind.ticket = Some(ticket);
                    }
                    return self.ask(key, room, Start::After(cursor), ticket);
                }
            }
        }
    }
}
