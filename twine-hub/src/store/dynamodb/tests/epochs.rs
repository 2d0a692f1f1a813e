//! Fences: who opens an epoch, who seals it, and what counts.

use std::time::Duration;

use tokio::runtime::Handle;

use super::{Bench, connect, epoch, location, offset, place, record, room, soon};
use crate::store::dynamodb::fence::FENCE;
use crate::store::dynamodb::item::{number, number_value, text};
use crate::store::dynamodb::{Fence, Seal, Table, TableReader};
use crate::store::page::{self, Item, Limit, Start};
use crate::store::{Record, Retention};

const DAY: Duration = Duration::from_hours(24);

/// Eight hubs at once, each with an epoch of its own to open.
pub(super) async fn race(bench: Bench) {
    let table = bench.table(Retention::For(DAY)).await;
    let open = async |from: Option<Fence>, first: u64| {
        let from = from.map(|fence| fence.epoch);
        let tasks = (first..first + 8).map(|n| {
            let (table, from) = (table.clone(), from.clone());
            tokio::spawn(
                async move { table.advance(&room(), from.as_ref(), &epoch(n), soon()).await.unwrap() },
            )
        });
        all_the_same(tasks.collect()).await
    };
    assert_eq!(table.fence(&room(), soon()).await.unwrap(), None);
    let first = open(None, 10).await;
    assert_eq!((first.closing.as_ref(), first.seals.len()), (None, 0));
    let second = open(Some(first.clone()), 20).await;
    assert!(second.epoch > first.epoch && second.closing.as_ref() == Some(&first.epoch));
    // Until the first is sealed, there is no third.
    let still = table.advance(&room(), Some(&second.epoch), &epoch(30), soon()).await.unwrap();
    assert_eq!(still, second);
    // Each has read another end, for writes were still arriving; one of them counts.
    let seals = (1..=8).map(|n| {
        let (table, fence) = (table.clone(), second.clone());
        let seal = Seal { epoch: first.epoch.clone(), last: offset(n), missing: "1".parse().unwrap() };
        tokio::spawn(async move { table.seal(&room(), &fence, seal, soon()).await.unwrap() })
    });
    let sealed = all_the_same(seals.collect()).await;
    assert_eq!((&sealed.epoch, sealed.closing.as_ref()), (&second.epoch, None));
    assert_eq!(sealed.seals.iter().map(|seal| &seal.epoch).collect::<Vec<_>>(), [&first.epoch]);
    assert!(!sealed.has(&place(&first.epoch, 1)) && sealed.has(&place(&second.epoch, 1)));
    assert_eq!(table.fence(&room(), soon()).await.unwrap(), Some(sealed.clone()));
    // Who comes late learns what is.
    assert_eq!(table.advance(&room(), None, &epoch(40), soon()).await.unwrap(), sealed);
    assert_eq!(table.advance(&room(), Some(&first.epoch), &epoch(40), soon()).await.unwrap(), sealed);
    let third = table.advance(&room(), Some(&sealed.epoch), &epoch(40), soon()).await.unwrap();
    assert_eq!((third.epoch, third.closing, third.seals), (epoch(40), Some(sealed.epoch), sealed.seals));
}

async fn all_the_same(tasks: Vec<tokio::task::JoinHandle<Fence>>) -> Fence {
    let mut fences = Vec::new();
    for task in tasks {
        fences.push(task.await.unwrap());
    }
    assert!(fences.windows(2).all(|pair| pair[0] == pair[1]), "{fences:#?}");
    fences.remove(0)
}

pub(super) async fn confirm(bench: Bench) {
    let table = bench.table(Retention::For(DAY)).await;
    assert!(!table.confirm(&room(), &epoch(1), soon()).await.unwrap());
    table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
    assert!(table.confirm(&room(), &epoch(1), soon()).await.unwrap());
    assert!(!table.confirm(&"other".parse().unwrap(), &epoch(1), soon()).await.unwrap());
    table.advance(&room(), Some(&epoch(1)), &epoch(2), soon()).await.unwrap();
    assert!(!table.confirm(&room(), &epoch(1), soon()).await.unwrap());
    assert!(table.confirm(&room(), &epoch(2), soon()).await.unwrap());
}

