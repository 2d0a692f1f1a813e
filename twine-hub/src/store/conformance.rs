//! What every store must do, run on each of them; and reading, held against a simple model.

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;
use twine_protocol::{Epoch, GapReason, Lost, MessageId, Offset, Position, RoomName};

use super::page::{self, Item, Limit, Page, Recovery, Start};
use super::{Kind, Opened, Options, Record, Retention, StoreError, memory, open};

const ALL: Limit = Limit { messages: 1_000, bytes: usize::MAX };

pub(super) fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

pub(super) fn offset(n: u64) -> Offset {
    Offset::new(n).unwrap()
}

pub(super) fn at(epoch: &Epoch, n: u64) -> Position {
    Position { epoch: epoch.clone(), offset: offset(n) }
}

pub(super) fn record(n: u64, time: u64, id: Option<&str>) -> Record {
    Record {
        offset: offset(n),
        time,
        id: id.map(|id| MessageId::new(id).unwrap()),
        sender: None,
        data: RawValue::from_string(n.to_string()).unwrap(),
    }
}

pub(super) fn append(store: &mut Opened, name: &str, offsets: Range<u64>, time: u64) {
    store.writer.begin().unwrap();
    for n in offsets {
        store.writer.append(&room(name), &record(n, time, None)).unwrap();
    }
    store.writer.commit().unwrap();
}

/// A page as `offset` for messages and `epoch` for crossings.
pub(super) fn shown(page: &Page) -> Vec<String> {
    let show = |item: &Item| match item {
        Item::Message { record, .. } => record.offset.to_string(),
        Item::Crossing { prev, .. } => format!("crossing after {}", prev.offset),
    };
    page.items.iter().map(show).collect()
}

pub(super) fn read(store: &mut Opened, name: &str, start: &Start, until: &Position) -> Page {
    page::read(&mut *store.reader, &room(name), start, until, ALL, None).unwrap()
}

fn in_memory() -> Opened {
    open(&Options { kind: Kind::Memory { max_bytes: usize::MAX }, retention: Retention::Forever }).unwrap()
}

pub(super) fn sqlite(folder: &tempfile::TempDir) -> Opened {
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    open(&Options { kind, retention: Retention::Forever }).unwrap()
}

/// Runs a test on each store.
fn on_each(test: fn(Opened)) {
    test(in_memory());
    test(sqlite(&tempfile::tempdir().unwrap()));
}

#[test]
fn what_is_committed_is_read_and_counted() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        assert_eq!(store.writer.head(&room("a")).unwrap(), Offset::ZERO);
        append(&mut store, "a", 1..4, 10);
        append(&mut store, "b", 1..2, 10);
        append(&mut store, "a", 4..6, 10);
        assert_eq!(store.writer.head(&room("a")).unwrap(), offset(5));
        let page = read(&mut store, "a", &Start::After(at(&epoch, 2)), &at(&epoch, 5));
        assert_eq!(shown(&page), ["3", "4", "5"]);
        assert!(page.complete && page.loss.is_none());
        let page = read(&mut store, "a", &Start::After(at(&epoch, 2)), &at(&epoch, 4));
        assert_eq!(shown(&page), ["3", "4"], "nothing after the end that was asked for");
        let page = read(&mut store, "nowhere", &Start::After(at(&epoch, 0)), &at(&epoch, 0));
        assert!(page.items.is_empty() && page.loss.is_none());
    });
}

#[test]
fn the_last_n_are_counted_back_from_the_head() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        append(&mut store, "a", 1..6, 10);
        let head = at(&epoch, 5);
        assert_eq!(shown(&read(&mut store, "a", &Start::Last(2), &head)), ["4", "5"]);
        assert_eq!(shown(&read(&mut store, "a", &Start::Last(2), &at(&epoch, 3))), ["2", "3"]);
        assert_eq!(shown(&read(&mut store, "a", &Start::Last(99), &head)), ["1", "2", "3", "4", "5"]);
        assert_eq!(shown(&read(&mut store, "a", &Start::Last(0), &head)), [""; 0]);
        assert_eq!(read(&mut store, "b", &Start::Last(3), &at(&epoch, 0)).start, at(&epoch, 0));
        let earlier = Start::AfterOrLast(at(&epoch, 2), 1);
        assert_eq!(shown(&read(&mut store, "a", &earlier, &head)), ["3", "4", "5"]);
        let earlier = Start::AfterOrLast(at(&epoch, 4), 3);
        assert_eq!(shown(&read(&mut store, "a", &earlier, &head)), ["3", "4", "5"]);
    });
}

