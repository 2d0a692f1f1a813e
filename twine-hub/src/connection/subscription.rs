//! A subscription's cursor, from the request until it is live, and again whenever it falls behind.
//!
//! ```text
//! subscribe → Opening ─(room in memory, cursor known)→ Behind ─(cursor at the shard's)→ Live
//!                                                        ↑                               │
//!                                                        └───────(socket took no more)───┘
//! ```
//! Whatever a cursor moves over, it moves in [`Shard::catch_up`] or in a pass of
//! [`super::fanout`]: recovery, history and slow readers are the same operation.
//!
//! A cursor later than the room's head is held against what the broker can find out first: only what
//! is unknown after that is answered as unknown.
//!
//! A connection has at most one read of the store, or one such question, under way, whatever it asks for.

use std::num::NonZeroU64;
use std::sync::Arc;

use twine_protocol::{
    ErrorCode, Gap, Offset, Position, ServerFrame, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};

use super::fanout::plus;
use super::inbox::Event;
use super::shard::Shard;
use super::socket::{Run, Socket};
use super::state::Key;
use crate::rooms::{PageRequest, Step, Steps, TailRead, frames};
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
    /// The read of the store under way for it, or its room's refresh, if one is.
    ticket: Option<NonZeroU64>,
    /// Whether its room was refreshed for it: what it shows that is later still was never there.
    is_fresh: bool,
    /// Its last read failed: it waits for the connection's next look at the clock.
    failed: bool,
}

pub(super) enum State {
    /// Not answered yet: the room is not in memory, or what it asks for is only in the store.
    Opening(Box<Subscribe>),
    /// At the shard's cursor, in this place of the room's live ones.
    Live { index: u32 },
    /// Somewhere before the shard's cursor.
    Behind(Box<Position>),
}

/// What [`Shard::move_on`] has done for a subscription.
enum Moved {
    /// All there is to do for now.
    Settled,
    /// A step: there may be another.
    On,
    /// What comes next is in the store.
    NeedsStore(Start),
    /// It shows a position later than the room's head: others may know more.
    NeedsRefresh,
}

