//! Writing messages.

use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use tokio::time::Instant;
use twine_protocol::{Epoch, RoomName};

use super::{Table, TableError, item};
use crate::store::{Record, Retention};

/// How long items stay beyond the retention: clocks differ, and TTL goes by the times of messages, which
/// Redis gave. So long are messages served too, less half of it: a clock may be wrong by that, either way.
pub(super) const SPARE: Duration = Duration::from_hours(1);

impl Table {
    /// Writes messages of one epoch, in order of their offsets, which need not be dense: as one item
    /// mostly, as several where they are too many. They are durable once [`Table::confirm`] has found
    /// the epoch open after this.
    ///
    /// May be repeated: the same messages in several items are one.
    ///
    /// # Errors
    /// [`TableError`]; some, or all, may be written then all the same, now or later.
    pub(crate) async fn write(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        records: &[Record],
        deadline: Instant,
    ) -> Result<(), TableError> {
        let action = "writing messages";
        for records in item::split(records) {
            let item = item::encode(room, epoch, fastrand::u64(..), records, self.expires(records));
            let request = self
                .client
                .put_item()
                .table_name(&self.name)
                .set_item(Some(item))
                .return_consumed_capacity(ReturnConsumedCapacity::Total);
            match self.caller.call(action, deadline, || request.clone().send()).await {
                Ok(answer) => self.usage.wrote(answer.consumed_capacity.as_ref()),
                Err(error) => return Err(self.failed(action, error)),
            }
        }
        Ok(())
    }

    /// When an item may be deleted, in seconds since 1970.
    fn expires(&self, records: &[Record]) -> Option<u64> {
        match self.retention {
            Retention::For(kept) => {
                let time = records.last().map_or(0, |record| record.time);
                Some(time / 1_000 + (kept + SPARE).as_secs())
            }
            Retention::Forever => None,
        }
    }
}
