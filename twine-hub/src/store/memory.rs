//! A store in this process: nothing outlives it.
//!
//! What it keeps is bounded in bytes: messages, and all that is kept for their sake. The heads of
//! rooms count too but never go, for an offset is never given twice in an epoch.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem::size_of;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::{Opened, Reader, Record, Segment, StoreError, Writer, epoch};

/// Opens an empty store that keeps messages until they and the rooms have `max_bytes`.
pub(crate) fn open(max_bytes: usize) -> Opened {
    let shared = Shared { epoch: epoch::mint(None), max_bytes, log: Arc::default() };
    Opened { writer: Box::new(shared.clone()), reader: Box::new(shared) }
}

#[derive(Clone)]
struct Shared {
    epoch: Epoch,
    max_bytes: usize,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    rooms: HashMap<RoomName, Room>,
    /// Which room each kept message is of, oldest first.
    order: VecDeque<RoomName>,
    /// What [`message_size`] and [`room_size`] make of all that is kept.
    bytes: usize,
}

#[derive(Default)]
struct Room {
    last: Offset,
    /// `None` where no message is left: a room that was used once must not cost more than its head.
    kept: Option<Box<Kept>>,
}

#[derive(Default)]
struct Kept {
    records: VecDeque<Record>,
    ids: HashMap<MessageId, (Offset, u64)>,
}

/// Bytes that a message counts for: itself, its place in the order, and its id once more.
pub(super) fn message_size(room: &RoomName, record: &Record) -> usize {
    let id = |id: &MessageId| size_of::<(MessageId, (Offset, u64))>() + id.as_str().len();
    record.size() + size_of::<RoomName>() + room.as_str().len() + record.id.as_ref().map_or(0, id)
}

/// Bytes that a room counts for, with or without messages.
pub(super) fn room_size(room: &RoomName) -> usize {
    size_of::<(RoomName, Room)>() + room.as_str().len()
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        // Every section leaves the log whole, so a panic elsewhere does not spoil it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Forgets the oldest message.
    fn drop_oldest(&mut self) {
        let Some(name) = self.order.pop_front() else { return };
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let Some(kept) = &mut room.kept else { return };
        if let Some(record) = kept.records.pop_front() {
            self.bytes -= message_size(&name, &record);
            if let Some(id) = &record.id
                && kept.ids.get(id).is_some_and(|(offset, _)| *offset == record.offset)
            {
                kept.ids.remove(id);
            }
        }
        if kept.records.is_empty() {
            room.kept = None;
        }
    }

    fn oldest(&self) -> Option<&Record> {
        self.kept(self.order.front()?)?.records.front()
    }

    fn kept(&self, room: &RoomName) -> Option<&Kept> {
        self.rooms.get(room)?.kept.as_deref()
    }
}

impl Writer for Shared {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn last_time(&self) -> u64 {
        0
    }

    fn waits(&self) -> bool {
        false
    }

    fn head(&mut self, room: &RoomName) -> Result<Offset, StoreError> {
        Ok(self.log().rooms.get(room).map_or(Offset::ZERO, |room| room.last))
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn find_id(
        &mut self,
        room: &RoomName,
        id: &MessageId,
        since: u64,
    ) -> Result<Option<Position>, StoreError> {
        let log = self.log();
        let found = log.kept(room).and_then(|kept| kept.ids.get(id));
        Ok(found
            .filter(|(_, time)| *time >= since)
            .map(|(offset, _)| Position { epoch: self.epoch.clone(), offset: *offset }))
    }

    fn append(&mut self, room: &RoomName, record: &Record) -> Result<(), StoreError> {
        let max_bytes = self.max_bytes;
        let mut log = self.log();
        let Log { rooms, order, bytes } = &mut *log;
        *bytes += message_size(room, record);
        order.push_back(room.clone());
        let entry = match rooms.entry(room.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                *bytes += room_size(room);
                entry.insert(Room::default())
            }
        };
        entry.last = record.offset;
        let kept = entry.kept.get_or_insert_default();
        kept.records.push_back(record.clone());
        if let Some(id) = &record.id {
            kept.ids.insert(id.clone(), (record.offset, record.time));
        }
        while log.bytes > max_bytes && !log.order.is_empty() {
            log.drop_oldest();
        }
        Ok(())
    }

    // An append can't fail, so there is never anything to take back: a transaction is in force
    // message by message.
    fn commit(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn rollback(&mut self) {}

    fn probe(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn expire(&mut self, cut: u64, limit: usize) -> Result<usize, StoreError> {
        let mut log = self.log();
        for dropped in 0..limit {
            if log.oldest().is_none_or(|record| record.time >= cut) {
                return Ok(dropped);
            }
            log.drop_oldest();
        }
        Ok(limit)
    }
}

impl Reader for Shared {
    fn knows_epoch(&mut self, _: &RoomName, epoch: &Epoch) -> Result<bool, StoreError> {
        Ok(*epoch == self.epoch)
    }

    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError> {
        let last = self.log().rooms.get(room).map_or(Offset::ZERO, |room| room.last);
        if last == Offset::ZERO {
            return Ok(Vec::new());
        }
        Ok(vec![Segment { epoch: self.epoch.clone(), last }])
    }

    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let log = self.log();
        let Some(kept) = log.kept(room).filter(|_| *epoch == self.epoch) else {
            return Ok(Vec::new());
        };
        let from = kept.records.partition_point(|record| record.offset <= after);
        let mut total = 0;
        Ok(kept
            .records
            .range(from..)
            .take(limit)
            .take_while(|record| {
                let first = total == 0;
                total += record.size();
                first || total <= bytes
            })
            .cloned()
            .collect())
    }

    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError> {
        let log = self.log();
        let Some(kept) = log.kept(room).filter(|_| until.epoch == self.epoch) else { return Ok(None) };
        let end = kept.records.partition_point(|record| record.offset <= until.offset);
        let mut total = 0;
        let within = |record: &&Record| {
            let is_first = total == 0;
            total += record.size();
            is_first || total <= bytes
        };
        let last = kept.records.range(..end).rev().take(n as usize).take_while(within).last();
        Ok(last.map(|record| Position { epoch: self.epoch.clone(), offset: record.offset }))
    }

    fn next_time(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
    ) -> Result<Option<u64>, StoreError> {
        let log = self.log();
        let Some(kept) = log.kept(room).filter(|_| *epoch == self.epoch) else { return Ok(None) };
        let index = kept.records.partition_point(|record| record.offset <= after);
        Ok(kept.records.get(index).map(|record| record.time))
    }
}