pub(super) async fn renewal(bench: Bench) {
    let table = bench.table(Retention::For(DAY)).await;
    let now = crate::clock::unix_millis() / 1_000;
    table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
    let key = |table: &Table| {
        table.client.update_item().table_name(&table.name).key("room", text("chat/1")).key("at", text(FENCE))
    };
    let expires = async |table: &Table| {
        let item = table.fence_item(&room(), None, soon()).await.unwrap().unwrap();
        number(&item, "expires").ok()
    };
    let wanted = now + DAY.as_secs() + 14 * DAY.as_secs();
    assert!(expires(&table).await.unwrap() >= wanted, "a room that never has a message is forgotten too");
    // It is renewed with the first message after half of its time; the clock may go on meanwhile.
    for (left_days, is_renewed) in [(15, false), (9, false), (7, true), (1, true)] {
        let set = number_value(now + left_days * DAY.as_secs());
        let request = key(&table).update_expression("SET expires = :at");
        request.expression_attribute_values(":at", set).send().await.unwrap();
        assert!(table.confirm(&room(), &epoch(1), soon()).await.unwrap());
        let found = expires(&table).await.unwrap();
        assert_eq!(found >= wanted, is_renewed || left_days == 15, "{left_days} days");
    }
    // A fleet that keeps messages for good keeps fences too, and the other way round.
    let forever = connect(&location(bench.port, &table.name), Retention::Forever).await;
    assert!(forever.confirm(&room(), &epoch(1), soon()).await.unwrap());
    assert_eq!(expires(&table).await, None);
    assert!(table.confirm(&room(), &epoch(1), soon()).await.unwrap());
    assert!(expires(&table).await.unwrap() >= wanted);
    // An epoch that is not open renews nothing.
    assert!(!forever.confirm(&room(), &epoch(2), soon()).await.unwrap());
    assert!(expires(&table).await.is_some());
}

/// Of a room that is silent the fence knows the end, and does not expire while somebody watches it.
pub(super) async fn notes(bench: Bench) {
    let table = bench.table(Retention::For(DAY)).await;
    let note = async |of, n| table.note(&room(), &place(&epoch(of), n), soon()).await.unwrap();
    let fence = async || table.fence(&room(), soon()).await.unwrap();
    note(1, 5).await;
    assert_eq!(fence().await, None, "a room that nobody opened has no end");
    let first = table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
    assert_eq!(first.noted, offset(0));
    for (n, noted) in [(5, 5), (3, 5), (5, 5), (7, 7)] {
        note(1, n).await;
        assert_eq!(fence().await.unwrap().noted, offset(noted), "{n}");
    }
    // Until the epoch is sealed, it is that one's end.
    let second = table.advance(&room(), Some(&epoch(1)), &epoch(2), soon()).await.unwrap();
    note(2, 9).await;
    note(1, 9).await;
    assert_eq!(fence().await, Some(second.clone()));
    assert_eq!(second.noted, offset(7));
    let seal = Seal { epoch: epoch(1), last: offset(7), missing: "".parse().unwrap() };
    let sealed = table.seal(&room(), &second, seal, soon()).await.unwrap();
    assert_eq!(sealed.noted, offset(0));
    note(1, 9).await;
    assert_eq!(fence().await, Some(sealed));
    note(2, 1).await;
    let soon_gone = number_value(crate::clock::unix_millis() / 1_000 + DAY.as_secs());
    let request = table.client.update_item().table_name(&table.name).key("room", text("chat/1"));
    let request = request.key("at", text(FENCE)).update_expression("SET expires = :at");
    request.expression_attribute_values(":at", soon_gone).send().await.unwrap();
    note(2, 1).await;
    let item = table.fence_item(&room(), None, soon()).await.unwrap().unwrap();
    assert!(number(&item, "expires").unwrap() > crate::clock::unix_millis() / 1_000 + 8 * DAY.as_secs());
}

