//! The session of a connection: taken up when it opens, saved now and then, given back at its end.
//!
//! It holds what the client has acknowledged, which is not where the subscriptions are: what was
//! written to a socket may never have arrived. Acknowledgements move its cursors in memory; all
//! sessions of the shard that have changed are saved in one batch every [`SAVE_EVERY`]. One that would
//! start later from what is stored of it than from what it is now, is at the end of the turn.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use twine_protocol::{Connect, Connected, ErrorCode, Position, RoomName, ServerFrame, SessionId, Subscribe};

use super::Caller;
use super::inbox::Event;
use super::shard::Shard;
use super::state::{Key, Phase, Waits};
use crate::auth::Subscriber;
use crate::clock;
use crate::rooms::frames;
use crate::session::{Attached, Claim, Cursors, How, Identity, Lost, Save, Ticket, Visitor};

/// How long an acknowledged cursor may be in memory only.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// How long a connection waits for its session, and then goes on without one.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection's session.
pub(super) struct Session {
    id: SessionId,
    ticket: Ticket,
    /// The rooms it holds, oldest first, with what was acknowledged.
    rooms: Cursors,
    /// Where rooms start that it does not hold and has not held. They go as they are used.
    inherited: Cursors,
    /// Whether it was asked for a sign of life.
    is_probed: bool,
}

impl Session {
    /// What was acknowledged of a room that it holds.
    fn held(&self, room: &RoomName) -> Option<&Position> {
        self.rooms.iter().find(|(name, _)| name == room).map(|(_, cursor)| cursor)
    }

    /// Where a room goes on that nobody says a cursor for.
    fn cursor(&self, room: &RoomName) -> Option<&Position> {
        let inherited = self.inherited.iter().find(|(name, _)| name == room).map(|(_, cursor)| cursor);
        self.held(room).or(inherited)
    }

    /// Takes a room in, or anew, as its latest; beyond `max` the oldest goes.
    fn hold(&mut self, room: RoomName, cursor: Position, max: usize) {
        self.rooms.retain(|(name, _)| *name != room);
        self.inherited.retain(|(name, _)| *name != room);
        self.inherited.shrink_to_fit();
        if self.rooms.is_empty() {
            // Nearly all hold one room, and a vector makes room for four.
            self.rooms.reserve_exact(1);
        }
        self.rooms.push((room, cursor));
        self.rooms.drain(..self.rooms.len().saturating_sub(max));
    }

    pub(super) fn into_save(self) -> Save {
        Save { session: self.id, ticket: self.ticket, rooms: self.rooms }
    }

    fn save(&self) -> Save {
        Save { session: self.id.clone(), ticket: self.ticket, rooms: self.rooms.clone() }
    }
}

/// Connections whose sessions have changed since they were saved.
pub(super) struct Unsaved {
    soon: BTreeSet<Key>,
    at_once: BTreeSet<Key>,
    /// When those are due that are only saved soon.
    next: Instant,
}

impl Unsaved {
    pub(super) fn new(now: Instant) -> Self {
        Self { soon: BTreeSet::new(), at_once: BTreeSet::new(), next: now + SAVE_EVERY }
    }

    fn soon(&mut self, key: Key) {
        if !self.at_once.contains(&key) {
            self.soon.insert(key);
        }
    }

    fn at_once(&mut self, key: Key) {
        self.soon.remove(&key);
        self.at_once.insert(key);
    }

    /// Those to be saved now: what is urgent for one does not have all others saved as well.
    fn take(&mut self, now: Instant) -> BTreeSet<Key> {
        let mut due = std::mem::take(&mut self.at_once);
        if now >= self.next {
            self.next = now + SAVE_EVERY;
            due.append(&mut self.soon);
        }
        due
    }
}

impl Caller {
    fn as_subscriber(&self) -> Subscriber<'_> {
        Subscriber { origin: &self.origin, address: self.address }
    }
}

impl Shard {
    /// Takes the `connect` frame, unless the hub is busy with others. Whoever comes with a cookie waits for the session that is theirs.
    pub(super) fn connect(&mut self, key: Key, request: Connect) {
        if self.is_busy() {
            self.count_error(ErrorCode::Full);
            return self.send_away(key, ErrorCode::Full);
        }
        let Some(connection) = self.connection(key) else { return };
        let Some(visitor) = connection.caller.as_deref().and_then(visitor) else {
            return self.open(key, Opening::default());
        };
        connection.enter(Phase::Attaching, ATTACH_TIMEOUT);
        // The claim is what waits: where the keeper's disk stalls, it does so long after its connection
        // has gone on without, and counts until it is answered.
        let waits = Waits::begin(&self.telemetry);
        self.look_in(key, ATTACH_TIMEOUT);
        let Connect { session, instance, prev, scope, token: _ } = request;
        let identity = Identity { visitor, subject: None, scope: scope.unwrap_or_default().into() };
        let inbox = self.inbox();
        self.sessions.attach(
            Claim { identity, session, instance, prev },
            self.holder.clone(),
            key,
            Box::new(move |result| {
                drop(waits);
                inbox.push(Event::Attached { connection: key, result });
            }),
        );
    }

