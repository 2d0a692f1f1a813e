//! Items that overlap, made one log again.
//!
//! Items are read in the order of their last messages, a page after the other. What lies in none of
//! those read may lie in a later one, as long as that one could begin early enough: whoever has seen all
//! items up to [`MAX_SPAN`] after an offset, or all there are, knows what there is at that offset.

use std::collections::BTreeMap;

use twine_protocol::{Epoch, Offset, Position};

use super::Seal;
use super::item::MAX_SPAN;
use crate::store::Record;

/// Which messages of an epoch are in a room's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Valid<'a> {
    /// The epoch's end, where it has ended.
    pub(super) seal: Option<&'a Seal>,
    /// Earlier messages than this are too old.
    pub(super) cut: u64,
}

impl Valid<'_> {
    pub(super) fn has(&self, record: &Record) -> bool {
        record.time >= self.cut && self.seal.is_none_or(|seal| seal.has(record.offset))
    }
}

/// How much to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    /// Messages at most.
    pub(crate) messages: usize,
    /// Bytes of messages at most, but for a first one that alone has more.
    pub(crate) bytes: usize,
}

impl Amount {
    /// Takes a record off what is left; false where it is too much.
    fn take(&mut self, bytes: usize, is_first: bool) -> bool {
        if self.messages == 0 || (self.bytes < bytes && !is_first) {
            return false;
        }
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// The first messages after an offset that follow each other without a hole.
#[derive(Debug)]
pub(super) struct Run {
    after: Offset,
    wanted: Amount,
    records: BTreeMap<Offset, Record>,
    /// Where the run ends that comes right after `after`, and what is left of `wanted` there.
    end: Offset,
    left: Amount,
    is_full: bool,
}

impl Run {
    pub(super) fn new(after: Offset, wanted: Amount) -> Self {
        Self { after, wanted, records: BTreeMap::new(), end: after, left: wanted, is_full: false }
    }

    /// Adds an item's messages.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        let later = records.into_iter().filter(|record| record.offset > self.after);
        self.records.extend(later.map(|record| (record.offset, record)));
        while !self.is_full
            && let Some(next) = self.records.get(&self.end.next())
        {
            if self.left.take(next.size(), self.end == self.after) {
                self.end = next.offset;
            } else {
                self.is_full = true;
            }
        }
    }

    /// Whether reading on would bring nothing more: all that is wanted is there.
    pub(super) fn is_full(&self) -> bool {
        self.is_full || self.left.messages == 0
    }

    /// Whether the run may end here, where all items were read whose last message is before
    /// `horizon`: there are messages, and what is missing before them, if anything, is in no item.
    pub(super) fn may_end(&self, horizon: Offset) -> bool {
        let first = self.records.first_key_value().map(|(offset, _)| offset.get());
        self.end > self.after || first.is_some_and(|first| first + MAX_SPAN <= horizon.get())
    }

    /// The run. Where it does not begin right after the offset, what lies between is not there.
    pub(super) fn finish(self) -> Vec<Record> {
        let mut left = self.wanted;
        let mut run: Vec<Record> = Vec::new();
        for (offset, record) in self.records {
            let is_next = run.last().is_none_or(|before| before.offset.next() == offset);
            if !is_next || !left.take(record.size(), run.is_empty()) {
                break;
            }
            run.push(record);
        }
        run
    }
}

/// The last messages before the end of a log, counted back over its epochs.
#[derive(Debug)]
pub(super) struct CountBack {
    left: Amount,
    found: Option<Position>,
    /// Messages whose order is not settled yet, with their sizes.
    waiting: BTreeMap<(Epoch, Offset), usize>,
}

impl CountBack {
    pub(super) fn new(wanted: Amount) -> Self {
        Self { left: wanted, found: None, waiting: BTreeMap::new() }
    }

    /// Adds an item's messages.
    pub(super) fn add<'a>(&mut self, epoch: &Epoch, records: impl IntoIterator<Item = &'a Record>) {
        let sizes = records.into_iter().map(|record| ((epoch.clone(), record.offset), record.size()));
        self.waiting.extend(sizes);
    }

    /// Counts what can come no earlier: all items were read whose last message is `place` or later,
    /// `None` for all there are. Says whether the count is reached.
    pub(super) fn count_to(&mut self, place: Option<&Position>) -> bool {
        while let Some(last) = self.waiting.last_entry() {
            let (epoch, offset) = last.key();
            if place.is_some_and(|place| (epoch, *offset) < (&place.epoch, place.offset)) {
                return false;
            }
            if !self.left.take(*last.get(), self.found.is_none()) {
                return true;
            }
            let ((epoch, offset), _) = last.remove_entry();
            self.found = Some(Position { epoch, offset });
        }
        self.left.messages == 0
    }

    /// The earliest message that was counted.
    pub(super) fn finish(self) -> Option<Position> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn offset(n: u64) -> Offset {
        Offset::new(n).unwrap()
    }

