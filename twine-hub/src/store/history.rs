//! Pages of a room's past, forwards or backwards, between positions or times.

use twine_protocol::{Epoch, Position, RoomName};

use super::log::Log;
use super::page::{self, Item, Limit};
use super::{Reader, Record, StoreError};

/// Which way pages follow each other; within a page messages come oldest first either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the earliest on.
    Forwards,
    /// From the latest back.
    Backwards,
}

/// A part of a log: what lies within all the bounds that are there.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    /// Messages after this position.
    pub(crate) after: Option<Position>,
    /// Messages before this position.
    pub(crate) before: Option<Position>,
    /// Messages of this time, in milliseconds, or later.
    pub(crate) since: Option<u64>,
    /// Messages of an earlier time than this.
    pub(crate) until: Option<u64>,
    /// Which end the page is at.
    pub(crate) direction: Direction,
}

/// Some messages of a range.
#[derive(Debug)]
pub(crate) struct Part {
    /// Oldest first.
    pub(crate) messages: Vec<(Epoch, Record)>,
    /// Where there are more: the position that the next page comes after, or before.
    pub(crate) next: Option<Position>,
}

/// Reads the first page of a range in its direction; `head` is the log's end.
///
/// # Errors
/// Where the store can't be read.
pub(crate) fn read(
    reader: &mut dyn Reader,
    room: &RoomName,
    range: &Range,
    head: &Position,
    limit: Limit,
) -> Result<Part, StoreError> {
    let mut log = Log::load(reader, room, head)?;
    let mut low = match &range.after {
        Some(after) if log.has(reader, room, after)? => after.clone(),
        Some(after) => log.later_than(after),
        None => log.start(),
    };
    if let Some(since) = range.since {
        low = log.since(reader, room, low, since)?;
    }
    let mut high = range.before.as_ref().map_or_else(|| head.clone(), |before| log.earlier_than(before));
    if let Some(until) = range.until {
        high = log.since(reader, room, log.start(), until)?.min(high);
    }
    if log.count_to(&low) >= log.count_to(&high) {
        return Ok(Part { messages: Vec::new(), next: None });
    }
    log.end_at(&high);
    match range.direction {
        Direction::Forwards => forwards(&log, reader, room, low, limit),
        Direction::Backwards => backwards(&log, reader, room, &low, &high, limit),
    }
}

fn forwards(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    low: Position,
    limit: Limit,
) -> Result<Part, StoreError> {
    let page = page::walk(log, reader, room, low, limit)?;
    let is_complete = page.complete;
    let messages = messages(page.items);
    let next = messages.last().filter(|_| !is_complete).map(position);
    Ok(Part { messages, next })
}

fn backwards(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    low: &Position,
    high: &Position,
    limit: Limit,
) -> Result<Part, StoreError> {
    let n = u32::try_from(limit.messages).unwrap_or(u32::MAX);
    let mut high = high.clone();
    loop {
        let Some(first) = reader.nth_last(room, n, &high, limit.bytes)? else {
            return Ok(Part { messages: Vec::new(), next: None });
        };
        let from = page::before(first).max(low.clone());
        let messages = all_from(log, reader, room, from.clone(), limit.messages)?;
        let earlier = reader.nth_last(room, 1, &from, usize::MAX)?;
        let has_more = earlier.is_some_and(|earlier| earlier > *low);
        if messages.is_empty() && has_more {
            // All that were counted are damaged.
            high = from;
            continue;
        }
        let next = messages.first().filter(|_| has_more).map(position);
        return Ok(Part { messages, next });
    }
}

/// What lies between a place and the log's end, which was counted to be no more than so many.
fn all_from(
    log: &Log,
    reader: &mut dyn Reader,
    room: &RoomName,
    mut from: Position,
    n: usize,
) -> Result<Vec<(Epoch, Record)>, StoreError> {
    let mut all = Vec::new();
    loop {
        let page = page::walk(log, reader, room, from, Limit { messages: n, bytes: usize::MAX })?;
        from = page.end();
        all.extend(messages(page.items));
        if page.complete {
            return Ok(all);
        }
        // A page ends before what is damaged.
    }
}

fn messages(items: Vec<Item>) -> Vec<(Epoch, Record)> {
    let message = |item| match item {
        Item::Message { epoch, record } => Some((epoch, record)),
        Item::Crossing { .. } => None,
    };
    items.into_iter().filter_map(message).collect()
}

fn position((epoch, record): &(Epoch, Record)) -> Position {
    Position { epoch: epoch.clone(), offset: record.offset }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::conformance::{Played, play, room, steps, time};

    /// A bound by position: one that the log was at, by its number, or one that it never was.
    #[derive(Debug, Clone)]
    enum Place {
        OfLog(prop::sample::Index),
        Other(&'static str, u64),
    }

    fn places() -> impl Strategy<Value = Option<Place>> {
        let place = prop_oneof![
            4 => any::<prop::sample::Index>().prop_map(Place::OfLog),
            1 => prop::sample::select(vec![
                Place::Other("", 0), Place::Other("", 3), Place::Other("0", 1), Place::Other("zzz", 1),
            ]),
        ];
        prop::option::of(place)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// All pages of a range are exactly its messages, whichever way they are turned, and there is
        /// another page exactly where there is another message.
        #[test]
        fn pages_have_every_message_of_a_range_once(
            steps in steps(),
            (after, before) in (places(), places()),
            (since, until) in (prop::option::of(0u64..14), prop::option::of(0u64..14)),
            page_size in 1usize..6,
        ) {
            let Played { mut store, log, gone, positions, head, _folder } = play(steps);
            let position = |place| match place {
                Place::OfLog(index) => index.get(&positions).clone(),
                Place::Other(epoch, offset) => Position::new(epoch, offset).unwrap(),
            };
            let (after, before) = (after.map(position), before.map(position));
            let (since, until) = (since.map(time), until.map(time));
            let is_within = |(at, time): &(Position, u64)| {
                after.as_ref().is_none_or(|after| at > after)
                    && before.as_ref().is_none_or(|before| at < before)
                    && since.is_none_or(|since| *time >= since)
                    && until.is_none_or(|until| *time < until)
            };
            let expected: Vec<_> = log[gone..].iter().filter(|entry| is_within(entry)).map(|(at, _)| at.clone()).collect();
            for direction in [Direction::Forwards, Direction::Backwards] {
                let mut range = Range { after: after.clone(), before: before.clone(), since, until, direction };
                let mut seen: Vec<Position> = Vec::new();
                let limit = Limit { messages: page_size, bytes: usize::MAX };
                for _ in 0..100 {
                    let part = read(&mut *store.reader, &room("a"), &range, &head, limit).unwrap();
                    let of_page: Vec<_> = part.messages.iter().map(super::position).collect();
                    match direction {
                        Direction::Forwards => seen.extend(of_page),
                        Direction::Backwards => { seen.splice(0..0, of_page); }
                    }
                    prop_assert_eq!(part.next.is_some(), seen.len() < expected.len());
                    match (part.next, direction) {
                        (None, _) => break,
                        (next, Direction::Forwards) => range.after = next,
                        (next, Direction::Backwards) => range.before = next,
                    }
                }
                prop_assert_eq!(&seen, &expected, "{:?}", direction);
            }
        }
    }
}