#[test]
fn an_id_is_found_within_its_window_and_in_its_room_also_before_the_commit() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        let id = MessageId::new("x").unwrap();
        store.writer.begin().unwrap();
        store.writer.append(&room("a"), &record(1, 100, Some("x"))).unwrap();
        assert_eq!(store.writer.find_id(&room("a"), &id, 100).unwrap(), Some(at(&epoch, 1)));
        store.writer.commit().unwrap();
        assert_eq!(store.writer.find_id(&room("a"), &id, 50).unwrap(), Some(at(&epoch, 1)));
        assert_eq!(store.writer.find_id(&room("a"), &id, 101).unwrap(), None);
        assert_eq!(store.writer.find_id(&room("b"), &id, 0).unwrap(), None);
    });
}

#[test]
fn retention_takes_the_oldest_in_batches_and_a_reader_is_told_what_it_missed() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        append(&mut store, "a", 1..4, 10);
        append(&mut store, "a", 4..6, 20);
        assert_eq!(store.writer.expire(20, 2).unwrap(), 2);
        assert_eq!(store.writer.expire(20, 2).unwrap(), 1);
        assert_eq!(store.writer.expire(20, 2).unwrap(), 0);
        let page = read(&mut store, "a", &Start::After(at(&epoch, 1)), &at(&epoch, 5));
        assert_eq!(shown(&page), ["4", "5"]);
        let loss = page.loss.unwrap();
        assert_eq!(loss.reason, GapReason::Expired);
        assert_eq!(loss.lost, Lost { from: at(&epoch, 1), to: at(&epoch, 3), count: Some(2) });
        assert_eq!(page.start, at(&epoch, 3));
        store.writer.expire(1000, 100).unwrap();
        assert_eq!(store.writer.head(&room("a")).unwrap(), offset(5), "the head outlives the messages");
        let page = read(&mut store, "a", &Start::After(at(&epoch, 4)), &at(&epoch, 5));
        assert_eq!(page.loss.unwrap().lost.count, Some(1));
        assert_eq!(page.start, at(&epoch, 5));
    });
}

#[test]
fn a_cursor_of_another_log_is_told_so_and_goes_on_with_what_came_later() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        append(&mut store, "a", 1..3, 10);
        let head = at(&epoch, 2);
        for (cursor, start) in [
            (Position::new("", 0).unwrap(), at(&epoch, 0)),
            (Position::new("000000000001-other", 7).unwrap(), at(&epoch, 0)),
            (Position::new("zzz", 1).unwrap(), head.clone()),
            (at(&epoch, 3), head.clone()),
        ] {
            let page = read(&mut store, "a", &Start::After(cursor.clone()), &head);
            let loss = page.loss.unwrap();
            assert_eq!((loss.reason, loss.lost.count), (GapReason::Unknown, None));
            assert_eq!((loss.lost.from, &loss.lost.to), (cursor, &start));
            assert_eq!(page.start, start);
        }
        let cursor = Position::new("zzz", 1).unwrap();
        let page = read(&mut store, "a", &Start::AfterOrLast(cursor.clone(), 1), &head);
        assert_eq!(shown(&page), ["2"]);
        let loss = page.loss.unwrap();
        assert_eq!((loss.reason, loss.lost.from, loss.lost.to), (GapReason::Unknown, cursor, at(&epoch, 1)));
    });
}

