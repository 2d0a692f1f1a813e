//! A reader that tells a test of what is read.

use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::{Reader, Record, Segment, StoreError};

/// Calls `observe` with the messages of each read, before it gives them out.
pub(crate) struct Observed<F> {
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) observe: F,
}

impl<F: FnMut(&[Record]) + Send> Reader for Observed<F> {
    fn knows_epoch(&mut self, room: &RoomName, epoch: &Epoch) -> Result<bool, StoreError> {
        self.reader.knows_epoch(room, epoch)
    }

    fn segments(&mut self, room: &RoomName) -> Result<Vec<Segment>, StoreError> {
        self.reader.segments(room)
    }

    fn records(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let records = self.reader.records(room, epoch, after, limit, bytes)?;
        (self.observe)(&records);
        Ok(records)
    }

    fn nth_last(
        &mut self,
        room: &RoomName,
        n: u32,
        until: &Position,
        bytes: usize,
    ) -> Result<Option<Position>, StoreError> {
        self.reader.nth_last(room, n, until, bytes)
    }

    fn next_time(
        &mut self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
    ) -> Result<Option<u64>, StoreError> {
        self.reader.next_time(room, epoch, after)
    }
}