    fn record(n: u64) -> Record {
        let data = RawValue::from_string(n.to_string()).unwrap();
        Record { offset: offset(n), time: n, id: None, sender: None, data }
    }

    /// Items as hubs may write them: any messages of a log, within the span of an item, in the order
    /// of their last ones.
    fn items() -> impl Strategy<Value = Vec<BTreeSet<u64>>> {
        let item = (1u64..60, prop::collection::btree_set(0u64..12, 1..8))
            .prop_map(|(base, steps)| steps.into_iter().map(|step| base + step).collect::<BTreeSet<_>>());
        let far = (1u64..60, 900u64..=MAX_SPAN).prop_map(|(base, step)| BTreeSet::from([base, base + step]));
        prop::collection::vec(prop_oneof![8 => item, 1 => far], 0..30).prop_map(|mut items| {
            items.sort_by_key(|item| item.last().copied());
            items
        })
    }

    /// The first dense run after an offset, of at most so many.
    fn expected(log: &BTreeSet<u64>, after: u64, messages: usize) -> Vec<u64> {
        let mut run: Vec<u64> = Vec::new();
        for n in log.range(after + 1..) {
            if run.last().is_some_and(|before| before + 1 != *n) || run.len() == messages {
                break;
            }
            run.push(*n);
        }
        run
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// However items overlap, and wherever pages of them end, a run is what the log has: it may
        /// end early, but never begins late.
        #[test]
        fn a_run_is_what_the_log_has(
            items in items(),
            after in 0u64..80,
            messages in 1usize..20,
            page in 1usize..5,
        ) {
            let log: BTreeSet<u64> = items.iter().flatten().copied().collect();
            let later: Vec<_> = items.iter().filter(|item| item.last() > Some(&after)).collect();
            let mut run = Run::new(offset(after), Amount { messages, bytes: usize::MAX });
            'reading: for items in later.chunks(page) {
                for item in items {
                    run.add(item.iter().copied().map(record));
                    if run.is_full() {
                        break 'reading;
                    }
                }
                // The next page may bring more items with the same last message.
                if run.may_end(offset(*items[items.len() - 1].last().unwrap())) {
                    break;
                }
            }
            let run: Vec<_> = run.finish().iter().map(|record| record.offset.get()).collect();
            let expected = expected(&log, after, messages);
            prop_assert!(expected.starts_with(&run), "{:?} of {:?}", run, expected);
            prop_assert_eq!(run.is_empty(), expected.is_empty());
        }

        #[test]
        fn counting_back_finds_the_nth_last(items in items(), n in 1usize..20, page in 1usize..5) {
            let log: BTreeSet<u64> = items.iter().flatten().copied().collect();
            let epoch = Epoch::new("e").unwrap();
            let mut count = CountBack::new(Amount { messages: n, bytes: usize::MAX });
            let mut is_reached = false;
            for items in items.iter().rev().collect::<Vec<_>>().chunks(page) {
                for item in items {
                    count.add(&epoch, &item.iter().copied().map(record).collect::<Vec<_>>());
                }
                // The next page may bring more items with the same last message.
                let last = *items[items.len() - 1].last().unwrap();
                if count.count_to(Some(&Position { epoch: epoch.clone(), offset: offset(last + 1) })) {
                    is_reached = true;
                    break;
                }
            }
            prop_assert_eq!(count.count_to(None), is_reached || log.len() >= n);
            let expected = log.iter().nth_back(n.min(log.len().max(1)) - 1).copied();
            prop_assert_eq!(count.finish().map(|position| position.offset.get()), expected);
        }
    }

    #[test]
    fn bytes_bound_a_run_but_never_empty_it() {
        let bytes = record(1).size() * 2;
        for (bytes, expected) in [(0, 1), (bytes - 1, 1), (bytes, 2), (usize::MAX, 3)] {
            let wanted = Amount { messages: 10, bytes };
            let mut run = Run::new(Offset::ZERO, wanted);
            run.add((1..=3).map(record));
            assert_eq!(run.is_full(), expected < 3);
            assert_eq!(run.finish().len(), expected, "{bytes}");
            let mut count = CountBack::new(wanted);
            count.add(&Epoch::default(), &(1..=3).map(record).collect::<Vec<_>>());
            assert_eq!(count.count_to(None), expected < 3);
            assert_eq!(count.finish().unwrap().offset, offset(4 - expected as u64));
        }
    }

    #[test]
    fn what_is_later_than_a_hole_waits_for_what_may_fill_it() {
        let mut run = Run::new(Offset::ZERO, Amount { messages: 10, bytes: usize::MAX });
        run.add([record(3)]);
        assert!(!run.may_end(offset(3 + MAX_SPAN - 1)));
        run.add([record(1), record(3 + MAX_SPAN - 1)]);
        assert!(run.may_end(offset(3)));
        assert_eq!(run.finish().len(), 1);
    }
}