#[test]
fn what_is_beyond_the_recovery_limits_is_told_and_not_delivered() {
    on_each(|mut store| {
        let epoch = store.writer.epoch().clone();
        let now = super::epoch::now();
        append(&mut store, "a", 1..4, now - 2 * HOUR);
        append(&mut store, "a", 4..11, now);
        let recover = |store: &mut Opened, start: Start, max_messages, max_age| {
            let recovery = Recovery { max_messages, max_age: Duration::from_millis(max_age) };
            page::read(&mut *store.reader, &room("a"), &start, &at(&epoch, 10), ALL, Some(&recovery)).unwrap()
        };
        let after = |n| Start::After(at(&epoch, n));
        let lost = |from, to| {
            let lost = Lost { from: at(&epoch, from), to: at(&epoch, to), count: Some(to - from) };
            Some(page::Loss { lost, reason: GapReason::Limit })
        };
        for (start, max_messages, max_age, first, loss) in [
            // At the limits, and within them.
            (after(0), 10, 3 * HOUR, 1, None),
            (after(3), 7, HOUR, 4, None),
            (after(10), 1, 1, 11, None),
            // Too many, too old, and both.
            (after(0), 9, 3 * HOUR, 2, lost(0, 1)),
            (after(1), 100, HOUR, 4, lost(1, 3)),
            (after(1), 4, HOUR, 7, lost(1, 6)),
            (after(1), 8, HOUR, 4, lost(1, 3)),
            // History is no recovery: what is asked for comes, and is not lost.
            (Start::Last(10), 1, 1, 1, None),
            (Start::AfterOrLast(at(&epoch, 5), 8), 2, HOUR, 3, None),
            (Start::AfterOrLast(at(&epoch, 0), 8), 2, HOUR, 3, lost(0, 2)),
            (Start::AfterOrLast(at(&epoch, 0), 1), 5, HOUR, 6, lost(0, 5)),
        ] {
            let shows = format!("{start:?} with {max_messages} messages and {max_age} ms");
            let page = recover(&mut store, start, max_messages, max_age);
            let expected: Vec<_> = (first..11).map(|n: u64| n.to_string()).collect();
            assert_eq!(shown(&page), expected, "{shows}");
            assert_eq!(page.loss, loss, "{shows}");
        }
        // Who comes from another log is not brought more than that either.
        let page = recover(&mut store, Start::After(Position::new("", 0).unwrap()), 3, HOUR);
        assert_eq!((shown(&page).len(), page.start), (3, at(&epoch, 7)));
        assert_eq!(page.loss.unwrap().reason, GapReason::Unknown);
        // What is lost either way is told once, as what it is for.
        assert_eq!(store.writer.expire(now, 2).unwrap(), 2);
        assert_eq!(recover(&mut store, after(0), 5, HOUR).loss, lost(0, 5));
        let expired = recover(&mut store, after(0), 9, 3 * HOUR).loss.unwrap();
        assert_eq!(
            (expired.reason, expired.lost.to, expired.lost.count),
            (GapReason::Expired, at(&epoch, 2), Some(2))
        );
    });
}

#[test]
fn a_probe_changes_nothing_and_needs_no_transaction() {
    on_each(|mut store| {
        store.writer.begin().unwrap();
        store.writer.append(&room("a"), &record(1, 10, None)).unwrap();
        store.writer.commit().unwrap();
        store.writer.probe().unwrap();
        assert_eq!(store.writer.head(&room("a")).unwrap(), offset(1));
    });
}

