//! One room: its head, its recent messages, and whom to tell when there are more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use twine_protocol::{Offset, RoomName};

use super::locked;

/// A room in memory.
pub(crate) struct Room {
    name: RoomName,
    state: Mutex<State>,
    subscribers: AtomicU64,
}

struct State {
    head: Offset,
    /// The last messages, up to the head, without holes.
    tail: VecDeque<Entry>,
    watchers: Vec<Watcher>,
}

/// A message in memory.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The whole frame as it goes to every socket.
    pub(crate) frame: Bytes,
    /// When its publish arrived at this hub.
    pub(crate) arrived: Instant,
}

/// Whoever wants to hear that a room has more. Must return quickly: the committer calls it.
pub(crate) trait Watch: Send + Sync {
    /// The room that the watcher calls `room` has moved its head.
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
    /// These entries follow; none where the offset is the last one.
    Entries(Vec<Entry>),
    /// The tail does not reach back that far: ask the store.
    Store,
}

impl Room {
    pub(super) fn new(name: RoomName, head: Offset) -> Self {
        let state = State { head, tail: VecDeque::new(), watchers: Vec::new() };
        Self { name, state: Mutex::new(state), subscribers: AtomicU64::new(0) }
    }

    pub(crate) fn name(&self) -> &RoomName {
        &self.name
    }

    /// The offset of the last message.
    pub(crate) fn head(&self) -> Offset {
        locked(&self.state).head
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

    /// From now on `watcher` hears of each move of the head that is returned.
    pub(crate) fn watch(&self, watcher: Watcher) -> Offset {
        let mut state = locked(&self.state);
        state.watchers.push(watcher);
        state.head
    }

    /// `watch` is not told any more.
    pub(crate) fn unwatch(&self, watch: &Arc<dyn Watch>, room: u32) {
        let same = |watcher: &Watcher| Arc::ptr_eq(&watcher.watch, watch) && watcher.room == room;
        locked(&self.state).watchers.retain(|watcher| !same(watcher));
    }

    /// Adds committed messages, the first of them the one after the head, and tells the watchers.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut state = locked(&self.state);
        for entry in entries {
            state.head = state.head.next();
            state.tail.push_back(entry);
        }
        for watcher in &state.watchers {
            if !watcher.is_told.swap(true, Ordering::SeqCst) {
                watcher.watch.moved(watcher.room);
            }
        }
    }

    /// Forgets the oldest message in memory and says how many bytes it had.
    pub(crate) fn drop_oldest(&self) -> usize {
        let mut state = locked(&self.state);
        let dropped = state.tail.pop_front();
        if state.tail.is_empty() {
            state.tail.shrink_to_fit();
        }
        dropped.map_or(0, |entry| entry.frame.len())
    }

    /// Whether nothing holds this room in memory.
    pub(crate) fn is_idle(&self) -> bool {
        let state = locked(&self.state);
        state.tail.is_empty() && state.watchers.is_empty()
    }

    /// How many messages the tail holds up to and with `until`.
    pub(crate) fn kept(&self, until: Offset) -> u64 {
        let state = locked(&self.state);
        (state.tail.len() as u64).saturating_sub(state.head.get() - until.get().min(state.head.get()))
    }

    /// What comes after `after`, up to `until`, at most `bytes` of it but at least one entry.
    pub(crate) fn read(&self, after: Offset, until: Offset, bytes: usize) -> TailRead {
        let state = locked(&self.state);
        let until = until.min(state.head);
        let wanted = until.get().saturating_sub(after.get());
        if wanted == 0 {
            return TailRead::Entries(Vec::new());
        }
        let behind_head = state.head.get() - after.get();
        let Some(first) = usize::try_from(behind_head).ok().and_then(|n| state.tail.len().checked_sub(n))
        else {
            return TailRead::Store;
        };
        let mut total = 0;
        let within = |entry: &&Entry| {
            let is_first = total == 0;
            total += entry.frame.len();
            is_first || total <= bytes
        };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        TailRead::Entries(state.tail.range(first..).take(wanted).take_while(within).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(AtomicU64);

    impl Watch for Counter {
        fn moved(&self, room: u32) {
            assert_eq!(room, 7);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn entry(text: &'static str) -> Entry {
        Entry { frame: Bytes::from_static(text.as_bytes()), arrived: Instant::now() }
    }

    fn texts(read: TailRead) -> Option<Vec<String>> {
        match read {
            TailRead::Entries(entries) => {
                Some(entries.iter().map(|e| String::from_utf8(e.frame.to_vec()).unwrap()).collect())
            }
            TailRead::Store => None,
        }
    }

    fn at(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    #[test]
    fn the_tail_gives_what_follows_and_sends_who_is_further_behind_to_the_store() {
        let room = Room::new("chat".parse().unwrap(), at(10));
        room.append([entry("11"), entry("12"), entry("13")]);
        assert_eq!(room.head(), at(13));
        assert_eq!(texts(room.read(at(10), at(13), 1000)).unwrap(), ["11", "12", "13"]);
        assert_eq!(texts(room.read(at(11), at(12), 1000)).unwrap(), ["12"]);
        assert_eq!(texts(room.read(at(13), at(13), 1000)).unwrap(), [""; 0]);
        assert_eq!(texts(room.read(at(10), at(13), 1)).unwrap(), ["11"], "at least one, however large");
        assert!(texts(room.read(at(9), at(13), 1000)).is_none());
        assert_eq!(room.drop_oldest(), 2);
        assert!(texts(room.read(at(10), at(13), 1000)).is_none());
        assert_eq!((room.kept(at(13)), room.kept(at(12)), room.kept(at(10))), (2, 1, 0));
    }

    #[test]
    fn a_watcher_is_told_once_until_it_looks_and_never_after_it_stops_watching() {
        let counter = Arc::new(Counter(AtomicU64::new(0)));
        let watch: Arc<dyn Watch> = counter.clone();
        let room = Room::new("chat".parse().unwrap(), Offset::ZERO);
        let is_told = Arc::new(AtomicBool::new(false));
        room.watch(Watcher { watch: watch.clone(), room: 7, is_told: is_told.clone() });
        room.append([entry("1"), entry("2")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        room.append([entry("3")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1, "it has not looked yet");
        is_told.store(false, Ordering::SeqCst);
        room.append([entry("4")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        assert!(!room.is_idle());
        room.unwatch(&watch, 7);
        is_told.store(false, Ordering::SeqCst);
        room.append([entry("5")]);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }
}
