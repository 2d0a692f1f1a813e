//! What was published, what became of it, and what everyone must have seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use twine_protocol::Position;
use twine_protocol::api::StoredMessage;
use twine_server_sdk::{Error, Published, Stored};

/// The rooms of the test.
pub(crate) const ROOMS: [&str; 3] = ["red", "green", "blue"];

/// The number of a message, by which it is known everywhere.
pub(crate) type Number = usize;

/// One place of a room's log.
pub(crate) type Place = (Position, Number);

/// Of every message what became of it. Clones share it.
#[derive(Clone)]
pub(crate) struct Ledger(Arc<Shared>);

struct Shared {
    entries: Mutex<Vec<Entry>>,
    n_acknowledged: watch::Sender<usize>,
}

struct Entry {
    room: &'static str,
    by: usize,
    fate: Fate,
}

/// What a publisher knows of its message.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// Nothing yet.
    UnderWay,
    /// It was acknowledged, at this place.
    At(Position),
    /// It was told that it is stored, and not where.
    Somewhere,
    /// It was told that it is not.
    Nowhere,
    /// It was told nothing that is certain.
    Unknown,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { entries: Mutex::default(), n_acknowledged: watch::Sender::new(0) }))
    }

    /// A new message of this publisher: its number.
    pub(crate) fn begin(&self, by: usize, room: &'static str) -> Number {
        let mut entries = self.0.entries.lock().unwrap();
        entries.push(Entry { room, by, fate: Fate::UnderWay });
        entries.len() - 1
    }

    /// The hub has answered.
    pub(crate) fn acknowledge(&self, number: Number, published: &Published) {
        let entry = &mut self.0.entries.lock().unwrap()[number];
        assert_eq!(published.room.as_str(), entry.room);
        entry.fate = Fate::At(Position { epoch: published.epoch.clone(), offset: published.offset });
        self.0.n_acknowledged.send_modify(|n| *n += 1);
    }

    /// The publisher has given up.
    pub(crate) fn give_up(&self, number: Number, error: &Error) {
        self.0.entries.lock().unwrap()[number].fate = match error.stored() {
            Stored::Yes => Fate::Somewhere,
            Stored::No => Fate::Nowhere,
            Stored::Maybe => Fate::Unknown,
        };
    }

    /// How many were acknowledged.
    pub(crate) fn n_acknowledged(&self) -> usize {
        *self.0.n_acknowledged.borrow()
    }

    /// Waits until so many more were acknowledged than are now.
    pub(crate) async fn until_more(&self, n: usize) {
        let mut acknowledged = self.0.n_acknowledged.subscribe();
        let wanted = *acknowledged.borrow() + n;
        acknowledged.wait_for(|n| *n >= wanted).await.unwrap();
    }

    /// The last acknowledged place of each room.
    pub(crate) fn heads(&self) -> [Position; ROOMS.len()] {
        let entries = self.0.entries.lock().unwrap();
        ROOMS.map(|room| {
            let positions =
                entries.iter().filter(|entry| entry.room == room).filter_map(|entry| match &entry.fate {
                    Fate::At(position) => Some(position),
                    _ => None,
                });
            positions.max().cloned().unwrap_or_default()
        })
    }

    /// Holds what the hub has of a room against what its publishers were told.
    pub(crate) fn check(&self, room: &str, log: &[Place]) {
        let entries = self.0.entries.lock().unwrap();
        let stored: BTreeSet<Number> = log.iter().map(|(_, number)| *number).collect();
        assert_eq!(stored.len(), log.len(), "{room}: a message is stored twice");
        for (position, number) in log {
            let Entry { room: of, fate, .. } = &entries[*number];
            assert_eq!(*of, room, "message {number} is in another room");
            match fate {
                Fate::At(told) => {
                    assert_eq!(told, position, "{room}: message {number} is not where it was said");
                }
                Fate::Somewhere | Fate::Unknown => {}
                other => panic!("{room}: message {number} is stored, and its publisher knows {other:?}"),
            }
        }
        for (number, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.room == room) {
            let must_be_there = matches!(entry.fate, Fate::At(_) | Fate::Somewhere);
            assert!(
                !must_be_there || stored.contains(&number),
                "{room}: message {number} is lost: {:?}",
                entry.fate
            );
        }
        // Each waits for one answer before its next message.
        let mut last = BTreeMap::new();
        for (_, number) in log {
            let before = last.insert(entries[*number].by, *number);
            assert!(before < Some(*number), "{room}: message {number} came after {before:?}");
        }
    }

    /// Says how much there was to get wrong.
    pub(crate) fn summary(&self) -> String {
        let entries = self.0.entries.lock().unwrap();
        let count = |is: fn(&Fate) -> bool| entries.iter().filter(|entry| is(&entry.fate)).count();
        format!(
            "{} messages: {} acknowledged, {} said to be stored, {} not to be, {} in doubt",
            entries.len(),
            count(|fate| matches!(fate, Fate::At(_))),
            count(|fate| *fate == Fate::Somewhere),
            count(|fate| *fate == Fate::Nowhere),
            count(|fate| matches!(fate, Fate::Unknown | Fate::UnderWay)),
        )
    }
}

/// The log that the hub shows, as places.
pub(crate) fn places(history: Vec<StoredMessage<String>>) -> Vec<Place> {
    let place = |message: StoredMessage<String>| {
        (Position { epoch: message.epoch, offset: message.offset }, read(&message.data))
    };
    history.into_iter().map(place).collect()
}

/// Offsets are 1, 2, 3 in each epoch, and epochs only grow.
pub(crate) fn is_dense(log: &[Place]) {
    for (at, (position, _)) in log.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &log[before].0);
        let expected = match before {
            Some(before) if before.epoch == position.epoch => before.offset.get() + 1,
            _ => 1,
        };
        assert_eq!(position.offset.get(), expected, "{position} came after {before:?}");
        assert!(before < Some(position), "{position} came after {before:?}");
    }
}

/// The payload of a message: its number, and mostly little more; now and then it is large.
pub(crate) fn write(number: Number) -> String {
    let mut draw = fastrand::Rng::with_seed(number as u64);
    let filler = match draw.u8(..) {
        0..8 => draw.usize(20_000..60_000),
        8..64 => draw.usize(1_000..8_000),
        _ => draw.usize(0..200),
    };
    format!("{number} {}", "x".repeat(filler))
}

/// The number of a payload, which must be whole.
pub(crate) fn read(text: &str) -> Number {
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text, write(number), "the payload of message {number} was changed");
    number
}