impl Subscription {
    pub(super) fn fall_behind(&mut self, cursor: Position) {
        self.state = State::Behind(Box::new(cursor));
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
        if !self.may(key, &request.room) {
            return self.forbid(key, &request);
        }
        if let Some(room) = self.names.get(&request.room).copied()
            && let Some(subscription) = self.subscription(key, room)
        {
            let is_opening = matches!(subscription.state, State::Opening(_));
            if !is_opening && request.after.is_none() && request.history.is_none() {
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
        self.start_where_session_is(key, &mut request);
        let room = self.enter(&request.room);
        if let Some(local) = self.local_rooms.get(room as usize) {
            // One text for all.
            request.room = local.name.clone();
        }
        let state = State::Opening(Box::new(request));
        if let Some(connection) = self.connection(key) {
            let new = Subscription { room, state, ticket: None, is_fresh: false, failed: false };
            if connection.subscriptions.is_empty() {
                // Nearly all have one room, and a vector makes room for four.
                connection.subscriptions.reserve_exact(1);
            }
            connection.subscriptions.push(new);
        }
        if !self.wait_until_open(key, room) {
            self.lag(key);
        }
    }

    /// Takes an `unsubscribe` frame.
    pub(super) fn unsubscribe(&mut self, key: Key, request: Unsubscribe) {
        let room = self.names.get(&request.room).copied();
        let Some(room) = room.filter(|room| self.subscription(key, *room).is_some()) else {
            if self.let_go(key, &request.room) {
                return self.unsubscribed(key, request);
            }
            let code = ErrorCode::NotSubscribed;
            let message =
                format!("this connection is not subscribed to {:?}; {}", request.room, code.remedy());
            return self.refuse(key, Some(request.id), code, message);
        };
        self.abandon(key, room);
        self.let_go(key, &request.room);
        self.unsubscribed(key, request);
    }

    fn unsubscribed(&mut self, key: Key, Unsubscribe { id, room }: Unsubscribe) {
        self.answer(key, frames::frame(&ServerFrame::Unsubscribed(Unsubscribed { id, room })));
    }

    /// Refuses a room that this client may not have, also where it had it before.
    fn forbid(&mut self, key: Key, request: &Subscribe) {
        if let Some(room) = self.names.get(&request.room).copied() {
            self.abandon(key, room);
        }
        self.let_go(key, &request.room);
        let code = ErrorCode::Forbidden;
        let message = format!("this client may not subscribe to {:?}; {}", request.room, code.remedy());
        self.refuse(key, Some(request.id), code, message);
    }

    /// Ends a subscription; a request that was not answered yet is told so.
    fn abandon(&mut self, key: Key, room: u32) {
        let Some(subscription) = self.take_subscription(key, room) else { return };
        if let State::Opening(request) = &subscription.state {
            let message = "a later request for the same room came before this one was answered".into();
            self.refuse(key, Some(request.id), ErrorCode::NotSubscribed, message);
        }
        self.leave(&subscription);
    }

    fn take_subscription(&mut self, key: Key, room: u32) -> Option<Subscription> {
        let all = &mut self.connection(key)?.subscriptions;
        let at = all.iter().position(|subscription| subscription.room == room)?;
        Some(all.swap_remove(at))
    }

    /// Answers a subscribe for what is subscribed already.
    fn repeat(&mut self, key: Key, room: u32, request: &Subscribe) {
        let Some(head) = self.open_room(room).map(|open| open.cursor.clone()) else { return };
        let cursor = match self.subscription(key, room).map(|subscription| &subscription.state) {
            Some(State::Behind(cursor)) => (**cursor).clone(),
            _ => head,
        };
        self.answer_subscribe(key, room, request, cursor, None);
    }

    /// Refuses a subscription that was not answered yet.
    pub(super) fn fail(&mut self, key: Key, room: u32, error: &StoreError) {
        let Some(subscription) = self.take_subscription(key, room) else { return };
        if let State::Opening(request) = &subscription.state {
            let code = ErrorCode::Unavailable;
            self.refuse(key, Some(request.id), code, format!("{error}; {}", code.remedy()));
            self.read_failures.say(|unsaid| tracing::warn!(%error, unsaid, "a subscription was refused"));
        }
        self.leave(&subscription);
    }

    /// Gives subscriptions whose reads failed another chance.
    pub(super) fn try_again(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let mut any = false;
        for subscription in &mut connection.subscriptions {
            any |= std::mem::take(&mut subscription.failed);
        }
        if any {
            self.lag(key);
        }
    }

    /// Brings all subscriptions of a connection up to date, as far as its socket takes it and
    /// memory has it; what only the store has is asked for, one read at a time. Each turn begins
    /// with another subscription, so that a long recovery holds up no other room.
    pub(super) fn catch_up(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        let n_rooms = connection.subscriptions.len();
        let first = connection.next_turn();
        let mut reads = 0;
        for at in (0..n_rooms).map(|n| (first + n) % n_rooms) {
            loop {
                let is_blocked = self.sockets.get(key.slot).is_some_and(Socket::is_blocked);
                let Some(connection) = self.connection(key) else { return };
                if is_blocked {
                    // Once it takes more, all are looked at again.
                    return;
                }
                let is_reading = connection.waits.is_some();
                let Some(subscription) = connection.subscriptions.get(at) else { break };
                if subscription.ticket.is_some() || subscription.failed {
                    break;
                }
                if reads == READS_A_TURN {
                    self.later.push(key);
                    return;
                }
                let room = subscription.room;
                match self.move_on(key, room, at) {
                    Moved::Settled => break,
                    Moved::On => reads += 1,
                    Moved::NeedsStore(_) | Moved::NeedsRefresh if is_reading => break,
                    Moved::NeedsStore(start) => {
                        self.ask(key, room, start);
                        break;
                    }
                    Moved::NeedsRefresh => {
                        self.refresh(key, room);
                        break;
                    }
                }
            }
        }
    }

    /// Takes one subscription, the connection's `at`th, one step further.
    fn move_on(&mut self, key: Key, room: u32, at: usize) -> Moved {
        let subscriptions = self.connections.get_mut(key.slot as usize).map(|c| &mut c.subscriptions);
        let Some(subscription) = subscriptions.and_then(|all| all.get_mut(at)) else { return Moved::Settled };
        match &subscription.state {
            State::Live { .. } => Moved::Settled,
            State::Opening(request) => {
                let (request, is_fresh) = (request.clone(), subscription.is_fresh);
                self.begin(key, room, &request, is_fresh)
            }
            State::Behind(cursor) => {
                let cursor = (**cursor).clone();
                self.advance_one(key, room, cursor)
            }
        }
    }

    /// Finds the cursor of a subscription whose room is in memory, and answers it.
    fn begin(&mut self, key: Key, room: u32, request: &Subscribe, is_fresh: bool) -> Moved {
        // What is new goes to the live ones first, so that the shard's cursor is the head.
        self.advance(room);
        let Some(open) = self.open_room(room) else { return Moved::Settled };
        let (head, kept) = (open.cursor.clone(), open.room.kept(&open.cursor));
        if let Some(after) = request.after.as_ref().filter(|after| **after > head) {
            if *after <= open.room.head() {
                // It has had more from elsewhere than this shard has come to send. That is no loss.
                self.later.push(key);
                return Moved::Settled;
            }
            if !is_fresh {
                return Moved::NeedsRefresh;
            }
        }
        let start = match (request.after.clone(), request.history) {
            (None, None) => Start::After(head.clone()),
            (Some(after), None) => Start::After(after),
            (None, Some(n)) => Start::Last(n),
            (Some(after), Some(n)) => Start::AfterOrLast(after, n),
        };
        let Some(cursor) = self.in_memory(&start, &head, kept) else { return Moved::NeedsStore(start) };
        self.hold(key, request, &cursor, false);
        self.answer_subscribe(key, room, request, cursor.clone(), None);
        self.set_cursor(key, room, cursor);
        Moved::On
    }

    /// The cursor of `start`, where everything after it is in memory, and is not more than may be
    /// recovered.
    fn in_memory(&self, start: &Start, head: &Position, kept: u64) -> Option<Position> {
        let end = head.offset.get();
        let first = end.saturating_sub(kept);
        let after = |position: &Position| {
            let fits = position.epoch == head.epoch
                && (first..=end).contains(&position.offset.get())
                && end - position.offset.get() <= self.options.recovery.max_messages;
            fits.then_some(position.offset)
        };
        let last = |n: u32| (u64::from(n) <= kept).then(|| end - u64::from(n));
        let offset = match start {
            Start::After(position) => after(position)?,
            Start::Last(n) => Offset::new(last(*n)?).ok()?,
            Start::AfterOrLast(position, n) => after(position)?.min(Offset::new(last(*n)?).ok()?),
        };
        Some(Position { epoch: head.epoch.clone(), offset })
    }

    fn answer_subscribe(
        &mut self,
        key: Key,
        room: u32,
        request: &Subscribe,
        cursor: Position,
        loss: Option<Loss>,
    ) {
        let Some(head) = self.open_room(room).map(|open| open.cursor.clone()) else { return };
        let recovered = request.after.is_some().then_some(loss.is_none());
        let told = loss.filter(|_| request.after.is_some());
        let (missing, reason) = told.map(|loss| (loss.lost, loss.reason)).unzip();
        let subscribed = Subscribed {
            id: request.id,
            room: request.room.clone(),
            epoch: cursor.epoch,
            offset: cursor.offset,
            head,
            recovered,
            reason,
            lost: missing,
        };
        self.answer(key, frames::frame(&ServerFrame::Subscribed(subscribed)));
    }

    /// Moves a cursor that is behind: among the live ones, or over what memory has.
    fn advance_one(&mut self, key: Key, room: u32, cursor: Position) -> Moved {
        let Some(open) = self.open_room(room) else { return Moved::Settled };
        if cursor == open.cursor {
            self.join_live(key, room);
            return Moved::Settled;
        }
        let is_current = cursor.epoch == open.cursor.epoch;
        let read = if is_current {
            open.room.read(&cursor, open.cursor.offset, PAGE.bytes)
        } else {
            TailRead::Store
        };
        let TailRead::Entries(entries, _) = read else { return Moved::NeedsStore(Start::After(cursor)) };
        let sent = self.write(key, &Run::new(entries.into_iter().map(|entry| entry.frame)));
        self.telemetry.delivered.inc_by(sent as u64);
        if sent == 0 {
            return Moved::Settled;
        }
        let cursor = plus(&cursor, sent);
        self.set_cursor(key, room, cursor);
        Moved::On
    }

    /// Asks the store for the page at `start`.
    fn ask(&mut self, key: Key, room: u32, start: Start) {
        let Some(local) = self.local_rooms.get(room as usize) else { return };
        let Some(open) = &local.open else { return };
        let until = open.cursor.clone();
        let is_compressed = self.sockets.get(key.slot).is_some_and(Socket::is_compressed);
        let room_name = local.name.clone();
        let mut request =
            PageRequest { room: room_name, start, until, limit: PAGE, recovery: None, is_compressed };
        let recovery = self.options.recovery.clone();
        if let Some(subscription) = self.subscription(key, room) {
            // What was promised when it was answered is kept, however long it takes.
            request.recovery = matches!(subscription.state, State::Opening(_)).then_some(recovery);
        }
        let ticket = self.wait_for_room(key, room);
        let inbox = self.inbox();
        let done = Box::new(move |result| inbox.push(Event::Steps { connection: key, room, ticket, result }));
        self.rooms.read(request, done);
    }

    /// Asks for what others have committed to a room.
    fn refresh(&mut self, key: Key, room: u32) {
        let Some(watched) = self.open_room(room).map(|open| open.room.clone()) else { return };
        let ticket = self.wait_for_room(key, room);
        let inbox = self.inbox();
        let done =
            Box::new(move |result| inbox.push(Event::Refreshed { connection: key, room, ticket, result }));
        self.rooms.refresh(&watched, done);
    }

    /// A room has all that there was when it was asked for.
    pub(super) fn refreshed(
        &mut self,
        key: Key,
        room: u32,
        ticket: NonZeroU64,
        result: Result<(), Arc<StoreError>>,
    ) {
        let Some(subscription) = self.waits_no_longer(key, room, ticket) else { return };
        match result {
            Ok(()) => subscription.is_fresh = true,
            Err(error) => self.fail(key, room, &error),
        }
    }

    /// A subscription waits for another thread, and its connection with it. Says under which ticket.
    fn wait_for_room(&mut self, key: Key, room: u32) -> NonZeroU64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.saturating_add(1);
        if let Some(subscription) = self.subscription(key, room) {
            subscription.ticket = Some(ticket);
        }
        self.wait(key);
        ticket
    }

    /// The subscription that has waited for this, unless it has started anew since.
    fn waits_no_longer(&mut self, key: Key, room: u32, ticket: NonZeroU64) -> Option<&mut Subscription> {
        self.connection(key)?.waits = None;
        // Whatever comes of it, others may wait for their turn.
        self.lag(key);
        let subscription = self.subscription(key, room).filter(|waits| waits.ticket == Some(ticket))?;
        subscription.ticket = None;
        Some(subscription)
    }

    /// A page that was asked for has come.
    pub(super) fn steps(
        &mut self,
        key: Key,
        room: u32,
        ticket: NonZeroU64,
        result: Result<Steps, Arc<StoreError>>,
    ) {
        let Some(subscription) = self.waits_no_longer(key, room, ticket) else { return };
        let opening = match &subscription.state {
            State::Opening(request) => Some(request.clone()),
            _ => None,
        };
        match (result, opening) {
            (Ok(steps), Some(request)) => {
                let start = steps.start.clone();
                self.hold(key, &request, &start, steps.loss.is_some());
                self.answer_subscribe(key, room, &request, start.clone(), steps.loss.clone());
                self.set_cursor(key, room, start);
                self.take_steps(key, room, steps.all());
            }
            (Ok(steps), None) => {
                if let Some(loss) = &steps.loss {
                    self.tell_gap(key, room, steps.start.clone(), loss.clone());
                }
                self.take_steps(key, room, steps.all());
            }
            (Err(error), Some(_)) => self.fail(key, room, &error),
            (Err(error), None) => {
                subscription.failed = true;
                self.read_failures.say(|unsaid| {
                    tracing::warn!(
                        %error,
                        unsaid,
                        "a subscription could not be brought up to date and will try again"
                    );
                });
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
    fn take_steps(&mut self, key: Key, room: u32, steps: &[Step]) {
        let sent = self.write(key, &Run::new(steps.iter().map(|step| step.frame.clone())));
        let messages = steps.iter().take(sent).filter(|step| step.is_message).count();
        self.telemetry.delivered.inc_by(messages as u64);
        if let Some(last) = sent.checked_sub(1).and_then(|last| steps.get(last)) {
            self.set_cursor(key, room, last.cursor.clone());
        }
    }

    fn set_cursor(&mut self, key: Key, room: u32, cursor: Position) {
        if let Some(subscription) = self.subscription(key, room) {
            subscription.fall_behind(cursor);
        }
    }

    /// Writes frames of a room to one connection and says how many went.
    fn write(&mut self, key: Key, run: &Run) -> usize {
        if run.is_empty() || self.connection(key).is_none() {
            return 0;
        }
        self.write_answers();
        let Some(socket) = self.sockets.get_mut(key.slot) else { return 0 };
        if let Ok(sent) = socket.send(run, &mut self.deflater) {
            if sent.is_blocked {
                self.look_when_stuck(key);
            }
            sent.frames
        } else {
            self.broken.push(key);
            0
        }
    }
}
