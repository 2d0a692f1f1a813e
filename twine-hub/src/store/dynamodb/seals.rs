//! How epochs ended: in a room's fence, and beside it.
//!
//! Whoever writes a message reads the fence, so it must stay small. Of a room that went on in new epochs
//! very often the earliest seals are moved to items of their own, before the fence lets go of them. Their
//! sort keys are `!EPOCH`, by the last epoch in them; they come after the fence's and before those of
//! messages. The fence says until when there are any ([`Fence::older`]), and only who reads the log then
//! looks for them ([`Table::whole`]).

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tokio::time::Instant;
use twine_protocol::{Epoch, Offset, RoomName};

use super::fence::{Fence, epoch};
use super::item::{Attributes, number, number_value, offset, string, text};
use super::{Offsets, Table, TableError};
use crate::clock;
use crate::store::packed::Unreadable;

/// How many seals a fence holds. Those of earlier epochs are kept beside it.
const MAX_SEALS: usize = 64;

/// Bytes of seals that a fence holds, at most, but for the last one. DynamoDB takes 400 KiB, and who reads
/// the fence pays for all of it.
const MAX_SEALS_BYTES: usize = 128 << 10;

/// Items of seals that are read, at most, the latest: of half as many seals each as a fence may have, or
/// fewer where those are large. A cursor of a still earlier epoch is unknown.
const MAX_ITEMS: i32 = 64;

/// Sort keys before and after those of all these items.
const BEFORE: &str = "! ";
const AFTER: &str = "\"";

/// What a fence says of seals that are kept for good.
const FOR_GOOD: u64 = 9_999_999_999;

/// How an epoch ended, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    /// Which epoch.
    pub(crate) epoch: Epoch,
    /// Its last message, 0 where it had none.
    pub(crate) last: Offset,
    /// Offsets below `last` that were assigned, but whose messages were never durable.
    pub(crate) missing: Offsets,
}

impl Seal {
    /// Whether this offset is in the room's log. What is stored at others arrived too late.
    pub(crate) fn has(&self, offset: Offset) -> bool {
        offset <= self.last && !self.missing.contains(offset)
    }

    fn size(&self) -> usize {
        // The names and marks that DynamoDB counts, and a number's digits.
        48 + self.epoch.as_str().len() + self.missing.to_string().len()
    }
}

impl Fence {
    /// The seals with one more: those that are to be kept beside the fence, and those in it. Where they are
    /// too many, the earlier half leaves it, so that this happens seldom; never the last one, which another
    /// hub may make otherwise at the same time.
    pub(super) fn split_with(&self, seal: Seal) -> (Vec<Seal>, Vec<Seal>) {
        let mut seals: Vec<Seal> = self.seals.iter().cloned().chain([seal]).collect();
        let size = |seals: &[Seal]| seals.iter().map(Seal::size).sum::<usize>();
        if seals.len() <= MAX_SEALS && size(&seals) <= MAX_SEALS_BYTES {
            return (Vec::new(), seals);
        }
        let mut at = seals.len() / 2;
        while at + 1 < seals.len() && size(seals.get(at..).unwrap_or_default()) > MAX_SEALS_BYTES / 2 {
            at += 1;
        }
        let kept = seals.split_off(at);
        (seals, kept)
    }
}

impl Table {
    /// Keeps seals that a fence is about to let go of. Says until when.
    pub(super) async fn put_seals(
        &self,
        room: &RoomName,
        seals: &[Seal],
        deadline: Instant,
    ) -> Result<u64, TableError> {
        let action = "moving seals";
        let last = seals.last().map(|seal| seal.epoch.as_str()).unwrap_or_default();
        let mut item = HashMap::from([
            ("room".into(), text(room.as_str())),
            ("at".into(), text(format!("!{last}"))),
            ("seals".into(), AttributeValue::L(seals.iter().map(seal_value).collect())),
        ]);
        let expires = self.fence_expires();
        item.extend(expires.map(|expires| ("expires".into(), number_value(expires))));
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
        Ok(expires.unwrap_or(FOR_GOOD))
    }

