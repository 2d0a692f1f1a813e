//! A store in this process: nothing outlives it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::{Opened, Reader, Record, Segment, StoreError, Writer, epoch};

/// Opens an empty store that keeps at most `max_bytes` of messages.
pub(crate) fn open(max_bytes: usize) -> Opened {
    let shared = Shared {
        epoch: epoch::mint(None),
        max_bytes,
        log: Arc::new(Mutex::new(Log { rooms: HashMap::new(), order: VecDeque::new(), bytes: 0 })),
    };
    Opened { writer: Box::new(shared.clone()), reader: Box::new(shared) }
}

#[derive(Clone)]
struct Shared {
    epoch: Epoch,
    max_bytes: usize,
    log: Arc<Mutex<Log>>,
}

struct Log {
    rooms: HashMap<RoomName, Room>,
    /// Which room each kept message is of, oldest first.
    order: VecDeque<RoomName>,
    bytes: usize,
}

#[derive(Default)]
struct Room {
    last: Offset,
    records: VecDeque<Record>,
    ids: HashMap<MessageId, (Offset, u64)>,
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
        if let Some(record) = room.records.pop_front() {
            self.bytes -= record.size();
            if let Some(id) = &record.id
                && room.ids.get(id).is_some_and(|(offset, _)| *offset == record.offset)
            {
                room.ids.remove(id);
            }
        }
    }

    fn oldest(&self) -> Option<&Record> {
        self.rooms.get(self.order.front()?)?.records.front()
    }
}

impl Writer for Shared {
    fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    fn last_time(&self) -> u64 {
        0
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
        let found = log.rooms.get(room).and_then(|room| room.ids.get(id));
        Ok(found
            .filter(|(_, time)| *time >= since)
            .map(|(offset, _)| Position { epoch: self.epoch.clone(), offset: *offset }))
    }

    fn append(&mut self, room: &RoomName, record: &Record) -> Result<(), StoreError> {
        let max_bytes = self.max_bytes;
        let mut log = self.log();
        log.bytes += record.size();
        log.order.push_back(room.clone());
        let kept = log.rooms.entry(room.clone()).or_default();
        kept.last = record.offset;
        kept.records.push_back(record.clone());
        if let Some(id) = &record.id {
            kept.ids.insert(id.clone(), (record.offset, record.time));
        }
        while log.bytes > max_bytes {
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
    fn knows_epoch(&mut self, epoch: &Epoch) -> Result<bool, StoreError> {
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
        let Some(kept) = log.rooms.get(room).filter(|_| *epoch == self.epoch) else {
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
    ) -> Result<Option<Position>, StoreError> {
        let log = self.log();
        let Some(kept) = log.rooms.get(room).filter(|_| until.epoch == self.epoch) else { return Ok(None) };
        let end = kept.records.partition_point(|record| record.offset <= until.offset);
        let index = end.saturating_sub(n as usize);
        Ok(kept
            .records
            .get(index)
            .filter(|_| index < end)
            .map(|record| Position { epoch: self.epoch.clone(), offset: record.offset }))
    }
}
