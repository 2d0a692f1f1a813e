//! The hot path: a room has more, and every socket that is up to date gets the same bytes.
//!
//! The live subscriptions of a room share one cursor, the shard's: they are a list of slots, and a
//! pass over it writes the new frames to each. Whoever can't take them leaves the list with a
//! cursor of its own ([`super::subscription`]) and comes back when it has caught up. So do all where
//! the room goes on in another epoch: the rest of the one before is in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use twine_protocol::{Offset, Position, RoomName};

use super::inbox::Event;
use super::shard::Shard;
use super::socket::Run;
use super::state::Key;
use super::subscription::{State, Subscription};
use crate::clock;
use crate::rooms::{Room, TailRead, Watcher};
use crate::store::StoreError;

/// Bytes of a room that one round of a pass writes to each socket.
const ROUND_BYTES: usize = 256 << 10;
/// Rounds until others have their turn.
const ROUNDS_A_TURN: usize = 8;

/// What this shard knows of a room that its connections subscribe to.
pub(super) struct LocalRoom {
    pub(super) name: RoomName,
    /// `None` until the room is in memory.
    pub(super) open: Option<OpenRoom>,
    /// Connections that wait for that, once for each time that they have asked; see `Connection::n_opening`.
    waiting: Vec<Key>,
    /// Whether the room has told that it moved; see [`Watcher`].
    is_told: Arc<AtomicBool>,
    /// Subscriptions of this shard, in any state.
    subscriptions: usize,
}

pub(super) struct OpenRoom {
    pub(super) room: Arc<Room>,
    /// What all live subscriptions have been sent.
    pub(super) cursor: Position,
    /// The connections' slots.
    live: Vec<u32>,
}

impl Shard {
    /// The slot of a room, which has one subscription more from now on.
    pub(super) fn enter(&mut self, name: &RoomName) -> u32 {
        self.telemetry.subscriptions.inc();
        if let Some(slot) = self.names.get(name) {
            if let Some(local) = self.local_rooms.get_mut(*slot as usize) {
                local.subscriptions += 1;
                if let Some(open) = &local.open {
                    open.room.add_subscriber();
                }
            }
            return *slot;
        }
        let is_told = Arc::new(AtomicBool::new(false));
        let local = LocalRoom {
            name: name.clone(),
            open: None,
            waiting: Vec::new(),
            is_told: is_told.clone(),
            subscriptions: 1,
        };
        let slot = u32::try_from(self.local_rooms.insert(local)).unwrap_or(u32::MAX);
        self.names.insert(name.clone(), slot);
        let inbox = self.inbox();
        let opened = Box::new(move |result| inbox.push(Event::Opened { room: slot, result }));
        self.rooms.watch(name, Watcher { watch: self.watch.clone(), room: slot, is_told }, opened);
        slot
    }

    /// A room came into memory, watched from now on.
    pub(super) fn opened(&mut self, slot: u32, result: Result<(Arc<Room>, Position), Arc<StoreError>>) {
        let Some(local) = self.local_rooms.get_mut(slot as usize) else { return };
        let waiting = std::mem::take(&mut local.waiting);
        match result {
            Ok((room, cursor)) => {
                for _ in 0..local.subscriptions {
                    room.add_subscriber();
                }
                local.open = Some(OpenRoom { room, cursor, live: Vec::new() });
                for key in &waiting {
                    self.lag(*key);
                }
            }
            Err(error) => {
                for key in &waiting {
                    self.fail(*key, slot, &error);
                }
                self.forget_if_unused(slot, true);
            }
        }
        self.forget_if_unused(slot, false);
        for key in waiting {
            if let Some(connection) = self.connection(key) {
                connection.n_opening -= 1;
                self.resume(key);
            }
        }
    }

    /// Has a connection wait for a room that is being opened; says whether it is.
    pub(super) fn wait_until_open(&mut self, key: Key, slot: u32) -> bool {
        let local = self.local_rooms.get_mut(slot as usize);
        let Some(local) = local.filter(|local| local.open.is_none()) else { return false };
        local.waiting.push(key);
        if let Some(connection) = self.connection(key) {
            connection.n_opening += 1;
        }
        true
    }

    /// Takes a subscription out of its room.
    pub(super) fn leave(&mut self, subscription: &Subscription) {
        self.telemetry.subscriptions.dec();
        let slot = subscription.room;
        if let State::Live { index } = subscription.state {
            self.leave_live(slot, index);
        }
        let Some(local) = self.local_rooms.get_mut(slot as usize) else { return };
        local.subscriptions -= 1;
        if let Some(open) = &local.open {
            open.room.remove_subscriber();
        }
        self.forget_if_unused(slot, false);
    }

    /// Stops watching a room that nobody here subscribes to. One that is still being opened stays
    /// until it is, unless that `failed`.
    fn forget_if_unused(&mut self, slot: u32, failed: bool) {
        let Some(local) = self.local_rooms.get(slot as usize) else { return };
        if local.subscriptions > 0 || (local.open.is_none() && !failed) {
            return;
        }
        let local = self.local_rooms.remove(slot as usize);
        self.names.remove(&local.name);
        if let Some(open) = local.open {
            self.rooms.unwatch(&open.room, &self.watch, slot);
        }
    }

