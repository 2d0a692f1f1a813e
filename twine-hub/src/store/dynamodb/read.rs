//! Reading messages: forwards from a cursor, and backwards from an end.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use tokio::time::Instant;
use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use super::item::{self, Attributes, Item, MAX_SPAN, text};
use super::merge::{Amount, CountBack, Run, Valid};
use super::write::SPARE;
use super::{Fence, Offsets, Seal, Table, TableError};
use crate::clock;
use crate::store::{Record, Retention};

/// Items that the first page of a query has at least, and at most; later pages have what DynamoDB gives
/// at once, 1 MB. A message may be an item, or a hundred may be one.
const FIRST_PAGE: std::ops::RangeInclusive<usize> = 16..=256;

/// A sort key before those of all messages, and after the fence's.
const BEFORE_ALL: &str = "#";

/// How an epoch ends, as far as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Its last message.
    pub(crate) last: Offset,
    /// What is not there before it.
    pub(crate) missing: Offsets,
}

/// A message's id, and where and when it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredId {
    pub(crate) id: MessageId,
    pub(crate) position: Position,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
}

impl Table {
    /// Messages of one epoch after `after`, in order and without a hole among them: at most what is
    /// wanted, at least one where there is any. What lies between `after` and the first is not there.
    /// What is older than the retention, or not within `seal`, does not come.
    ///
    /// # Errors
    /// [`TableError`]; so do the others here.
    pub(crate) async fn read(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        wanted: Amount,
        seal: Option<&Seal>,
        deadline: Instant,
    ) -> Result<Vec<Record>, TableError> {
        let valid = Valid { seal, cut: self.cut() };
        let mut run = Run::new(after, wanted);
        let last = seal.map_or(Offset::MAX, |seal| reach(seal.last));
        let keys = Keys { low: item::key(epoch, after.next()), high: item::key_after(epoch, last) };
        let mut query = Query::new(self, room, keys, Order::Forwards { cut: valid.cut }, wanted.messages);
        while let Some(items) = query.next(deadline).await? {
            for item in items {
                run.add(query.records(item)?.into_iter().filter(|record| valid.has(record)));
                if run.is_full() {
                    return Ok(run.finish());
                }
            }
            if query.horizon()?.is_some_and(|horizon| run.may_end(horizon)) {
                break;
            }
        }
        Ok(run.finish())
    }

    /// The last message that is stored of an epoch, whatever lies before it.
    pub(crate) async fn end(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        deadline: Instant,
    ) -> Result<Option<Offset>, TableError> {
        let keys = Keys { low: item::key(epoch, Offset::ZERO), high: item::key_after(epoch, Offset::MAX) };
        let mut query = Query::new(self, room, keys, Order::Backwards, 1);
        let items = query.next(deadline).await?;
        Ok(items.and_then(|items| items.first().map(|item| item.last)))
    }

    /// How an epoch ends, of which all is known to be there up to `after`. Read after the fence has
    /// advanced, it is what the epoch's seal says.
    pub(crate) async fn tail(
        &self,
        room: &RoomName,
        epoch: &Epoch,
        after: Offset,
        deadline: Instant,
    ) -> Result<Tail, TableError> {
        let keys = Keys { low: item::key(epoch, after.next()), high: item::key_after(epoch, Offset::MAX) };
        let mut query = Query::new(self, room, keys, Order::Forwards { cut: 0 }, usize::MAX);
        let mut present = BTreeSet::new();
        while let Some(items) = query.next(deadline).await? {
            for item in items {
                present.extend(query.records(item)?.iter().map(|record| record.offset));
            }
        }
        let last = present.last().copied().unwrap_or(after).max(after);
        Ok(Tail { last, missing: Offsets::missing(after, last, present) })
    }

    /// The ids of the messages in a room's sealed epochs, the latest first: of the last one and of those
    /// that were published within `window` before it. No clock is asked: each would say something else.
    pub(crate) fn ids<'a>(&'a self, room: &'a RoomName, fence: &'a Fence, window: Duration) -> Ids<'a> {
        let keys = Keys { low: BEFORE_ALL.into(), high: item::key_after(&fence.epoch, Offset::MAX) };
        let query = Query::new(self, room, keys, Order::Backwards, 0);
        Ids { query, fence, window: clock::millis(window), last_time: None, is_over: false }
    }

    /// The position of the last message wanted, counted back from `until`: of the first where fewer are
    /// there.
    pub(crate) async fn nth_last(
        &self,
        room: &RoomName,
        fence: &Fence,
        until: &Position,
        wanted: Amount,
        deadline: Instant,
    ) -> Result<Option<Position>, TableError> {
        let cut = self.cut();
        let mut count = CountBack::new(wanted);
        let high = item::key_after(&until.epoch, reach(until.offset));
        let keys = Keys { low: BEFORE_ALL.into(), high };
        let mut query = Query::new(self, room, keys, Order::Backwards, wanted.messages);
        'pages: while let Some(items) = query.next(deadline).await? {
            for item in items {
                if item.time < cut {
                    break 'pages;
                }
                let (epoch, last) = (item.epoch.clone(), item.last);
                let records = query.records(item)?;
                let is_meant = |record: &&Record| {
                    let position = Position { epoch: epoch.clone(), offset: record.offset };
                    record.time >= cut && position <= *until && fence.has(&position)
                };
                count.add(&epoch, records.iter().filter(is_meant));
                // Others may follow that end at the same message.
                if count.count_to(Some(&Position { epoch: epoch.clone(), offset: last.next() })) {
                    break 'pages;
                }
            }
        }
        count.count_to(None);
        Ok(count.finish())
    }

    /// Earlier messages than this are too old to be served, deleted or not: DynamoDB deletes what has
    /// expired some time later, and in no order. A hub's clock may be ahead of the one that gave a message
    /// its time, or behind the one that it is deleted by.
    fn cut(&self) -> u64 {
        match self.retention {
            Retention::For(kept) => clock::unix_millis().saturating_sub(clock::millis(kept + SPARE / 2)),
            Retention::Forever => 0,
        }
    }
}

