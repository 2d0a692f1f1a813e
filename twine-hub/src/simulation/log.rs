//! What is true: each room's log as it was committed, written down beside the store.

use std::collections::{BTreeMap, VecDeque};

use twine_protocol::{Data, Epoch, Offset, Position, RoomName};

use crate::store::{Reader, Record};

/// What a publisher calls a message; unique in a world.
pub(super) type Serial = u64;

/// The serial that a payload begins with.
pub(super) fn serial(data: &Data) -> Serial {
    let digits: String = data.get().chars().skip(1).take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a publisher writes serials")
}

/// A committed message.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) serial: Serial,
    pub(super) time: u64,
    /// Whether retention has left it.
    pub(super) is_kept: bool,
}

/// All rooms of one store.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    epochs: Vec<Epoch>,
    rooms: BTreeMap<RoomName, Vec<Segment>>,
    /// The messages that are kept, oldest first.
    kept: VecDeque<(RoomName, Position)>,
}

#[derive(Debug, Clone)]
struct Segment {
    epoch: Epoch,
    entries: Vec<Entry>,
}

impl Log {
    /// A hub has begun this epoch.
    pub(super) fn begins(&mut self, epoch: &Epoch) {
        assert!(self.epochs.iter().all(|earlier| earlier < epoch), "epoch {epoch} is not the greatest");
        self.epochs.push(epoch.clone());
    }

    /// A message was committed.
    pub(super) fn commits(&mut self, room: &RoomName, record: &Record, window: u64) {
        let epoch = self.epochs.last().expect("a hub has opened the store");
        let entry = Entry { serial: serial(&record.data), time: record.time, is_kept: true };
        let segments = self.rooms.entry(room.clone()).or_default();
        let mut earlier = segments.iter().flat_map(|segment| &segment.entries);
        if let Some(twin) = earlier.find(|earlier| earlier.serial == entry.serial) {
            assert!(entry.time - twin.time > window, "message {} of {room} was stored twice", entry.serial);
        }
        if segments.last().is_none_or(|last| last.epoch != *epoch) {
            segments.push(Segment { epoch: epoch.clone(), entries: Vec::new() });
        }
        let segment = segments.last_mut().expect("there is one");
        segment.entries.push(entry);
        assert_eq!(record.offset.get(), segment.entries.len() as u64, "an offset of {room} is not the next");
        self.kept.push_back((room.clone(), Position { epoch: epoch.clone(), offset: record.offset }));
    }

    /// Retention has removed the oldest messages.
    pub(super) fn expires(&mut self, n: usize) {
        for (room, position) in self.kept.drain(..n) {
            let segments = self.rooms.get_mut(&room).expect("it was kept");
            let segment = segments.iter_mut().find(|segment| segment.epoch == position.epoch);
            let index = usize::try_from(position.offset.get() - 1).unwrap();
            segment.expect("it was kept").entries[index].is_kept = false;
        }
    }

    fn segments(&self, room: &RoomName) -> &[Segment] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }

    /// How many messages of the room there ever were.
    pub(super) fn head(&self, room: &RoomName) -> u64 {
        self.segments(room).iter().map(|segment| segment.entries.len() as u64).sum()
    }

    /// How many of them come up to a position; `None` for one that this log never was at.
    pub(super) fn rank(&self, room: &RoomName, position: &Position) -> Option<u64> {
        if !self.epochs.contains(&position.epoch) {
            return None;
        }
        let segments = self.segments(room);
        let own = segments.iter().find(|segment| segment.epoch == position.epoch);
        let last = own.map_or(0, |segment| segment.entries.len() as u64);
        let before = segments.iter().filter(|segment| segment.epoch < position.epoch);
        let before: u64 = before.map(|segment| segment.entries.len() as u64).sum();
        (position.offset.get() <= last).then(|| before + position.offset.get())
    }

    /// The message at a position.
    pub(super) fn entry(&self, room: &RoomName, position: &Position) -> Option<&Entry> {
        let segment = self.segments(room).iter().find(|segment| segment.epoch == position.epoch)?;
        segment.entries.get(usize::try_from(position.offset.get().checked_sub(1)?).unwrap())
    }

    /// The messages after the first `from` and up to the `to`th.
    pub(super) fn between(&self, room: &RoomName, from: u64, to: u64) -> impl Iterator<Item = &Entry> {
        let all = self.segments(room).iter().flat_map(|segment| &segment.entries);
        all.take(usize::try_from(to).unwrap()).skip(usize::try_from(from).unwrap())
    }

    /// How many messages of the room lie in the epochs up to and with this one, which this log need
    /// not have.
    pub(super) fn count_to_epoch(&self, room: &RoomName, epoch: &Epoch) -> u64 {
        let upto = self.segments(room).iter().filter(|segment| segment.epoch <= *epoch);
        upto.map(|segment| segment.entries.len() as u64).sum()
    }

    /// Compares with what a store that was just opened has.
    pub(super) fn is_what(&self, reader: &mut dyn Reader) {
        for (room, segments) in &self.rooms {
            let ends: Vec<_> = segments.iter().map(|s| (s.epoch.clone(), s.entries.len() as u64)).collect();
            let stored = reader.segments(room).unwrap().into_iter();
            let stored: Vec<_> = stored.map(|segment| (segment.epoch, segment.last.get())).collect();
            assert_eq!(stored, ends, "the ends of {room}'s epochs after a start");
            for segment in segments {
                let records = reader.records(room, &segment.epoch, Offset::ZERO, usize::MAX, usize::MAX);
                let stored: Vec<_> =
                    records.unwrap().iter().map(|r| (r.offset.get(), serial(&r.data))).collect();
                let kept = (1..).zip(&segment.entries).filter(|(_, entry)| entry.is_kept);
                let kept: Vec<_> = kept.map(|(offset, entry)| (offset, entry.serial)).collect();
                assert_eq!(stored, kept, "the messages of {room} in {} after a start", segment.epoch);
            }
        }
    }
}
