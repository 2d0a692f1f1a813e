//! A room's fence: which epoch is open, and how those before it ended.
//!
//! One item a room, with the sort key `!`. All changes to it are conditional on the epoch it has, so
//! that of several hubs that open a new epoch one does, and the others learn which:
//!
//! ```text
//!   (none) --advance--> epoch A --advance--> epoch B, closing A --seal--> epoch B, sealed: A
//! ```
//!
//! A room that falls silent has its end noted there ([`Table::note`]), for its last messages may be deleted
//! before its epoch is sealed.
//!
//! A writer acknowledges what it wrote only if it reads the fence afterwards and its epoch is open
//! ([`Table::confirm`]); whoever seals an epoch reads its messages after the fence has advanced. So all
//! that was acknowledged is in the seal, and what arrives later is in no log.

use std::time::Duration;

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, Position, RoomName};

use super::call::CallError;
use super::item::{Attributes, number, number_value, offset, string, text};
use super::seals::{Seal, read_seals, seal_value};
use super::{Table, TableError};
use crate::clock;
use crate::store::Retention;
use crate::store::packed::Unreadable;

/// The sort key of a room's fence; it comes before those of all messages.
pub(super) const FENCE: &str = "!";

/// How long a fence outlives the messages that are told by it, at least half of it: as long as the
/// embedded store keeps ends.
const OUTLIVES: Duration = Duration::from_hours(14 * 24);

/// What a room's log consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    /// The epoch that is open: what is assigned belongs to it.
    pub(crate) epoch: Epoch,
    /// The epoch before it, as long as it has no seal. Whoever sees it seals it.
    pub(crate) closing: Option<Epoch>,
    /// Up to where the epoch that is closing, or else the open one, was noted to be durable without a hole:
    /// its messages may have been deleted since.
    pub(crate) noted: Offset,
    /// How earlier epochs ended, in their order.
    pub(crate) seals: Vec<Seal>,
    /// Until when seals of still earlier ones are kept beside the fence, in seconds since 1970; `None` where
    /// there are none.
    pub(crate) older: Option<u64>,
}

impl Fence {
    /// How `epoch` ended, where it did and is remembered.
    pub(crate) fn seal_of(&self, epoch: &Epoch) -> Option<&Seal> {
        self.seals.iter().find(|seal| seal.epoch == *epoch)
    }

    /// Whether there was such an epoch, as far as it is remembered.
    pub(crate) fn knows(&self, epoch: &Epoch) -> bool {
        self.epoch == *epoch || self.closing.as_ref() == Some(epoch) || self.seal_of(epoch).is_some()
    }

    /// Whether this position is in the room's log. In an epoch that is not sealed yet, any may be.
    pub(crate) fn has(&self, position: &Position) -> bool {
        match self.seal_of(&position.epoch) {
            Some(seal) => seal.has(position.offset),
            None => self.knows(&position.epoch),
        }
    }

    fn read(item: &Attributes) -> Result<Self, Unreadable> {
        let closing = item.contains_key("closing").then(|| epoch(item, "closing")).transpose()?;
        let noted = if item.contains_key("noted") { offset(number(item, "noted")?)? } else { Offset::ZERO };
        let older = item.contains_key("older").then(|| number(item, "older")).transpose()?;
        Ok(Self { epoch: epoch(item, "epoch")?, closing, noted, seals: read_seals(item)?, older })
    }
}

pub(super) fn epoch(item: &Attributes, name: &str) -> Result<Epoch, Unreadable> {
    Epoch::new(string(item, name)?).map_err(|_| Unreadable("its epoch is none"))
}

impl Table {
    /// The room's fence, as it is now; `None` for a room that never had one, or was idle for so long
    /// that it is forgotten.
    ///
    /// # Errors
    /// [`TableError`]; so do the others here.
    pub(crate) async fn fence(
        &self,
        room: &RoomName,
        deadline: Instant,
    ) -> Result<Option<Fence>, TableError> {
        let item = self.fence_item(room, None, deadline).await?;
        item.map(|item| self.read_fence(room, &item)).transpose()
    }

    /// Whether `epoch` is open, asked after something was written in it: only then is that durable. It
    /// also sees to it that the fence of a room in use does not expire.
    pub(crate) async fn confirm(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        deadline: Instant,
    ) -> Result<bool, TableError> {
        let Some(item) = self.fence_item(room, Some("epoch, expires"), deadline).await? else {
            return Ok(false);
        };
        let open = string(&item, "epoch").map_err(|reason| self.unreadable(room, FENCE, reason))?;
        if open != epoch.as_str() {
            return Ok(false);
        }
        if self.is_renewal_due(number(&item, "expires").ok())
            && let Err(error) = self.renew(room, epoch, deadline).await
        {
            // It is tried again with the next message, for days.
            tracing::warn!(%room, %error, "a room's fence could not be renewed");
        }
        Ok(true)
    }