/// A room that goes on in a new epoch again and again, with a message in each.
pub(super) async fn many(bench: Bench) {
    const EPOCHS: u64 = 150;
    for retention in [Retention::For(DAY), Retention::Forever] {
        let table = bench.table(retention).await;
        let now = crate::clock::unix_millis();
        let mut fence = table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
        for n in 1..EPOCHS {
            let message = Record { id: Some(format!("id-{n}").parse().unwrap()), ..record(1, now + n) };
            table.write(&room(), &epoch(n), &[message], soon()).await.unwrap();
            fence = table.advance(&room(), Some(&epoch(n)), &epoch(n + 1), soon()).await.unwrap();
            let seal = Seal { epoch: epoch(n), last: offset(1), missing: "".parse().unwrap() };
            fence = table.seal(&room(), &fence, seal, soon()).await.unwrap();
            assert!(fence.seals.len() <= 64, "whoever writes reads it");
        }
        let whole = table.whole(&room(), fence, soon()).await.unwrap();
        let found: Vec<_> = whole.seals.iter().map(|seal| seal.epoch.clone()).collect();
        assert_eq!(found, (1..EPOCHS).map(epoch).collect::<Vec<_>>());
        let room_of_ids = room();
        let mut ids = table.ids(&room_of_ids, &whole, DAY);
        let mut n_ids = 0;
        while let Some(page) = ids.next(soon()).await.unwrap() {
            n_ids += page.len();
        }
        assert_eq!(n_ids as u64, EPOCHS - 1);
        let mut reader = TableReader::new(table, Handle::current());
        let read = move || {
            let limit = Limit { messages: 1_000, bytes: usize::MAX };
            let (start, until) = (Start::After(place(&epoch(1), 0)), place(&epoch(EPOCHS), 0));
            let page = page::read(&mut reader, &room(), &start, &until, limit, None).unwrap();
            assert_eq!((page.loss, page.complete), (None, true));
            let messages = page.items.iter().filter(|item| matches!(item, Item::Message { .. })).count();
            assert_eq!(messages as u64, EPOCHS - 1);
            let start = Start::After(place(&epoch(1), 1));
            assert_eq!(page::read(&mut reader, &room(), &start, &until, limit, None).unwrap().loss, None);
        };
        // A reader's thread waits.
        tokio::task::spawn_blocking(read).await.unwrap();
    }
}

/// A window that reaches over two epochs, of which the first has an end.
pub(super) async fn ids(bench: Bench) {
    let table = bench.table(Retention::Forever).await;
    let message = |n| record(n, 1_000 + n);
    table.write(&room(), &epoch(1), &[1, 2, 3, 5].map(message), soon()).await.unwrap();
    table.write(&room(), &epoch(1), &[5, 6, 7].map(message), soon()).await.unwrap();
    let fence = Fence {
        epoch: epoch(2),
        closing: None,
        noted: offset(0),
        seals: vec![Seal { epoch: epoch(1), last: offset(6), missing: "4-5".parse().unwrap() }],
        older: None,
    };
    // Of the open epoch, which may be sealed without it, of one that the fence does not know, and of
    // another room.
    table.write(&room(), &epoch(2), &[record(1, 1_010)], soon()).await.unwrap();
    table.write(&room(), &epoch(3), &[record(9, 1_011)], soon()).await.unwrap();
    table.write(&"other".parse().unwrap(), &epoch(2), &[record(9, 1_011)], soon()).await.unwrap();
    // Counted back from the last message that is in the log, which was published at 1,006.
    for (window, expected) in
        [(5_000, vec![(1, 6), (1, 3), (1, 2), (1, 1)]), (3, vec![(1, 6), (1, 3)]), (0, vec![(1, 6)])]
    {
        let room = room();
        let mut ids = table.ids(&room, &fence, Duration::from_millis(window));
        let mut found = Vec::new();
        while let Some(page) = ids.next(soon()).await.unwrap() {
            found.extend(page);
        }
        let positions: Vec<_> = found.iter().map(|stored| stored.position.clone()).collect();
        assert_eq!(positions, expected.iter().map(|(of, n)| place(&epoch(*of), *n)).collect::<Vec<_>>());
        assert!(found.iter().all(|stored| stored.id.as_str() == format!("id-{}", stored.position.offset)));
        assert_eq!(ids.last_time(), Some(1_006));
    }
}
