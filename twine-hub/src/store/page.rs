//! What a reader with some cursor gets next: the one way from a position to messages.
//!
//! Works on any [`Reader`]. A page starts at a cursor, crosses from epoch to epoch over their
//! recorded ends, and names what is missing instead of skipping it.

use twine_protocol::{Epoch, GapReason, Lost, Offset, Position, RoomName};

use super::{Reader, Record, Segment, StoreError};

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

impl Loss {
    /// What lies between a cursor of another log and the place where this one goes on.
    fn unknown(from: Position, to: Position) -> Self {
        Self { lost: Lost { from, to, count: None }, reason: GapReason::Unknown }
    }
}

/// How much a page may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Reads the page that starts at `start` and ends at `until`, a position of the present epoch, or
/// before it where `limit` says so.
///
/// # Errors
/// Where the store can't be read.
pub(crate) fn read(
    reader: &mut dyn Reader,
    room: &RoomName,
    start: &Start,
    until: &Position,
    limit: Limit,
) -> Result<Page, StoreError> {
    let log = Log::load(reader, room, until)?;
    let (cursor, earlier) = match start {
        Start::After(position) => (position.clone(), None),
        Start::Last(n) => (last(reader, room, *n, until)?, None),
        Start::AfterOrLast(position, n) => (position.clone(), Some(last(reader, room, *n, until)?)),
    };
    let place = log.index_of(reader, &cursor)?;
    let Some(earlier) = earlier.filter(|earlier| *earlier < cursor) else {
        return match place {
            Some(index) => log.walk(reader, room, cursor, index, limit),
            None => Ok(log.after_unknown(cursor, until)),
        };
    };
    let index = log.index_of(reader, &earlier)?.unwrap_or_default();
    let mut page = log.walk(reader, room, earlier, index, limit)?;
    if place.is_none() {
        page.loss = Some(Loss::unknown(cursor, page.start.clone()));
    }
    Ok(page)
}

/// The cursor that the last `n` messages come after.
fn last(reader: &mut dyn Reader, room: &RoomName, n: u32, until: &Position) -> Result<Position, StoreError> {
    let first = if n == 0 { None } else { reader.nth_last(room, n, until)? };
    Ok(first.map_or_else(|| until.clone(), |at| Position { offset: before(at.offset), epoch: at.epoch }))
}

fn before(offset: Offset) -> Offset {
    // An offset less one is an offset.
    Offset::new(offset.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
}

/// The parts of a room's log up to a position, the last of them the present epoch.
struct Log {
    segments: Vec<Segment>,
}

impl Log {
    fn load(reader: &mut dyn Reader, room: &RoomName, until: &Position) -> Result<Self, StoreError> {
        let mut segments = reader.segments(room)?;
        segments.retain(|segment| segment.epoch < until.epoch);
        segments.push(Segment { epoch: until.epoch.clone(), last: until.offset });
        Ok(Self { segments })
    }

    /// The segment that `cursor` lies in; an epoch in which the room had no message lies in the
    /// crossing to the next that had. `None` where the log never was at `cursor`.
    fn index_of(&self, reader: &mut dyn Reader, cursor: &Position) -> Result<Option<usize>, StoreError> {
        let at = self.segments.partition_point(|segment| segment.epoch < cursor.epoch);
        Ok(match self.segments.get(at) {
            Some(segment) if segment.epoch == cursor.epoch => (cursor.offset <= segment.last).then_some(at),
            Some(_) if cursor.offset == Offset::ZERO && reader.knows_epoch(&cursor.epoch)? => Some(at),
            _ => None,
        })
    }

    /// The log goes on in the first epoch after the cursor's, if there is one: what lies in later
    /// epochs the reader can't have seen.
    fn after_unknown(self, cursor: Position, until: &Position) -> Page {
        let start = self
            .segments
            .into_iter()
            .find(|segment| segment.epoch > cursor.epoch)
            .map_or_else(|| until.clone(), |segment| Position { epoch: segment.epoch, offset: Offset::ZERO });
        let complete = start == *until;
        let loss = Some(Loss::unknown(cursor, start.clone()));
        Page { start, loss, items: Vec::new(), complete }
    }

    fn walk(
        &self,
        reader: &mut dyn Reader,
        room: &RoomName,
        cursor: Position,
        index: usize,
        limit: Limit,
    ) -> Result<Page, StoreError> {
        let asked = cursor.clone();
        let mut page = Page { start: cursor.clone(), loss: None, items: Vec::new(), complete: false };
        let (mut index, mut at) = (index, cursor);
        let mut missing = 0;
        let mut left = limit;
        loop {
            let Some(segment) = self.segments.get(index) else {
                page.complete = true;
                return Ok(page);
            };
            if at.epoch != segment.epoch {
                let prev = std::mem::replace(
                    &mut at,
                    Position { epoch: segment.epoch.clone(), offset: Offset::ZERO },
                );
                if page.items.is_empty() && missing > 0 {
                    // Everything before was lost: the loss reaches over the crossing.
                    page.lose(&asked, &at, missing);
                } else {
                    page.items.push(Item::Crossing { epoch: segment.epoch.clone(), prev });
                }
            }
            while at.offset < segment.last {
                if left.messages == 0 || left.bytes == 0 {
                    return Ok(page);
                }
                let records = reader.records(room, &segment.epoch, at.offset, left.messages, left.bytes)?;
                let first = records
                    .iter()
                    .map(|record| record.offset)
                    .find(|offset| *offset <= segment.last)
                    .map_or(segment.last, before);
                if first > at.offset {
                    if !page.items.is_empty() {
                        // A hole after messages: the next page starts with it.
                        return Ok(page);
                    }
                    missing += first.get() - at.offset.get();
                    at.offset = first;
                    page.lose(&asked, &at, missing);
                }
                for record in records.into_iter().take_while(|record| record.offset <= segment.last) {
                    if record.offset != at.offset.next() {
                        return Ok(page);
                    }
                    at.offset = record.offset;
                    left.messages -= 1;
                    left.bytes = left.bytes.saturating_sub(record.size());
                    page.items.push(Item::Message { epoch: segment.epoch.clone(), record });
                }
            }
            index += 1;
        }
    }
}

impl Page {
    fn lose(&mut self, from: &Position, to: &Position, count: u64) {
        self.start = to.clone();
        let lost = Lost { from: from.clone(), to: to.clone(), count: Some(count) };
        self.loss = Some(Loss { lost, reason: GapReason::Expired });
    }
}