#[test]
fn a_probe_fails_where_a_commit_would() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    let other = rusqlite::Connection::open(folder.path().join("twine.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.writer.begin().is_err());
    assert!(store.writer.probe().is_err());
    other.execute_batch("ROLLBACK").unwrap();
    store.writer.probe().unwrap();
}

/// An epoch that was opened long ago and went on until now ends now, not when it opened.
#[test]
fn the_end_of_a_long_epoch_outlives_its_messages() {
    const DAY: u64 = 86_400_000;
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    let old = store.writer.epoch().clone();
    let now = super::epoch::now();
    append(&mut store, "a", 1..2, now - 2 * DAY);
    drop(store);
    let age = |days: u64| {
        let database = rusqlite::Connection::open(folder.path().join("twine.db")).unwrap();
        database.execute("UPDATE epochs SET opened = opened - ?1", [days * DAY]).unwrap();
    };
    age(30);
    let mut store = sqlite(&folder);
    assert_eq!(store.writer.expire(now - DAY, 500).unwrap(), 1);
    let head = at(store.writer.epoch(), 0);
    let page = read(&mut store, "a", &Start::After(at(&old, 1)), &head);
    assert_eq!(shown(&page), ["crossing after 1"]);
    assert!(page.loss.is_none(), "who has missed nothing is told so: {:?}", page.loss);
    drop(store);
    // A month later it may go.
    age(30);
    let mut store = sqlite(&folder);
    store.writer.expire(now - DAY, 500).unwrap();
    assert!(!store.reader.knows_epoch(&room("a"), &old).unwrap());
    assert!(store.reader.segments(&room("a")).unwrap().is_empty());
}

#[test]
fn memory_keeps_no_more_than_it_may() {
    let message = memory::message_size(&room("a"), &record(1, 0, None));
    let max_bytes = memory::room_size(&room("a")) + message * 2;
    let mut store =
        open(&Options { kind: Kind::Memory { max_bytes }, retention: Retention::Forever }).unwrap();
    let epoch = store.writer.epoch().clone();
    append(&mut store, "a", 1..4, 10);
    let page = read(&mut store, "a", &Start::After(at(&epoch, 0)), &at(&epoch, 3));
    assert_eq!(shown(&page), ["2", "3"]);
    assert_eq!(page.loss.unwrap().lost.count, Some(1));
}

#[test]
fn memory_counts_rooms_and_ids_and_never_forgets_a_head() {
    let small = room("r0");
    let with_id = memory::message_size(&small, &record(1, 0, Some("an-id")));
    assert!(with_id > memory::message_size(&small, &record(1, 0, None)) + 2 * "an-id".len());
    // Room for ten heads and one message.
    let max_bytes = memory::room_size(&small) * 10 + memory::message_size(&small, &record(1, 0, None));
    let mut store =
        open(&Options { kind: Kind::Memory { max_bytes }, retention: Retention::Forever }).unwrap();
    let epoch = store.writer.epoch().clone();
    let names: Vec<_> = (0..10).map(|n| format!("r{n}")).collect();
    for name in &names {
        append(&mut store, name, 1..3, 10);
    }
    let mut kept = 0;
    for name in &names {
        assert_eq!(store.writer.head(&room(name)).unwrap(), offset(2));
        let page = read(&mut store, name, &Start::After(at(&epoch, 0)), &at(&epoch, 2));
        kept += page.items.len();
        assert_eq!(page.loss.map_or(0, |loss| loss.lost.count.unwrap()), 2 - page.items.len() as u64);
    }
    assert_eq!(kept, 1);
}

#[test]
fn a_later_opening_knows_the_time_of_the_last_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    assert_eq!(store.writer.last_time(), 0);
    append(&mut store, "a", 1..2, 4711);
    drop(store);
    assert_eq!(sqlite(&folder).writer.last_time(), 4711);
}

#[test]
fn a_rolled_back_transaction_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    store.writer.begin().unwrap();
    store.writer.append(&room("a"), &record(1, 10, Some("x"))).unwrap();
    store.writer.rollback();
    assert_eq!(store.writer.head(&room("a")).unwrap(), Offset::ZERO);
    assert_eq!(store.writer.find_id(&room("a"), &MessageId::new("x").unwrap(), 0).unwrap(), None);
    append(&mut store, "a", 1..2, 10);
}

#[test]
fn a_second_hub_is_kept_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let first = sqlite(&folder);
    let options =
        Options { kind: Kind::Sqlite { data_dir: folder.path().to_owned() }, retention: Retention::Forever };
    assert!(matches!(open(&options), Err(StoreError::InUse { .. })));
    drop(first);
    assert!(open(&options).is_ok());
}

/// What happens to a room of the model.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Append(u64),
    Restart,
    Expire(usize),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1u64..5).prop_map(Step::Append),
        2 => Just(Step::Restart),
        1 => (1usize..8).prop_map(Step::Expire),
    ];
    proptest::collection::vec(step, 1..12)
}

/// A room that some steps were done to, and what must be in it.
pub(super) struct Played {
    pub(super) store: Opened,
    /// Every message ever, oldest first, with its time.
    pub(super) log: Vec<(Position, u64)>,
    /// How many of them retention has removed.
    pub(super) gone: usize,
    /// Every position that the log ever was at.
    pub(super) positions: Vec<Position>,
    pub(super) head: Position,
    pub(super) _folder: tempfile::TempDir,
}

/// Messages of the model are an hour apart, so that the time which a test takes makes none too old.
pub(super) const HOUR: u64 = 3_600_000;