    /// Opens the epoch `to`, where `from` is open: `None` for a room without a fence. Says what is in
    /// force then: `to` where this call did it; where another hub was quicker, what that one did; with
    /// `from` still open where an epoch before it must be sealed first.
    pub(crate) async fn advance(
        &self,
        room: &RoomName,
        from: Option<&Epoch>,
        to: &Epoch,
        deadline: Instant,
    ) -> Result<Fence, TableError> {
        if let Some(from) = from {
            let request = self
                .open_fence(room, "SET epoch = :to, closing = :from")
                .condition_expression("epoch = :from AND attribute_not_exists(closing)")
                .expression_attribute_values(":from", text(from.as_str()))
                .expression_attribute_values(":to", text(to.as_str()));
            if let Some(fence) = self.change(room, "opening an epoch", deadline, request).await? {
                return Ok(fence);
            }
        }
        let request = self
            .open_fence(room, "SET epoch = :to")
            .condition_expression("attribute_not_exists(epoch)")
            .expression_attribute_values(":to", text(to.as_str()));
        let fence = self.change(room, "opening a room's first epoch", deadline, request).await?;
        fence.ok_or_else(|| self.unreadable(room, FENCE, GONE))
    }

    /// Seals the epoch that `fence` closes, and says what is in force then: with this seal, or with the
    /// one of a hub that was quicker.
    pub(crate) async fn seal(
        &self,
        room: &RoomName,
        fence: &Fence,
        seal: Seal,
        deadline: Instant,
    ) -> Result<Fence, TableError> {
        let closing = text(seal.epoch.as_str());
        let (earlier, seals) = fence.split_with(seal);
        let older = match earlier.as_slice() {
            [] => fence.older,
            // Before the fence lets go of them.
            earlier => Some(self.put_seals(room, earlier, deadline).await?),
        };
        let seals = seals.iter().map(seal_value).collect();
        let request = match older {
            Some(until) => self
                .update_fence(room)
                .update_expression("SET seals = :seals, older = :older REMOVE closing, noted")
                .expression_attribute_values(":older", number_value(until)),
            None => self.update_fence(room).update_expression("SET seals = :seals REMOVE closing, noted"),
        };
        let request = request
            .condition_expression("epoch = :epoch AND closing = :closing")
            .expression_attribute_values(":epoch", text(fence.epoch.as_str()))
            .expression_attribute_values(":closing", closing)
            .expression_attribute_values(":seals", AttributeValue::L(seals));
        let fence = self.change(room, "sealing an epoch", deadline, request).await?;
        fence.ok_or_else(|| self.unreadable(room, FENCE, GONE))
    }

    /// Notes up to where an epoch is durable without a hole, as long as it is open and that was not noted
    /// yet. It also sees to it that the fence does not expire.
    pub(crate) async fn note(
        &self,
        room: &RoomName,
        done: &Position,
        deadline: Instant,
    ) -> Result<(), TableError> {
        let Some(item) = self.fence_item(room, None, deadline).await? else { return Ok(()) };
        let fence = self.read_fence(room, &item)?;
        if fence.epoch != done.epoch || fence.closing.is_some() {
            return Ok(());
        }
        if fence.noted >= done.offset {
            // Other hubs note the same.
            if self.is_renewal_due(number(&item, "expires").ok()) {
                self.renew(room, &done.epoch, deadline).await?;
            }
            return Ok(());
        }
        let request = self
            .open_fence(room, "SET noted = :noted")
            .condition_expression(
                "epoch = :epoch AND attribute_not_exists(closing) \
                 AND (attribute_not_exists(noted) OR noted < :noted)",
            )
            .expression_attribute_values(":epoch", text(done.epoch.as_str()))
            .expression_attribute_values(":noted", number_value(done.offset.get()));
        // Another hub may have noted more meanwhile, or sealed what it is now.
        self.change(room, "noting a room's end", deadline, request).await.map(drop)
    }

