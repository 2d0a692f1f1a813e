//! Items made one log again: by the table, and by the reader that pages are made with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::runtime::Handle;
use twine_protocol::{GapReason, Position, RoomName};

use super::{Bench, epoch, offset, offsets, place, record, room, soon};
use crate::store::dynamodb::{Amount, Seal, Table, TableReader};
use crate::store::page::{self, Item, Limit, Start};
use crate::store::{Reader, Record, Retention};

const ALL: Amount = Amount { messages: 100_000, bytes: usize::MAX };

/// More than DynamoDB gives at once, of messages too large to be many in an item.
pub(super) async fn parts(bench: Bench) {
    let table = bench.table(Retention::Forever).await;
    let mut random = fastrand::Rng::with_seed(1);
    let mut large = |n| {
        let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(60_000).collect();
        Record { data: RawValue::from_string(format!("\"{text}\"")).unwrap(), ..record(n, n) }
    };
    let written: Vec<_> = (1..=40).map(&mut large).collect();
    table.write(&room(), &epoch(1), &written, soon()).await.unwrap();
    // Far from the others: the same write, another item.
    table.write(&room(), &epoch(1), &[record(50, 50), record(5_000, 51)], soon()).await.unwrap();
    assert_eq!(table.end(&room(), &epoch(1), soon()).await.unwrap(), Some(offset(5_000)));
    assert_eq!(table.end(&room(), &epoch(2), soon()).await.unwrap(), None);

    let read = async |after, wanted| {
        table.read(&room(), &epoch(1), offset(after), wanted, None, soon()).await.unwrap()
    };
    let (mut found, mut reads) = (Vec::new(), 0);
    while found.len() < 40 {
        let part = read(found.len() as u64, ALL).await;
        assert!(!part.is_empty());
        found.extend(part);
        reads += 1;
    }
    assert!(reads > 1, "a page of DynamoDB is 1 MB");
    assert_eq!(offsets(&found), (1..=40).collect::<Vec<_>>());
    assert!(found.iter().zip(&written).all(|(found, written)| found.data.get() == written.data.get()));
    assert_eq!(offsets(&read(2, Amount { messages: 3, ..ALL }).await), [3, 4, 5]);
    assert_eq!(offsets(&read(2, Amount { bytes: 200_000, ..ALL }).await), [3, 4, 5]);
    assert_eq!(offsets(&read(2, Amount { bytes: 1, ..ALL }).await), [3]);
    assert_eq!(offsets(&read(40, ALL).await), [50]);
    assert_eq!(offsets(&read(50, ALL).await), [5_000]);
    assert!(read(5_000, ALL).await.is_empty());
    assert!(read(twine_protocol::Offset::MAX.get(), ALL).await.is_empty());
    let tail = table.tail(&room(), &epoch(1), offset(38), soon()).await.unwrap();
    assert_eq!((tail.last.get(), tail.missing.to_string().as_str()), (5_000, "41-49 51-4999"));
    let tail = table.tail(&room(), &epoch(2), offset(3), soon()).await.unwrap();
    assert_eq!((tail.last.get(), tail.missing.is_empty()), (3, true));
}

/// A room of several epochs, as hubs may have written it, and what must be in it.
struct Played {
    room: RoomName,
    /// Every place of the log, whether its message was kept or never durable, in order.
    places: Vec<(Position, bool)>,
    until: Position,
}

/// Writes random items of each epoch: every durable message in one at least, some in several; and after
/// an epoch has its seal, what should have come before.
async fn play(table: &Table, seed: u64) -> Played {
    let mut random = fastrand::Rng::with_seed(seed);
    let room: RoomName = format!("room-{seed}").parse().unwrap();
    let mut places = Vec::new();
    let epochs = random.u64(1..=3);
    let mut fence = table.advance(&room, None, &epoch(1), soon()).await.unwrap();
    for n in 1..=epochs {
        let is_last = n == epochs;
        let length = random.u64(u64::from(is_last)..40);
        // Of the present epoch a reader sees nothing but what is dense.
        let durable: BTreeSet<u64> = (1..=length).filter(|_| is_last || random.u8(..10) > 0).collect();
        let mut left = durable.clone();
        while !left.is_empty() {
            let (from, count) = (random.u64(1..=length), random.usize(1..8));
            let items: Vec<_> =
                durable.range(from..).copied().filter(|_| random.u8(..3) > 0).take(count).collect();
            let records: Vec<_> = items.iter().map(|offset| record(*offset, n * 1_000 + offset)).collect();
            table.write(&room, &epoch(n), &records, soon()).await.unwrap();
            left.retain(|offset| !items.contains(offset));
        }
        let last = durable.last().copied().unwrap_or_default();
        places.extend((1..=last).map(|offset| (place(&epoch(n), offset), durable.contains(&offset))));
        if is_last {
            return Played { room, places, until: place(&epoch(n), last) };
        }
        fence = table.advance(&room, Some(&fence.epoch), &epoch(n + 1), soon()).await.unwrap();
        // What is known to be there already need not be read again.
        let done = (1..=last).take_while(|offset| durable.contains(offset)).last().unwrap_or_default();
        let tail = table.tail(&room, &epoch(n), offset(random.u64(0..=done)), soon()).await.unwrap();
        assert_eq!(tail.last.get(), last);
        for offset in (1..=last).filter_map(|n| twine_protocol::Offset::new(n).ok()) {
            assert_eq!(tail.missing.contains(offset), !durable.contains(&offset.get()));
        }
        let seal = Seal { epoch: epoch(n), last: tail.last, missing: tail.missing };
        fence = table.seal(&room, &fence, seal, soon()).await.unwrap();
        let late: Vec<_> = (1..length + 5).map(|offset| record(offset, n * 1_000 + offset)).collect();
        table.write(&room, &epoch(n), &late, soon()).await.unwrap();
    }
    unreachable!("the last epoch returns");
}

