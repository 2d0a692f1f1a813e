//! What the owner of the rooms does to them: takes them into memory, adds to them, and lets them go.
//!
//! Order has one owner in a hub, the one of its [broker](crate::broker) that knows what is committed, and
//! it has the only [`Delivery`]. So a room's head never moves behind its back.

use std::sync::Arc;
use std::time::Instant;

use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::room::Entry;
use super::tail::Tails;
use super::{Options, Registry, Room, frames};
use crate::clock;
use crate::store::Record;
use crate::telemetry::Telemetry;

/// The rooms in memory, for the one who may change them.
pub(crate) struct Delivery {
    registry: Arc<Registry>,
    tails: Tails,
    compress_from: usize,
}

impl Delivery {
    /// No room is in memory yet.
    pub(crate) fn new(options: &Options, telemetry: Arc<Telemetry>) -> Self {
        let registry = Arc::new(Registry::new(telemetry));
        let tails = Tails::new(registry.clone(), options.tail_bytes, options.tail_age);
        Self { registry, tails, compress_from: options.compress_from }
    }

    /// The rooms, for those who read and watch them.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// The room, if it is in memory.
    pub(crate) fn get(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.registry.get(name)
    }

    /// Takes a room into memory that is not there. All up to `head` is committed, and what follows
    /// goes through [`Delivery::append`].
    pub(crate) fn insert(&mut self, name: RoomName, head: Position) -> Arc<Room> {
        self.registry.insert(name, head)
    }

    /// Drops the room from memory if nothing holds it there.
    pub(crate) fn drop_if_idle(&mut self, name: &RoomName) {
        self.registry.drop_if_idle(name);
    }

    /// Adds committed messages, which continue the room's head, each with when its publish arrived. Whoever
    /// watches it sends them once it is [told](Room::tell).
    pub(crate) fn append(&mut self, room: &Arc<Room>, records: impl IntoIterator<Item = (Record, Instant)>) {
        let now = clock::now();
        let entries = records.into_iter().map(|(record, arrived)| {
            let frame = frames::message(room.name(), &record, self.compress_from);
            self.tails.added(room, frame.footprint(), now);
            Entry { frame, arrived }
        });
        // Encoded before the room is locked.
        let entries: Vec<_> = entries.collect();
        self.tails.added_room(room.append(entries));
    }

    /// The room goes on after a later offset of its epoch: what lies before it can't be had here any more.
    /// Who has not had all of it goes on in the store, and learns there what is lost.
    pub(crate) fn skip(&mut self, room: &Arc<Room>, to: Offset) {
        let bytes = room.skip(to);
        self.tails.left_behind(bytes);
    }

    /// The room goes on in a later epoch. All that it will ever have of the one before is committed, and
    /// in the store: who has not had all of it goes on there.
    pub(crate) fn cross(&mut self, room: &Arc<Room>, epoch: Epoch) {
        let bytes = room.cross(epoch);
        self.tails.left_behind(bytes);
    }

    /// All rooms in memory.
    #[cfg(test)]
    pub(crate) fn rooms(&self) -> Vec<Arc<Room>> {
        self.registry.all()
    }

    /// Forgets what is over the bounds of memory. Rooms that nothing holds any more leave it.
    pub(crate) fn trim(&mut self, now: Instant) {
        self.tails.trim(now);
    }

    /// When [`Delivery::trim`] has something to do next.
    pub(crate) fn next_trim(&self) -> Option<Instant> {
        self.tails.next_trim()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::value::RawValue;

    use super::*;
    use crate::rooms::TailRead;
    use crate::rooms::room::ROOM;

    fn record(offset: u64) -> (Record, Instant) {
        let offset = Offset::new(offset).unwrap();
        let data = RawValue::from_string("1".into()).unwrap();
        (Record { offset, time: 0, id: None, sender: None, data }, Instant::now())
    }

    fn n_kept(room: &Room, after: &Position) -> Option<usize> {
        match room.read(after, Offset::MAX, usize::MAX) {
            TailRead::Entries(entries, _) => Some(entries.len()),
            TailRead::Store => None,
        }
    }

    #[test]
    fn what_a_room_leaves_behind_in_an_epoch_costs_the_next_one_nothing() {
        let size = frames::message(&"chat".parse().unwrap(), &record(1).0, usize::MAX).footprint();
        // There is room for three messages.
        let options = Options { tail_bytes: 3 * size + ROOM, ..Options::default() };
        let mut delivery = Delivery::new(&options, Arc::default());
        let room = delivery.insert("chat".parse().unwrap(), Position::new("1", 0).unwrap());
        delivery.append(&room, (1..=2).map(record));
        delivery.cross(&room, Epoch::new("2").unwrap());
        let start = Position::new("2", 0).unwrap();
        delivery.append(&room, (1..=3).map(record));
        delivery.trim(clock::now());
        assert_eq!(n_kept(&room, &start), Some(3), "the bytes of the epoch before are free");
        delivery.append(&room, [record(4)]);
        delivery.trim(clock::now());
        assert_eq!(n_kept(&room, &start), None);
        assert_eq!(n_kept(&room, &Position::new("2", 1).unwrap()), Some(3), "and no more than needed went");
        delivery.trim(clock::now() + options.tail_age + Duration::from_secs(1));
        assert!(delivery.get(room.name()).is_none(), "nothing holds it in memory");
        assert!(delivery.next_trim().is_none());
    }
}
