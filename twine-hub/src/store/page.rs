//! What a reader with some cursor gets next: the one way from a position to messages.
//!
//! Works on any [`Reader`]. A page starts at a cursor, crosses from epoch to epoch over their
//! recorded ends, and names what is missing instead of skipping it.

use std::time::Duration;

use twine_protocol::{Epoch, GapReason, Lost, Offset, Position, RoomName};

use super::log::Log;
use super::{Reader, Record, StoreError, epoch};

/// Where reading starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// After this position.
    After(Position),
    /// So that this many messages come, or all there are.
    Last(u32),
    /// At the earlier of the two.
    AfterOrLast(Position, u32),
}

/// A run of a room's log.
#[derive(Debug)]
pub(crate) struct Page {
    /// The cursor that the items come after; after the loss, where there is one.
    pub(crate) start: Position,
    /// What is missing between the cursor that was asked for and `start`.
    pub(crate) loss: Option<Loss>,
    /// What comes, in order.
    pub(crate) items: Vec<Item>,
    /// Whether the page reaches the end that was asked for.
    pub(crate) complete: bool,
}

impl Page {
    /// The cursor that whoever has the page is at.
    pub(super) fn end(&self) -> Position {
        match self.items.last() {
            Some(Item::Message { epoch, record }) => Position { epoch: epoch.clone(), offset: record.offset },
            Some(Item::Crossing { epoch, .. }) => Position { epoch: epoch.clone(), offset: Offset::ZERO },
            None => self.start.clone(),
        }
    }
}

/// One step of a cursor.
#[derive(Debug)]
pub(crate) enum Item {
    /// Over a message.
    Message { epoch: Epoch, record: Record },
    /// Into the next epoch.
    Crossing { epoch: Epoch, prev: Position },
}

/// Messages that are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) lost: Lost,
    pub(crate) reason: GapReason,
}

/// How much a page may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// How much of what it missed a reader gets; what lies before that is lost to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Messages at most, counted back from the head.
    pub(crate) max_messages: u64,
    /// How old they may be.
    pub(crate) max_age: Duration,
}

/// Reads the page that starts at `start` and ends at `until`, a position of the present epoch, or
/// before it where `limit` says so. `recovery` bounds what comes after a cursor, and not what
/// [`Start::Last`] counts.
///
/// # Errors
/// Where the store can't be read.
pub(crate) fn read(
    reader: &mut dyn Reader,
    room: &RoomName,
    start: &Start,
    until: &Position,
    limit: Limit,
    recovery: Option<&Recovery>,
) -> Result<Page, StoreError> {
    let log = Log::load(reader, room, until)?;
    let (cursor, earlier) = match start {
        Start::After(position) => (position, None),
        Start::Last(n) => {
            let cursor = last(reader, room, *n, until)?;
            return walk(&log, reader, room, cursor, limit);
        }
        Start::AfterOrLast(position, n) => (position, Some(last(reader, room, *n, until)?)),
    };
    let is_known = log.has(reader, room, cursor)?;
    let mut from = if is_known { cursor.clone() } else { log.later_than(cursor) };
    if let Some(recovery) = recovery {
        from = floor(&log, reader, room, from, recovery)?;
    }
    let from = earlier.map_or(from.clone(), |earlier| earlier.min(from));
    let reason = if is_known {
        (log.count_to(&from) > log.count_to(cursor)).then_some(GapReason::Limit)
    } else {
        Some(GapReason::Unknown)
    };
    walk_from(&log, reader, room, cursor, from, reason, limit)
}

/// The cursor that the last `n` messages come after.
fn last(reader: &mut dyn Reader, room: &RoomName, n: u32, until: &Position) -> Result<Position, StoreError> {
    let first = if n == 0 { None } else { reader.nth_last(room, n, until, usize::MAX)? };
    Ok(first.map_or_else(|| until.clone(), before))
}

/// The place right before a message.
pub(super) fn before(message: Position) -> Position {
    Position { offset: one_less(message.offset), epoch: message.epoch }
}

fn one_less(offset: Offset) -> Offset {
    // An offset less one is an offset.
    Offset::new(offset.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
}

/// The cursor itself, or a later place where `recovery` does not reach back that far.
fn floor(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    cursor: Position,
    recovery: &Recovery,
) -> Result<Position, StoreError> {
    let skipped = log.count().saturating_sub(recovery.max_messages);
    let cursor = if skipped > log.count_to(&cursor) { log.place(skipped) } else { cursor };
    let max_age = crate::clock::millis(recovery.max_age);
    log.since(reader, room, cursor, epoch::now().saturating_sub(max_age))
}

/// Reads on from a place of the log.
pub(super) fn walk(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    from: Position,
    limit: Limit,
) -> Result<Page, StoreError> {
    walk_from(log, reader, room, &from.clone(), from, None, limit)
}

/// Reads on from a place of the log. What lies between `cursor` and it is lost where there is a
/// `reason`; and so is what is not kept after it.
fn walk_from(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    cursor: &Position,
    from: Position,
    mut reason: Option<GapReason>,
    limit: Limit,
) -> Result<Page, StoreError> {
    let mut page = Page { start: from.clone(), loss: None, items: Vec::new(), complete: false };
    let mut at = from;
    let mut left = limit;
    'log: {
        for segment in log.from(&at.epoch) {
            if at.epoch != segment.epoch {
                let start = Position { epoch: segment.epoch.clone(), offset: Offset::ZERO };
                let prev = std::mem::replace(&mut at, start);
                if page.items.is_empty() && reason.is_some() {
                    // Everything before was lost: the loss reaches over the crossing.
                    page.start = at.clone();
                } else {
                    page.items.push(Item::Crossing { epoch: segment.epoch.clone(), prev });
                }
            }
            while at.offset < segment.last {
                if left.messages == 0 || left.bytes == 0 {
                    break 'log;
                }
                let records = reader.records(room, &segment.epoch, at.offset, left.messages, left.bytes)?;
                let first = records
                    .iter()
                    .map(|record| record.offset)
                    .find(|offset| *offset <= segment.last)
                    .map_or(segment.last, one_less);
                if first > at.offset {
                    if left.messages < limit.messages {
                        // A hole after messages: the next page starts with it.
                        break 'log;
                    }
                    // Before any, it reaches over the crossings too: what is known is told at once.
                    page.items.clear();
                    at.offset = first;
                    page.start = at.clone();
                    reason =
                        reason.filter(|reason| *reason == GapReason::Unknown).or(Some(GapReason::Expired));
                }
                for record in records.into_iter().take_while(|record| record.offset <= segment.last) {
                    if record.offset != at.offset.next() {
                        break 'log;
                    }
                    at.offset = record.offset;
                    left.messages -= 1;
                    left.bytes = left.bytes.saturating_sub(record.size());
                    page.items.push(Item::Message { epoch: segment.epoch.clone(), record });
                }
            }
        }
        page.complete = true;
    }
    page.loss = reason.map(|reason| {
        let count = (reason != GapReason::Unknown)
            .then(|| log.count_to(&page.start).saturating_sub(log.count_to(cursor)));
        Loss { lost: Lost { from: cursor.clone(), to: page.start.clone(), count }, reason }
    });
    Ok(page)
}
