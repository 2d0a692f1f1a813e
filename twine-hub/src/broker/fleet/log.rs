//! Reading a room's log: its recent end from Redis, what is older from the table.

use tokio::runtime::Handle;
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Fleet, FleetError};
use crate::broker::redis::{Link, Tail};
use crate::store::dynamodb::{Amount, TableReader};
use crate::store::{Reader, Record, Segment, StoreError};

/// Messages and bytes that a hole is filled with in one go.
const PAGE: Amount = Amount { messages: 1_024, bytes: 1 << 20 };

impl Fleet {
    /// Committed messages after `after`, in order and without a hole, up to `until` at most.
    ///
    /// # Errors
    /// Where neither Redis nor the table has them at present.
    pub(super) async fn read(
        &self,
        room: &RoomName,
        after: &Position,
        until: Offset,
        deadline: Instant,
    ) -> Result<Vec<Record>, FleetError> {
        let mut records = match recent(&self.link, room, after, PAGE).await {
            Some(records) => records,
            None => self.table.read(room, &after.epoch, after.offset, PAGE, None, deadline).await?,
        };
        records.retain(|record| record.offset <= until);
        Ok(records)
    }
}

/// What Redis has after `after`; `None` where it does not have the next message any more, or can't say.
async fn recent(link: &Link, room: &RoomName, after: &Position, wanted: Amount) -> Option<Vec<Record>> {
    match link.read(room, after, wanted.messages, wanted.bytes).await {
        Ok(Tail::Messages(records)) => {
            let is_next = records.first().is_some_and(|first| first.offset == after.offset.next());
            is_next.then_some(records)
        }
        Ok(Tail::Elsewhere) | Err(_) => None,
    }
}

/// The [`Reader`] of a fleet. Its thread must be none of the runtime's.
pub(super) struct FleetReader {
    link: Link,
    table: TableReader,
    runtime: Handle,
}

impl FleetReader {
    pub(super) fn new(link: Link, table: TableReader, runtime: Handle) -> Self {
        Self { link, table, runtime }
    }
}

impl Reader for FleetReader {
    fn knows_epoch(&mut self, room: &RoomName, epoch: &Epoch) -> Result<bool, StoreError> {
        self.table.knows_epoch(room, epoch)
    }

    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError> {
        self.table.segments(room)
    }

    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let from = Position { epoch: epoch.clone(), offset: after };
        let wanted = Amount { messages: limit, bytes };
        match self.runtime.block_on(recent(&self.link, room, &from, wanted)) {
            Some(records) => Ok(records),
            None => self.table.records(room, epoch, after, limit, bytes),
        }
    }

    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError> {
        self.table.nth_last(room, n, until, bytes)
    }

    fn next_time(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
    ) -> Result<Option<u64>, StoreError> {
        self.table.next_time(room, epoch, after)
    }
}