    /// The keeper has decided. Who waits no longer gives the session back.
    pub(super) fn attached(&mut self, key: Key, result: Option<Attached>) {
        let max = self.options.max_session_rooms;
        let waits = self.connection(key).is_some_and(|c| c.phase == Phase::Attaching);
        let Some(Attached { session: id, ticket, how, rooms, mut inherited }) = result else {
            if waits {
                self.go_on_without_session(key);
            }
            return;
        };
        if !waits {
            return self.sessions.detach(Save { session: id, ticket, rooms });
        }
        inherited.truncate(max);
        let opening = Opening {
            session: Some(id.clone()),
            resumed: matches!(how, How::Resumed | How::Copied),
            adopted: how == How::Adopted,
            rooms: rooms.iter().map(|(room, _)| room.clone()).filter(|room| self.may(key, room)).collect(),
        };
        if let Some(connection) = self.connection(key) {
            let session = Session { id, ticket, rooms, inherited, is_probed: false };
            connection.session = Some(Box::new(session));
        }
        if how == How::Copied {
            // So far a copy is nowhere but here.
            self.unsaved.at_once(key);
        }
        self.open(key, opening);
    }

    /// No session can be had, or none in time.
    pub(super) fn go_on_without_session(&mut self, key: Key) {
        self.open(key, Opening::default());
    }

    /// Opens the conversation.
    fn open(&mut self, key: Key, opening: Opening) {
        let heartbeat = self.options.heartbeat;
        let keeps_caller = self.permissions.is_some();
        let Some(connection) = self.connection(key) else { return };
        // Those who came at the same moment are not all asked at the same moment.
        let first_ping = heartbeat.mul_f64(0.5 + fastrand::f64() / 2.0);
        connection.enter(Phase::Open, first_ping);
        if !keeps_caller {
            connection.caller = None;
        }
        let Opening { session, resumed, adopted, rooms } = opening;
        let heartbeat = clock::millis(heartbeat);
        let connected = Connected { session, resumed, adopted, heartbeat, rooms };
        self.answer(key, frames::frame(&ServerFrame::Connected(connected)));
        self.look_in(key, first_ping);
        self.resume(key);
    }

    /// Whether the connection may subscribe to a room.
    pub(super) fn may(&self, key: Key, room: &RoomName) -> bool {
        let Some(permissions) = &self.permissions else { return true };
        let caller = self.connections.get(key.slot as usize).and_then(|c| c.caller.as_deref());
        caller.is_some_and(|caller| permissions.allow(caller.as_subscriber(), room))
    }

    /// Puts the session's cursor into a request that does not say where to start.
    pub(super) fn start_where_session_is(&mut self, key: Key, request: &mut Subscribe) {
        let Some(session) = self.connection(key).and_then(|c| c.session.as_deref()) else { return };
        // What a page knows by itself counts, also where it was stored and the session has come further:
        // a duplicate of the page may have taken that up, and what one has seen the other has not.
        if request.after.is_none() {
            request.after = session.cursor(&request.room).cloned();
        }
    }

    /// The session holds a room that is subscribed from `start` on. Only acknowledgements move a room
    /// forward that it held before: a client is ahead of what its listeners are through with. What
    /// comes again because history was asked for was acknowledged before. Where something `is_lost`,
    /// the answer that says so may be lost too: until it is acknowledged, the cursor stays before it.
    pub(super) fn hold(&mut self, key: Key, request: &Subscribe, start: &Position, is_lost: bool) {
        let max = self.options.max_session_rooms;
        let Some(session) = self.connection(key).and_then(|c| c.session.as_deref_mut()) else { return };
        let cursor = match (&request.after, session.held(&request.room)) {
            (Some(after), Some(held)) if is_lost => held.min(after),
            (Some(after), None) if is_lost => after,
            (Some(after), Some(held)) if request.history.is_some() => held.min(after),
            (_, Some(held)) => held.min(start),
            (_, None) => start,
        };
        let cursor = cursor.clone();
        // Where it has no such room yet, or a later cursor, whoever adopts the session from the store
        // would miss in silence what lies between.
        let is_urgent = session.held(&request.room).is_none_or(|held| cursor < *held);
        session.hold(request.room.clone(), cursor, max);
        if is_urgent {
            self.unsaved.at_once(key);
        } else {
            self.unsaved.soon(key);
        }
    }

    /// The session holds a room no longer; says whether it did.
    pub(super) fn let_go(&mut self, key: Key, room: &RoomName) -> bool {
        let Some(session) = self.connection(key).and_then(|c| c.session.as_deref_mut()) else { return false };
        let n_before = session.rooms.len();
        session.rooms.retain(|(name, _)| name != room);
        let is_less = session.rooms.len() < n_before;
        if is_less {
            self.unsaved.soon(key);
        }
        is_less
    }

