//! One room: its head, its recent messages, and whom to tell when there are more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use twine_protocol::api::RoomInfo;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::frames::Frame;
use super::locked;

/// About what a room takes in memory beside its messages, with its places among all.
pub(super) const ROOM: usize = 768;

/// A room in memory.
pub(crate) struct Room {
    name: RoomName,
    state: Mutex<State>,
    subscribers: AtomicU64,
}

struct State {
    head: Position,
    /// The last messages of the head's epoch, up to the head, without holes.
    tail: VecDeque<Entry>,
    /// Messages before what the tail begins with that [`Tails`](super::tail::Tails) has in its order and the
    /// tail no longer: the room went on in another epoch, or skipped what could not be had.
    n_left_behind: usize,
    watchers: Vec<Watcher>,
}

/// A message in memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What goes to every socket.
    pub(crate) frame: Frame,
    /// When its publish arrived at this hub.
    pub(crate) arrived: Instant,
}

/// Whoever wants to hear that a room has more. Must return quickly: the owner of the rooms calls it.
pub(crate) trait Watch: Send + Sync {
    /// The room that the watcher calls `room` has moved its head, perhaps into another epoch.
    fn moved(&self, room: u32);
}

/// A [`Watch`] and what it calls the room.
#[derive(Clone)]
pub(crate) struct Watcher {
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) room: u32,
    /// Whether it has been told and has not looked since: it is not told again meanwhile.
    pub(crate) is_told: Arc<AtomicBool>,
}

/// What the tail has after some offset.
pub(crate) enum TailRead {
    /// These entries follow; none where the offset is the last one. Whether there were more then.
    Entries(Vec<Entry>, bool),
    /// The tail does not reach back that far, or has another epoch: ask the store.
    Store,
}

impl Room {
    pub(super) fn new(name: RoomName, head: Position) -> Self {
        let state = State { head, tail: VecDeque::new(), n_left_behind: 0, watchers: Vec::new() };
        Self { name, state: Mutex::new(state), subscribers: AtomicU64::new(0) }
    }

    pub(crate) fn name(&self) -> &RoomName {
        &self.name
    }

    /// The position of the last message.
    pub(crate) fn head(&self) -> Position {
        locked(&self.state).head.clone()
    }

    /// Subscriptions of all connections of this hub.
    pub(crate) fn subscribers(&self) -> u64 {
        self.subscribers.load(Ordering::Relaxed)
    }

