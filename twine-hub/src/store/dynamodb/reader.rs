//! The reading side of the store, for a thread that waits.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Amount, Fence, Table, TableError};
use crate::store::{Reader, Record, Segment, StoreError};

/// How long one question may take. A subscriber waits for it, and so does who asks after it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A [`Reader`] over the table. Its thread must be none of the runtime's.
///
/// A page of a log is read by several questions, the first for the log's [`Reader::segments`]: those
/// after it go by the fence which that one has read.
pub(crate) struct TableReader {
    table: Table,
    runtime: Handle,
    /// The fence that was read last, and whose it is.
    fence: Option<(RoomName, Option<Fence>)>,
}

impl TableReader {
    /// A reader that waits for what runs on `runtime`.
    pub(crate) fn new(table: Table, runtime: Handle) -> Self {
        Self { table, runtime, fence: None }
    }

    /// Reads the room's fence.
    fn load(&mut self, room: &RoomName) -> Result<Option<&Fence>, StoreError> {
        // What was known of another room, or an earlier moment, must not outlive a failure.
        self.fence = None;
        let fence = self.wait(|table, deadline| async move {
            match table.fence(room, deadline).await? {
                Some(fence) => table.whole(room, fence, deadline).await.map(Some),
                None => Ok(None),
            }
        })?;
        Ok(self.fence.insert((room.clone(), fence)).1.as_ref())
    }

    /// The fence that the room's segments were read by.
    fn fence(&mut self, room: &RoomName) -> Result<Option<Fence>, StoreError> {
        match &self.fence {
            Some((of, fence)) if of == room => Ok(fence.clone()),
            _ => self.load(room).map(Option::<&Fence>::cloned),
        }
    }

    fn wait<'a, T, F>(&'a self, ask: impl FnOnce(&'a Table, Instant) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, TableError>> + 'a,
    {
        let asked = async { ask(&self.table, Instant::now() + TIMEOUT).await };
        Ok(self.runtime.block_on(asked)?)
    }
}

impl Reader for TableReader {
    fn knows_epoch(&mut self, room: &RoomName, epoch: &Epoch) -> Result<bool, StoreError> {
        Ok(self.fence(room)?.is_some_and(|fence| fence.knows(epoch)))
    }

    /// Of the epochs that have ended: where the present one ends, the broker knows.
    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError> {
        let seals = self.load(room)?.map(|fence| fence.seals.as_slice()).unwrap_or_default();
        let ended = seals.iter().filter(|seal| seal.last > Offset::ZERO);
        Ok(ended.map(|seal| Segment { epoch: seal.epoch.clone(), last: seal.last }).collect())
    }

    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let fence = self.fence(room)?;
        let seal = fence.as_ref().and_then(|fence| fence.seal_of(epoch));
        let wanted = Amount { messages: limit, bytes };
        self.wait(|table, deadline| table.read(room, epoch, after, wanted, seal, deadline))
    }

    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError> {
        let Some(fence) = self.fence(room)? else { return Ok(None) };
        let wanted = Amount { messages: usize::try_from(n).unwrap_or(usize::MAX), bytes };
        self.wait(|table, deadline| table.nth_last(room, &fence, until, wanted, deadline))
    }

    fn next_time(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
    ) -> Result<Option<u64>, StoreError> {
        let first = self.records(room, epoch, after, 1, 0)?;
        Ok(first.first().map(|record| record.time))
    }
}