    /// Takes what a client says that it has received.
    pub(super) fn acknowledge(&mut self, key: Key, mut cursors: Vec<(RoomName, Position)>) {
        for (room, cursor) in &mut cursors {
            // One text for all.
            let slot = self.names.get(room).copied();
            if let Some(open) = slot.and_then(|slot| self.open_room(slot))
                && open.cursor.epoch == cursor.epoch
            {
                cursor.epoch = open.cursor.epoch.clone();
            }
        }
        let Some(session) = self.connection(key).and_then(|c| c.session.as_deref_mut()) else { return };
        let (mut is_ahead, mut is_back) = (false, false);
        for (room, cursor) in cursors {
            // Rooms that it does not hold would let a client grow it.
            let Some((_, held)) = session.rooms.iter_mut().find(|(name, _)| *name == room) else { continue };
            is_ahead |= *held < cursor;
            is_back |= cursor < *held;
            *held = cursor;
        }
        if is_back {
            self.unsaved.at_once(key);
        } else if is_ahead {
            self.unsaved.soon(key);
        }
    }

    /// Saves the sessions of the shard for which it is time, in one batch.
    pub(super) fn save_sessions(&mut self, now: Instant) {
        let mut saves = Vec::new();
        for key in self.unsaved.take(now) {
            if let Some(session) = self.connection(key).and_then(|c| c.session.as_deref()) {
                saves.push(session.save());
            }
        }
        if !saves.is_empty() {
            self.sessions.save(saves);
        }
    }

    /// A connection's session went to another connection, or is forgotten.
    pub(super) fn lose_session(&mut self, key: Key, ticket: Ticket, why: Lost) {
        let Some(connection) = self.connection(key) else { return };
        if connection.session.as_ref().is_none_or(|session| session.ticket != ticket) {
            return;
        }
        connection.session = None;
        match why {
            Lost::Forgotten => {}
            // Whoever is still there comes back, and gets a copy.
            Lost::TakenOver => {
                let code = twine_protocol::CloseCode::Restart.as_u16();
                self.close(key, code, "another connection has taken over this session");
            }
        }
    }

    /// Whoever keeps the session of a connection wants to have it once more.
    pub(super) fn refresh_session(&mut self, key: Key, ticket: Ticket) {
        let session = self.connection(key).and_then(|c| c.session.as_deref());
        if session.is_some_and(|session| session.ticket == ticket) {
            self.unsaved.soon(key);
        }
    }

    /// Asks a connection for a sign of life.
    pub(super) fn probe(&mut self, key: Key, ticket: Ticket) {
        let ping = self.ping.clone();
        let Some(connection) = self.connection(key) else { return };
        let Some(session) = connection.session.as_deref_mut().filter(|s| s.ticket == ticket) else { return };
        session.is_probed = true;
        // If it gives none, what it has acknowledged is there for whoever gets the session.
        let save = session.save();
        self.sessions.save(vec![save]);
        if self.sockets.get(key.slot).is_some_and(|socket| !socket.is_full()) {
            self.answer(key, ping);
        }
    }

    /// Something came from a connection: it is there.
    pub(super) fn heard(&mut self, key: Key) {
        let Some(connection) = self.connection(key) else { return };
        connection.heard = clock::now();
        let Some(session) = connection.session.as_deref_mut() else { return };
        if std::mem::take(&mut session.is_probed) {
            let (id, ticket) = (session.id.clone(), session.ticket);
            self.sessions.alive(id, ticket);
        }
    }
}

/// What `connected` says.
#[derive(Default)]
struct Opening {
    session: Option<SessionId>,
    resumed: bool,
    adopted: bool,
    rooms: Vec<RoomName>,
}

/// Whose sessions the caller may have: without a cookie, nobody's.
fn visitor(caller: &Caller) -> Option<Visitor> {
    let Caller { cookie, origin, address } = caller;
    Some(Visitor { cookie: (*cookie)?, origin: origin.clone(), address: *address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_urgent_for_one_is_not_for_all() {
        let start = Instant::now();
        let mut unsaved = Unsaved::new(start);
        let [ahead, new, both] = [1, 2, 3].map(Key::of_slot);
        unsaved.soon(ahead);
        unsaved.at_once(new);
        unsaved.soon(both);
        unsaved.at_once(both);
        unsaved.soon(both);
        assert_eq!(unsaved.take(start), [new, both].into());
        assert_eq!(unsaved.take(start), [].into(), "once is enough");
        unsaved.at_once(new);
        assert_eq!(unsaved.take(start + SAVE_EVERY), [ahead, new].into());
        unsaved.soon(ahead);
        assert_eq!(unsaved.take(start + SAVE_EVERY), [].into());
        assert_eq!(unsaved.take(start + 2 * SAVE_EVERY), [ahead].into());
    }
}