    pub(crate) fn add_subscriber(&self) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_subscriber(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn info(&self) -> RoomInfo {
        RoomInfo { room: self.name.clone(), head: self.head(), subscribers: self.subscribers() }
    }

    /// From now on `watcher` hears of each move of the head that is returned.
    pub(crate) fn watch(&self, watcher: Watcher) -> Position {
        let mut state = locked(&self.state);
        state.watchers.push(watcher);
        state.head.clone()
    }

    /// `watch` is not told any more.
    pub(crate) fn unwatch(&self, watch: &Arc<dyn Watch>, room: u32) {
        let same = |watcher: &Watcher| Arc::ptr_eq(&watcher.watch, watch) && watcher.room == room;
        locked(&self.state).watchers.retain(|watcher| !same(watcher));
    }

    /// Adds committed messages, the first of them the one after the head. The watchers are still to be told. Says
    /// what the room takes for having a tail, where it had none.
    pub(super) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> usize {
        let mut state = locked(&self.state);
        let before = state.kept_for_its_tail();
        for entry in entries {
            state.head.offset = state.head.offset.next();
            state.tail.push_back(entry);
        }
        state.kept_for_its_tail() - before
    }

    /// Tells the watchers that the head has moved.
    pub(crate) fn tell(&self) {
        locked(&self.state).tell();
    }

    /// Goes on in a later epoch, at its beginning, and tells the watchers. The messages in memory are
    /// of the one before and are forgotten: says how many bytes they had.
    pub(super) fn cross(&self, epoch: Epoch) -> usize {
        locked(&self.state).move_to(Position { epoch, offset: Offset::ZERO })
    }

    /// Goes on after a later offset, for what lies before it can't be had, and tells the watchers. The
    /// messages in memory don't continue there and are forgotten: says how many bytes they had.
    pub(super) fn skip(&self, to: Offset) -> usize {
        let mut state = locked(&self.state);
        let epoch = state.head.epoch.clone();
        state.move_to(Position { epoch, offset: to })
    }

    /// Forgets the oldest message that was added and says how many bytes are free for it: none where
    /// it was left behind in an earlier epoch.
    pub(super) fn drop_oldest(&self) -> usize {
        let mut state = locked(&self.state);
        if let Some(left) = state.n_left_behind.checked_sub(1) {
            state.n_left_behind = left;
            return 0;
        }
        let before = state.kept_for_its_tail();
        let dropped = state.tail.pop_front();
        if state.tail.is_empty() {
            state.tail.shrink_to_fit();
        }
        let room = before - state.kept_for_its_tail();
        room + dropped.map_or(0, |entry| entry.frame.footprint())
    }

    /// Whether nothing holds this room in memory.
    pub(crate) fn is_idle(&self) -> bool {
        let state = locked(&self.state);
        state.tail.is_empty() && state.watchers.is_empty()
    }

    /// How many messages the tail holds up to and with `until`.
    pub(crate) fn kept(&self, until: &Position) -> u64 {
        let state = locked(&self.state);
        if state.head.epoch != until.epoch {
            return 0;
        }
        let head = state.head.offset;
        (state.tail.len() as u64).saturating_sub(head.get() - until.offset.min(head).get())
    }

    /// What comes after `after` in its epoch, up to `until`, at most `bytes` of it but at least one
    /// entry.
    pub(crate) fn read(&self, after: &Position, until: Offset, bytes: usize) -> TailRead {
        let state = locked(&self.state);
        // Clones of one epoch share its text: as a rule this compares two addresses.
        if state.head.epoch != after.epoch {
            return TailRead::Store;
        }
        let (after, head) = (after.offset, state.head.offset);
        let wanted = until.min(head).get().saturating_sub(after.get());
        if wanted == 0 {
            return TailRead::Entries(Vec::new(), false);
        }
        let behind_head = head.get() - after.get();
        let Some(first) = usize::try_from(behind_head).ok().and_then(|n| state.tail.len().checked_sub(n))
        else {
            return TailRead::Store;
        };
        let mut total = 0;
        let within = |entry: &&Entry| {
            let is_first = total == 0;
            total += entry.frame.plain().len();
            is_first || total <= bytes
        };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let entries: Vec<_> = state.tail.range(first..).take(wanted).take_while(within).cloned().collect();
        let has_more = entries.len() < wanted;
        TailRead::Entries(entries, has_more)
    }
}

impl State {
    /// Goes on at another place, with nothing in memory. Says how many bytes of messages that leaves behind.
    fn move_to(&mut self, head: Position) -> usize {
        self.head = head;
        let room = self.kept_for_its_tail();
        let left = std::mem::take(&mut self.tail);
        self.n_left_behind += left.len();
        self.tell();
        room + left.iter().map(|entry| entry.frame.footprint()).sum::<usize>()
    }

    /// Bytes of a room that may be in memory for nothing but its tail.
    fn kept_for_its_tail(&self) -> usize {
        if self.tail.is_empty() { 0 } else { ROOM }
    }