    /// Puts a subscription that is up to date among the live ones.
    pub(super) fn join_live(&mut self, key: Key, slot: u32) {
        let Some(open) = self.open_room(slot) else { return };
        let index = u32::try_from(open.live.len()).unwrap_or(u32::MAX);
        open.live.push(key.slot);
        if let Some(subscription) = self.subscription(key, slot) {
            subscription.state = State::Live { index };
        }
    }

    /// Takes a connection out of a room's live ones.
    pub(super) fn leave_live(&mut self, slot: u32, index: u32) {
        let Some(open) = self.open_room(slot) else { return };
        open.live.swap_remove(index as usize);
        let Some(moved) = open.live.get(index as usize).copied() else { return };
        self.set_live_index(moved, slot, index);
    }

    fn set_live_index(&mut self, connection: u32, slot: u32, index: u32) {
        let subscriptions = self.connections.get_mut(connection as usize).map(|c| &mut c.subscriptions);
        let mut all = subscriptions.into_iter().flatten();
        if let Some(subscription) = all.find(|subscription| subscription.room == slot) {
            subscription.state = State::Live { index };
        }
    }

    pub(super) fn open_room(&mut self, slot: u32) -> Option<&mut OpenRoom> {
        self.local_rooms.get_mut(slot as usize)?.open.as_mut()
    }

    /// The room has told that it moved.
    pub(super) fn moved(&mut self, slot: u32) {
        if let Some(local) = self.local_rooms.get(slot as usize) {
            // Before looking: what comes later tells again.
            local.is_told.store(false, Ordering::SeqCst);
        }
        self.advance(slot);
    }

    /// Sends what is new in a room to all its live subscriptions.
    pub(super) fn advance(&mut self, slot: u32) {
        for _ in 0..ROUNDS_A_TURN {
            let Some(open) = self.open_room(slot) else { return };
            let cursor = open.cursor.clone();
            match open.room.read(&cursor, Offset::MAX, ROUND_BYTES) {
                TailRead::Entries(entries, has_more) => {
                    let run = Run::new(entries.iter().map(|entry| entry.frame.clone()));
                    if !run.is_empty() && self.pass(slot, &cursor, &run) > 0 {
                        let now = clock::now();
                        for entry in &entries {
                            self.telemetry
                                .publish_to_socket
                                .observe(now.saturating_duration_since(entry.arrived));
                        }
                    }
                    if !has_more {
                        // What has come since tells again.
                        return;
                    }
                    if run.took_long() {
                        break;
                    }
                }
                TailRead::Store => {
                    // The room has gone on in another epoch, or memory's bound took messages away
                    // before this shard came to send them: all its subscriptions go on from the store.
                    open.cursor = open.room.head();
                    for connection in std::mem::take(&mut open.live) {
                        self.fall_behind(connection, slot, cursor.clone());
                    }
                }
            }
        }
        self.inbox().push(Event::Moved(slot));
    }

    /// Writes the frames after `cursor` to every live subscription; says how many it wrote in all.
    fn pass(&mut self, slot: u32, cursor: &Position, run: &Run) -> u64 {
        self.write_answers();
        let Some(open) = self.open_room(slot) else { return 0 };
        let mut live = std::mem::take(&mut open.live);
        let mut delivered = 0;
        let mut index = 0;
        while let Some(connection) = live.get(index).copied() {
            let sent = match self.sockets.get_mut(connection) {
                Some(socket) => socket.send(run, &mut self.deflater),
                None => Err(std::io::ErrorKind::NotConnected.into()),
            };
            let sent_frames = sent.as_ref().map_or(0, |sent| sent.frames);
            delivered += sent_frames as u64;
            if matches!(&sent, Ok(sent) if !sent.is_blocked) {
                index += 1;
                continue;
            }
            // The last of the list takes this one's place.
            live.swap_remove(index);
            if let Some(moved) = live.get(index).copied() {
                self.set_live_index(moved, slot, u32::try_from(index).unwrap_or(u32::MAX));
            }
            self.fall_behind(connection, slot, plus(cursor, sent_frames));
            if sent.is_err() {
                self.broken.extend(self.key_of(connection));
            }
        }
        self.telemetry.delivered.inc_by(delivered);
        if let Some(open) = self.open_room(slot) {
            open.live = live;
            open.cursor = plus(cursor, run.len());
        }
        delivered
    }

    /// Gives a subscription that was live a cursor of its own.
    fn fall_behind(&mut self, connection: u32, slot: u32, cursor: Position) {
        let Some(key) = self.key_of(connection) else { return };
        if let Some(subscription) = self.subscription(key, slot) {
            subscription.fall_behind(cursor);
        }
        self.look_when_stuck(key);
        self.lag(key);
    }

    fn key_of(&self, slot: u32) -> Option<Key> {
        self.connections.get(slot as usize).map(|connection| connection.key(slot))
    }
}

/// The position that many messages further on in its epoch.
pub(super) fn plus(position: &Position, n: usize) -> Position {
    let offset = Offset::new(position.offset.get().saturating_add(n as u64)).unwrap_or(Offset::MAX);
    Position { epoch: position.epoch.clone(), offset }
}