/// The last message of an item that holds `offset`, at most.
fn reach(offset: Offset) -> Offset {
    Offset::new(offset.get().saturating_add(MAX_SPAN)).unwrap_or(Offset::MAX)
}

/// Ids, page by page.
pub(crate) struct Ids<'a> {
    query: Query<'a>,
    fence: &'a Fence,
    window: u64,
    last_time: Option<u64>,
    is_over: bool,
}

impl Ids<'_> {
    /// When the last message was published, in milliseconds, once a page had one that a seal has. Before
    /// it there may be pages of others: what was written too late.
    pub(crate) fn last_time(&self) -> Option<u64> {
        self.last_time
    }

    /// Some more; `None` where there are none. One message's id may come several times.
    ///
    /// # Errors
    /// [`TableError`]; it may be asked again.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Option<Vec<StoredId>>, TableError> {
        let Self { query, fence, window, last_time, is_over } = self;
        if *is_over {
            return Ok(None);
        }
        let Some(items) = query.next(deadline).await? else { return Ok(None) };
        let mut ids = Vec::new();
        for item in items {
            // Of an epoch that is open nobody knows yet what its seal will have.
            let Some(seal) = fence.seal_of(&item.epoch) else { continue };
            let since = last_time.map(|last| last.saturating_sub(*window));
            if since.is_some_and(|since| item.time < since) && seal.has(item.last) {
                // So are all those before it.
                *is_over = true;
                break;
            }
            let epoch = item.epoch.clone();
            let records = query.records(item)?.into_iter().rev();
            for Record { id, offset, time, .. } in records.filter(|record| seal.has(record.offset)) {
                let since = last_time.get_or_insert(time).saturating_sub(*window);
                let position = Position { epoch: epoch.clone(), offset };
                if let Some(id) = id
                    && time >= since
                {
                    ids.push(StoredId { id, position, time });
                }
            }
        }
        Ok(Some(ids))
    }
}

/// Sort keys of some items, both ends included.
struct Keys {
    low: String,
    high: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// By rising sort keys, without items that have only messages before `cut`.
    Forwards { cut: u64 },
    /// By falling sort keys.
    Backwards,
}

/// A query that is read page by page.
struct Query<'a> {
    table: &'a Table,
    room: &'a RoomName,
    keys: Keys,
    order: Order,
    page: Option<usize>,
    at: At,
}

/// How far a query has come.
enum At {
    Start,
    /// After the item with this key.
    After(Attributes),
    End,
}

impl<'a> Query<'a> {
    fn new(table: &'a Table, room: &'a RoomName, keys: Keys, order: Order, messages: usize) -> Self {
        let page = messages.clamp(*FIRST_PAGE.start(), *FIRST_PAGE.end());
        // Where there is nothing between two keys, DynamoDB calls it an error to ask.
        let at = if keys.low <= keys.high { At::Start } else { At::End };
        Self { table, room, keys, order, page: Some(page), at }
    }

    /// The next items; `None` after the last, and maybe none at all where more may come.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Vec<Item>>, TableError> {
        let start = match &self.at {
            At::Start => None,
            At::After(key) => Some(key.clone()),
            At::End => return Ok(None),
        };
        let mut request = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .key_condition_expression("room = :room AND #at BETWEEN :low AND :high")
            .expression_attribute_names("#at", "at")
            .expression_attribute_values(":room", text(self.room.as_str()))
            .expression_attribute_values(":low", text(&self.keys.low))
            .expression_attribute_values(":high", text(&self.keys.high))
            .consistent_read(true)
            .scan_index_forward(self.order != Order::Backwards)
            .set_limit(self.page.and_then(|page| i32::try_from(page).ok()))
            .set_exclusive_start_key(start)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        if let Order::Forwards { cut } = self.order
            && cut > 0
        {
            request = request
                .filter_expression("#time >= :cut")
                .expression_attribute_names("#time", "time")
                .expression_attribute_values(":cut", item::number_value(cut));
        }
        let action = "reading messages";
        let answer = match self.table.caller.call(action, deadline, || request.clone().send()).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.table.failed(action, error)),
        };
        self.table.usage.read(answer.consumed_capacity.as_ref());
        self.page = None;
        self.at = answer.last_evaluated_key.map_or(At::End, At::After);
        let read = |mut attributes: Attributes| {
            Item::read(&mut attributes).map_err(|reason| {
                let at = item::string(&attributes, "at").unwrap_or_default();
                self.table.unreadable(self.room, at, reason)
            })
        };
        answer.items.unwrap_or_default().into_iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    fn records(&self, item: Item) -> Result<Vec<Record>, TableError> {
        let at = item::key(&item.epoch, item.last);
        item.records().map_err(|reason| self.table.unreadable(self.room, at, reason))
    }

    /// The last message of the last item that was looked at; `None` where there are no more.
    fn horizon(&self) -> Result<Option<Offset>, TableError> {
        let At::After(key) = &self.at else { return Ok(None) };
        let at = item::string(key, "at").unwrap_or_default();
        let last = item::last_of(at).map_err(|reason| self.table.unreadable(self.room, at, reason))?;
        Ok(Some(last))
    }
}