    /// Tells the watchers that the head has moved.
    fn tell(&self) {
        for watcher in &self.watchers {
            if !watcher.is_told.swap(true, Ordering::SeqCst) {
                watcher.watch.moved(watcher.room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    struct Counter(AtomicU64);

    impl Watch for Counter {
        fn moved(&self, room: u32) {
            assert_eq!(room, 7);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn entry(text: &'static str) -> Entry {
        Entry { frame: Bytes::from_static(text.as_bytes()).into(), arrived: Instant::now() }
    }

    fn texts(read: TailRead) -> Option<Vec<String>> {
        match read {
            TailRead::Entries(entries, _) => {
                Some(entries.iter().map(|e| String::from_utf8(e.frame.plain().to_vec()).unwrap()).collect())
            }
            TailRead::Store => None,
        }
    }

    fn at(offset: u64) -> Position {
        Position::new("1", offset).unwrap()
    }

    fn offset(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn the_tail_gives_what_follows_and_sends_who_is_further_behind_to_the_store() {
        let room = Room::new("chat".parse().unwrap(), at(10));
        room.append([entry("11"), entry("12"), entry("13")]);
        assert_eq!(room.head(), at(13));
        assert_eq!(texts(room.read(&at(10), offset(13), 1000)).unwrap(), ["11", "12", "13"]);
        assert_eq!(texts(room.read(&at(11), offset(12), 1000)).unwrap(), ["12"]);
        assert_eq!(texts(room.read(&at(13), offset(13), 1000)).unwrap(), [""; 0]);
        assert_eq!(texts(room.read(&at(10), offset(13), 1)).unwrap(), ["11"], "at least one, however large");
        let has_more = |after, until, bytes| {
            matches!(room.read(&at(after), offset(until), bytes), TailRead::Entries(_, true))
        };
        assert!(has_more(10, 13, 1) && has_more(10, 13, 5), "whoever stops there is not told again");
        assert!(!has_more(10, 13, 6) && !has_more(10, 11, 2) && !has_more(13, 13, 1));
        assert!(texts(room.read(&at(9), offset(13), 1000)).is_none());
        assert_eq!(room.drop_oldest(), entry("11").frame.footprint());
        assert!(texts(room.read(&at(10), offset(13), 1000)).is_none());
        assert_eq!((room.kept(&at(13)), room.kept(&at(12)), room.kept(&at(10))), (2, 1, 0));
    }

    #[test]
    fn a_watcher_is_told_once_until_it_looks_and_never_after_it_stops_watching() {
        let counter = Arc::new(Counter(AtomicU64::new(0)));
        let watch: Arc<dyn Watch> = counter.clone();
        let room = Room::new("chat".parse().unwrap(), at(0));
        let is_told = Arc::new(AtomicBool::new(false));
        room.watch(Watcher { watch: watch.clone(), room: 7, is_told: is_told.clone() });
        room.append([entry("1"), entry("2")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 0);
        room.tell();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        room.append([entry("3")]);
        room.tell();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1, "it has not looked yet");
        is_told.store(false, Ordering::SeqCst);
        room.append([entry("4")]);
        room.tell();
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        assert!(!room.is_idle());
        room.unwatch(&watch, 7);
        is_told.store(false, Ordering::SeqCst);
        room.append([entry("5")]);
        room.tell();
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_room_that_skips_sends_who_is_behind_to_the_store() {
        let counter = Arc::new(Counter(AtomicU64::new(0)));
        let room = Room::new("chat".parse().unwrap(), at(10));
        room.append([entry("11")]);
        room.watch(Watcher { watch: counter.clone(), room: 7, is_told: Arc::default() });
        let size = |text| entry(text).frame.footprint();
        assert_eq!(room.skip(offset(15)), ROOM + size("11"));
        assert_eq!((room.head(), counter.0.load(Ordering::Relaxed)), (at(15), 1));
        assert_eq!(room.append([entry("16")]), ROOM, "it has a tail again");
        assert_eq!(room.append([entry("17")]), 0);
        assert!(texts(room.read(&at(11), Offset::MAX, 1000)).is_none());
        assert_eq!(texts(room.read(&at(15), Offset::MAX, 1000)).unwrap(), ["16", "17"]);
        let dropped = [(); 4].map(|()| room.drop_oldest());
        assert_eq!(dropped, [0, size("16"), ROOM + size("17"), 0], "the oldest was left behind");
    }

    #[test]
    fn a_room_that_crosses_keeps_nothing_of_the_epoch_before_and_tells_once() {
        let counter = Arc::new(Counter(AtomicU64::new(0)));
        let room = Room::new("chat".parse().unwrap(), at(10));
        room.append([entry("11"), entry("twelve")]);
        let is_told = Arc::default();
        room.watch(Watcher { watch: counter.clone(), room: 7, is_told });
        let size = |text| entry(text).frame.footprint();
        assert_eq!(room.cross(Epoch::new("2").unwrap()), ROOM + size("11") + size("twelve"));
        room.append([entry("1")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        assert_eq!(room.head(), Position::new("2", 1).unwrap());
        assert!(texts(room.read(&at(11), offset(12), 1000)).is_none());
        assert!(texts(room.read(&at(12), Offset::MAX, 1000)).is_none(), "its end is known to the store");
        assert_eq!(room.kept(&at(12)), 0);
        let start = Position::new("2", 0).unwrap();
        assert_eq!(texts(room.read(&start, Offset::MAX, 1000)).unwrap(), ["1"]);
        assert_eq!(
            [(); 4].map(|()| room.drop_oldest()),
            [0, 0, ROOM + size("1"), 0],
            "the oldest were left behind"
        );
    }
}