pub(super) async fn random(bench: Bench) {
    let table = bench.table(Retention::Forever).await;
    for seed in 0..6 {
        let played = play(&table, seed).await;
        let reader = TableReader::new(table.clone(), Handle::current());
        // A reader's thread waits.
        tokio::task::spawn_blocking(move || check(reader, &played, seed)).await.unwrap();
    }
}

/// From every place a reader gets every later message that is there, in order, and is told of the others.
fn check(mut reader: TableReader, played: &Played, seed: u64) {
    let Played { room, places, until } = played;
    let mut random = fastrand::Rng::with_seed(seed);
    let starts = [place(&epoch(1), 0)].into_iter().chain(places.iter().map(|(place, _)| place.clone()));
    for from in starts {
        if random.u8(..6) > 0 {
            continue;
        }
        let limit = Limit { messages: random.usize(1..30), bytes: usize::MAX };
        let (mut cursor, mut got, mut told) = (from.clone(), Vec::new(), 0);
        loop {
            let start = Start::After(cursor.clone());
            let page = page::read(&mut reader, room, &start, until, limit, None).unwrap();
            if let Some(loss) = &page.loss {
                assert_eq!(loss.reason, GapReason::Expired, "seed {seed}");
                told += loss.lost.count.unwrap();
            }
            cursor = page.start.clone();
            for item in page.items {
                match item {
                    Item::Message { epoch, record } => {
                        assert_eq!(record.data.get(), record.offset.get().to_string());
                        cursor = Position { epoch, offset: record.offset };
                        got.push(cursor.clone());
                    }
                    Item::Crossing { epoch, .. } => cursor = place(&epoch, 0),
                }
            }
            if page.complete {
                break;
            }
        }
        let later = places.iter().filter(|(place, _)| *place > from);
        let (there, missing): (Vec<_>, Vec<_>) = later.partition(|(_, is_durable)| *is_durable);
        assert_eq!(got, there.into_iter().map(|(place, _)| place.clone()).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!((told, &cursor), (missing.len() as u64, until), "seed {seed}");
    }
    let kept: Vec<_> = places.iter().filter(|(_, is_durable)| *is_durable).map(|(place, _)| place).collect();
    for n in 1..=kept.len() + 2 {
        let found = reader.nth_last(room, u32::try_from(n).unwrap(), until, usize::MAX).unwrap();
        let expected = kept.get(kept.len().saturating_sub(n)).copied();
        assert_eq!(found.as_ref(), expected, "seed {seed}, the last {n}");
    }
    let ends: BTreeMap<_, _> = places.iter().map(|(place, _)| (place.epoch.clone(), place.offset)).collect();
    let segments = reader.segments(room).unwrap();
    let ended = ends.into_iter().filter(|(epoch, _)| *epoch != until.epoch);
    assert_eq!(
        segments.into_iter().map(|part| (part.epoch, part.last)).collect::<Vec<_>>(),
        ended.collect::<Vec<_>>()
    );
    assert!(reader.knows_epoch(room, &epoch(1)).unwrap() && reader.knows_epoch(room, &until.epoch).unwrap());
    assert!(!reader.knows_epoch(room, &epoch(99)).unwrap());
    assert!(!reader.knows_epoch(&"nowhere".parse().unwrap(), &epoch(1)).unwrap());
}

/// Retention is a cut: what is before it may still be stored, and is not served.
pub(super) async fn retention(bench: Bench) {
    const HOUR: u64 = 3_600_000;
    let table = bench.table(Retention::For(Duration::from_hours(2))).await;
    table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
    let now = crate::clock::unix_millis();
    let message = |n| record(n, if n <= 25 { now - 3 * HOUR } else { now - HOUR });
    // More items than a first page has, all too old; one that is so in part.
    for n in 1..=20 {
        table.write(&room(), &epoch(1), &[message(n)], soon()).await.unwrap();
    }
    table.write(&room(), &epoch(1), &(21..=30).map(message).collect::<Vec<_>>(), soon()).await.unwrap();
    table.write(&room(), &epoch(1), &(28..=40).map(message).collect::<Vec<_>>(), soon()).await.unwrap();
    let mut reader = TableReader::new(table, Handle::current());
    tokio::task::spawn_blocking(move || {
        let head = place(&epoch(1), 40);
        let limit = Limit { messages: 100, bytes: usize::MAX };
        for from in [0, 24, 25, 33] {
            let start = Start::After(place(&epoch(1), from));
            let page = page::read(&mut reader, &room(), &start, &head, limit, None).unwrap();
            assert!(page.complete);
            let lost = page.loss.map_or(0, |loss| loss.lost.count.unwrap());
            assert_eq!(lost, 25_u64.saturating_sub(from));
            assert_eq!(page.items.len() as u64, 40 - from.max(25));
        }
        let at = |after| reader.next_time(&room(), &epoch(1), offset(after)).unwrap();
        assert_eq!([0, 25, 40].map(at), [Some(now - HOUR), Some(now - HOUR), None]);
        let first = reader.nth_last(&room(), 100, &head, usize::MAX).unwrap();
        assert_eq!(first, Some(place(&epoch(1), 26)));
    })
    .await
    .unwrap();
}