    /// A fence with all seals that are kept.
    ///
    /// # Errors
    /// [`TableError`].
    pub(crate) async fn whole(
        &self,
        room: &RoomName,
        mut fence: Fence,
        deadline: Instant,
    ) -> Result<Fence, TableError> {
        if fence.older.is_none_or(|until| until < clock::unix_millis() / 1_000) {
            return Ok(fence);
        }
        let action = "reading earlier seals";
        let request = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression("room = :room AND #at BETWEEN :low AND :high")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":room", text(room.as_str()))
            .expression_attribute_values(":low", text(BEFORE))
            .expression_attribute_values(":high", text(AFTER))
            .consistent_read(true)
            .scan_index_forward(false)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let (mut all, mut from, mut left) = (BTreeMap::new(), None, MAX_ITEMS);
        // A page ends at 1 MB too.
        while left > 0 {
            let request = request.clone().limit(left).set_exclusive_start_key(from);
            let answer = match self.caller.call(action, deadline, || request.clone().send()).await {
                Ok(answer) => answer,
                Err(error) => return Err(self.failed(action, error)),
            };
            self.usage.read(answer.consumed_capacity.as_ref());
            for item in answer.items.unwrap_or_default() {
                let at = string(&item, "at").unwrap_or_default();
                let seals = read_seals(&item).map_err(|reason| self.unreadable(room, at, reason))?;
                all.extend(seals.into_iter().map(|seal| (seal.epoch.clone(), seal)));
                left -= 1;
            }
            from = answer.last_evaluated_key;
            if from.is_none() {
                break;
            }
        }
        // A hub that was too late to seal an epoch may have moved some that the fence still has.
        all.extend(fence.seals.drain(..).map(|seal| (seal.epoch.clone(), seal)));
        fence.seals = all.into_values().collect();
        Ok(fence)
    }
}

/// The seals in an item.
pub(super) fn read_seals(item: &Attributes) -> Result<Vec<Seal>, Unreadable> {
    match item.get("seals") {
        None => Ok(Vec::new()),
        Some(AttributeValue::L(seals)) => seals.iter().map(read_seal).collect(),
        Some(_) => Err(Unreadable("its seals are no list")),
    }
}

fn read_seal(value: &AttributeValue) -> Result<Seal, Unreadable> {
    let AttributeValue::M(seal) = value else { return Err(Unreadable("a seal is no map")) };
    Ok(Seal {
        epoch: epoch(seal, "epoch")?,
        last: offset(number(seal, "last")?)?,
        missing: if seal.contains_key("missing") {
            string(seal, "missing")?.parse()?
        } else {
            Offsets::default()
        },
    })
}

pub(super) fn seal_value(seal: &Seal) -> AttributeValue {
    let mut fields = HashMap::from([
        ("epoch".into(), text(seal.epoch.as_str())),
        ("last".into(), number_value(seal.last.get())),
    ]);
    if !seal.missing.is_empty() {
        fields.insert("missing".into(), text(seal.missing.to_string()));
    }
    AttributeValue::M(fields)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn sealed(n: u64, missing: &str) -> Seal {
        Seal {
            epoch: Epoch::new(&format!("e{n:04}")).unwrap(),
            last: Offset::new(n).unwrap(),
            missing: missing.parse().unwrap(),
        }
    }

    #[test]
    fn seals_are_bounded_in_number_and_in_bytes_and_none_is_forgotten() {
        let (epoch, noted) = (Epoch::default(), Offset::ZERO);
        let mut fence = Fence { epoch, closing: None, noted, seals: Vec::new(), older: None };
        let mut earlier: Vec<Seal> = Vec::new();
        let mut add = |fence: &mut Fence, seal: Seal| {
            let last = seal.last;
            let (moved, kept) = fence.split_with(seal);
            assert!(kept.len() <= MAX_SEALS && kept.last().unwrap().last == last);
            // What an item may have, names and keys included.
            assert!(moved.iter().map(Seal::size).sum::<usize>() < 390 << 10);
            assert!(kept.len() == 1 || kept.iter().map(Seal::size).sum::<usize>() <= MAX_SEALS_BYTES);
            earlier.extend(moved);
            fence.seals = kept;
            let all: Vec<_> = earlier.iter().chain(&fence.seals).map(|seal| seal.last.get()).collect();
            assert_eq!(all, (1..=last.get()).collect::<Vec<_>>());
        };
        for n in 1..=200 {
            add(&mut fence, sealed(n, ""));
        }
        let far_apart =
            |n: u64| (n..n + 10_000).step_by(2).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for n in 201..=204 {
            add(&mut fence, sealed(n, &far_apart(1_000_000)));
        }
        assert!(fence.seals.len() < 4);
        // One that is too large by itself stays: the log is not to be read without it.
        let huge =
            (1 << 52..).step_by(2).take(10_000).map(|n: u64| n.to_string()).collect::<Vec<_>>().join(" ");
        add(&mut fence, sealed(205, &huge));
        assert_eq!(fence.seals.len(), 1);
        add(&mut fence, sealed(206, ""));
        assert_eq!(fence.seals.len(), 1);
    }
}