    /// Where a room's fence lasts too short a time, or too long, gives it its own.
    async fn renew(&self, room: &RoomName, epoch: &Epoch, deadline: Instant) -> Result<(), TableError> {
        let request = self
            .update_fence(room)
            .condition_expression("epoch = :epoch")
            .expression_attribute_values(":epoch", text(epoch.as_str()));
        let request = match self.fence_expires() {
            Some(expires) => request
                .update_expression("SET expires = :expires")
                .expression_attribute_values(":expires", number_value(expires)),
            None => request.update_expression("REMOVE expires"),
        };
        // Where another hub has opened a new epoch meanwhile, the next message renews it.
        self.change(room, "renewing a room's fence", deadline, request).await.map(drop)
    }

    /// A change that also says when the fence may go: a room that never has a message has nobody else to
    /// say it.
    fn open_fence(&self, room: &RoomName, change: &str) -> UpdateItemFluentBuilder {
        match self.fence_expires() {
            Some(expires) => self
                .update_fence(room)
                .update_expression(format!("{change}, expires = :expires"))
                .expression_attribute_values(":expires", number_value(expires)),
            None => self.update_fence(room).update_expression(change),
        }
    }

    fn update_fence(&self, room: &RoomName) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.name)
            .key("room", text(room.as_str()))
            .key("at", text(FENCE))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
    }

    /// Makes a conditional change, and says what is in force then, whether it was made or not.
    async fn change(
        &self,
        room: &RoomName,
        action: &'static str,
        deadline: Instant,
        request: UpdateItemFluentBuilder,
    ) -> Result<Option<Fence>, TableError> {
        let item = match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => {
                self.usage.wrote(answer.consumed_capacity.as_ref());
                answer.attributes
            }
            Err(CallError::Refused(UpdateItemError::ConditionalCheckFailedException(failed))) => failed.item,
            Err(error) => return Err(self.failed(action, error)),
        };
        item.map(|item| self.read_fence(room, &item)).transpose()
    }

    pub(super) async fn fence_item(
        &self,
        room: &RoomName,
        attributes: Option<&str>,
        deadline: Instant,
    ) -> Result<Option<Attributes>, TableError> {
        let action = "reading a room's fence";
        let request = self
            .client
            .get_item()
            .table_name(&self.name)
            .key("room", text(room.as_str()))
            .key("at", text(FENCE))
            .set_projection_expression(attributes.map(str::to_owned))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match self.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => {
                self.usage.read(answer.consumed_capacity.as_ref());
                Ok(answer.item)
            }
            Err(error) => Err(self.failed(action, error)),
        }
    }

    fn read_fence(&self, room: &RoomName, item: &Attributes) -> Result<Fence, TableError> {
        Fence::read(item).map_err(|reason| self.unreadable(room, FENCE, reason))
    }

    /// When a fence that is written now may be deleted, in seconds since 1970.
    pub(super) fn fence_expires(&self) -> Option<u64> {
        match self.retention {
            Retention::For(kept) => Some(clock::unix_millis() / 1_000 + (kept + OUTLIVES).as_secs()),
            Retention::Forever => None,
        }
    }

    /// Whether a fence with this expiry needs another.
    fn is_renewal_due(&self, expires: Option<u64>) -> bool {
        match (expires, self.fence_expires()) {
            (Some(expires), Some(wanted)) => expires + OUTLIVES.as_secs() / 2 < wanted,
            (expires, wanted) => expires != wanted,
        }
    }
}

/// What is said of an item that was there a moment ago.
const GONE: Unreadable = Unreadable("it was deleted meanwhile");

#[cfg(test)]
mod tests {
    use super::super::seals::tests::sealed;
    use super::*;

    #[test]
    fn a_fence_says_what_is_in_the_log() {
        let fence = Fence {
            epoch: Epoch::new("e0009").unwrap(),
            closing: Some(Epoch::new("e0008").unwrap()),
            noted: Offset::new(3).unwrap(),
            seals: vec![sealed(5, "2-3"), sealed(7, "")],
            older: Some(9),
        };
        let has = |epoch, offset| fence.has(&Position::new(epoch, offset).unwrap());
        assert!(
            has("e0005", 1) && !has("e0005", 2) && !has("e0005", 3) && has("e0005", 5) && !has("e0005", 6)
        );
        assert!(has("e0008", 99) && has("e0009", 99) && !has("e0006", 1));
        let item = Attributes::from([
            ("epoch".into(), text("e0009")),
            ("closing".into(), text("e0008")),
            ("noted".into(), number_value(3)),
            ("older".into(), number_value(9)),
            ("seals".into(), AttributeValue::L(fence.seals.iter().map(seal_value).collect())),
        ]);
        assert_eq!(Fence::read(&item).unwrap(), fence);
    }
}