/// The time of the model's `n`th step.
pub(super) fn time(n: u64) -> u64 {
    super::epoch::now() / HOUR * HOUR - 100 * HOUR + n * HOUR
}

pub(super) fn play(steps: Vec<Step>) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let mut store = sqlite(&folder);
    let mut log = Vec::new();
    let mut positions = vec![at(store.writer.epoch(), 0)];
    let (mut head, mut gone) = (0, 0);
    for (n, step) in (1u64..).zip(steps) {
        match step {
            Step::Append(count) => {
                append(&mut store, "a", head + 1..head + 1 + count, time(n));
                for offset in head + 1..=head + count {
                    let position = at(store.writer.epoch(), offset);
                    log.push((position.clone(), time(n)));
                    positions.push(position);
                }
                head += count;
            }
            Step::Restart => {
                drop(store);
                store = sqlite(&folder);
                positions.push(at(store.writer.epoch(), 0));
                head = 0;
            }
            Step::Expire(n) => gone += store.writer.expire(time(100), n).unwrap(),
        }
    }
    let head = at(store.writer.epoch(), head);
    Played { store, log, gone, positions, head, _folder: folder }
}

/// Limits that may or may not be reached: none, so many messages, messages of so many of the model's
/// last steps.
fn recoveries() -> impl Strategy<Value = Option<(u64, u64)>> {
    proptest::option::of((prop_oneof![1u64..20, Just(u64::MAX)], 0u64..14))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// From any position the log ever had, over restarts and retention, a reader gets every later
    /// message that is kept and may be recovered, in order, or is told exactly how many it does not
    /// get, and why: whatever the pages.
    #[test]
    fn from_every_position_nothing_is_skipped_in_silence(
        steps in steps(),
        page_size in 1usize..6,
        recovery in recoveries(),
    ) {
        let Played { mut store, log, gone, positions, head, _folder } = play(steps);
        let since = recovery.map_or(0, |(_, step)| time(step));
        let recovery = recovery.map(|(max_messages, _)| Recovery {
            max_messages,
            // Between two steps of the model.
            max_age: Duration::from_millis(super::epoch::now() - since + HOUR / 2),
        });
        let by_age = log.iter().take_while(|(_, time)| *time < since).count();
        let max = recovery.as_ref().map_or(u64::MAX, |recovery| recovery.max_messages);
        let by_count = log.len().saturating_sub(usize::try_from(max).unwrap());
        for from in &positions {
            let reached = log.iter().filter(|(at, _)| at <= from).count();
            let first = reached.max(gone).max(by_age).max(by_count);
            let reason = match first {
                first if first == reached => None,
                first if first == by_count || (first == by_age && by_age > gone) => Some(GapReason::Limit),
                _ => Some(GapReason::Expired),
            };
            let (mut cursor, mut seen, mut told) = (from.clone(), Vec::new(), 0);
            for n in 0..200 {
                let limit = Limit { messages: page_size, bytes: usize::MAX };
                let start = Start::After(cursor.clone());
                let recovery = recovery.as_ref().filter(|_| n == 0);
                let page = page::read(&mut *store.reader, &room("a"), &start, &head, limit, recovery).unwrap();
                if let Some(loss) = &page.loss {
                    prop_assert_eq!(n, 0, "what is known is told at once");
                    prop_assert_eq!(Some(loss.reason), reason);
                    prop_assert_eq!(&loss.lost.from, &cursor);
                    prop_assert_eq!(&loss.lost.to, &page.start);
                    told += loss.lost.count.unwrap();
                }
                cursor = page.start.clone();
                for item in &page.items {
                    match item {
                        Item::Message { epoch, record } => {
                            prop_assert_eq!(&cursor, &Position { epoch: epoch.clone(), offset: offset(record.offset.get() - 1) });
                            cursor.offset = record.offset;
                            seen.push(cursor.clone());
                        }
                        Item::Crossing { epoch, prev } => {
                            prop_assert_eq!(prev, &cursor);
                            cursor = at(epoch, 0);
                        }
                    }
                }
                if page.complete {
                    break;
                }
            }
            prop_assert_eq!(&cursor, &head);
            prop_assert_eq!(told, (first - reached) as u64);
            let expected: Vec<_> = log[first..].iter().map(|(at, _)| at.clone()).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
