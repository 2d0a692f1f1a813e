//! DynamoDB in trouble: a proxy before it that refuses, fails, cuts, hangs.

use std::time::Duration;

use tokio::time::Instant;
use twine_protocol::ErrorCode;

use super::faulty_proxy::{Fault, FaultyProxy};
use super::{Bench, connect, epoch, location, offset, offsets, record, room, soon};
use crate::store::dynamodb::{Amount, Seal, Table, TableError};
use crate::store::{Retention, StoreError};

const ALL: Amount = Amount { messages: 1_000, bytes: usize::MAX };

/// A table, and the same one behind a proxy.
async fn behind_proxy(bench: &Bench) -> (Table, Table, FaultyProxy) {
    let table = bench.table(Retention::Forever).await;
    let proxy = FaultyProxy::start(bench.port).await;
    let behind = connect(&location(proxy.port(), &table.name), Retention::Forever).await;
    (table, behind, proxy)
}

pub(super) async fn passing(bench: Bench) {
    let (_, table, proxy) = behind_proxy(&bench).await;
    proxy.next([Fault::Throttle, Fault::Error, Fault::Cut, Fault::Throttle]);
    table.write(&room(), &epoch(1), &[record(1, 1)], soon()).await.unwrap();
    assert_eq!(proxy.requests(), 5);
    // One that gives no answer is given up, for another to be asked.
    proxy.next([Fault::Hang]);
    let read = table.read(&room(), &epoch(1), offset(0), ALL, None, soon()).await.unwrap();
    assert_eq!(offsets(&read), [1]);
    assert_eq!(proxy.requests(), 7);
}

pub(super) async fn lost_answers(bench: Bench) {
    let (_, table, proxy) = behind_proxy(&bench).await;
    // What is asked again was done already; the answer is the same.
    proxy.next([Fault::LoseAnswer]);
    let first = table.advance(&room(), None, &epoch(1), soon()).await.unwrap();
    assert_eq!((&first.epoch, &first.closing), (&epoch(1), &None));
    proxy.next([Fault::LoseAnswer]);
    let second = table.advance(&room(), Some(&epoch(1)), &epoch(2), soon()).await.unwrap();
    assert_eq!((&second.epoch, &second.closing), (&epoch(2), &Some(epoch(1))));
    proxy.next([Fault::LoseAnswer]);
    let seal = Seal { epoch: epoch(1), last: offset(7), missing: "3".parse().unwrap() };
    let sealed = table.seal(&room(), &second, seal.clone(), soon()).await.unwrap();
    assert_eq!((sealed.closing, sealed.seals), (None, vec![seal]));
    proxy.next([Fault::LoseAnswer, Fault::LoseAnswer]);
    table.write(&room(), &epoch(2), &[record(1, 1), record(2, 1)], soon()).await.unwrap();
    // A publisher whose write failed comes again, and it is written once more.
    table.write(&room(), &epoch(2), &[record(2, 1)], soon()).await.unwrap();
    let read = table.read(&room(), &epoch(2), offset(0), ALL, None, soon()).await.unwrap();
    assert_eq!(offsets(&read), [1, 2]);
}

pub(super) async fn staying(bench: Bench) {
    let (direct, table, proxy) = behind_proxy(&bench).await;
    for fault in [Fault::Throttle, Fault::Error, Fault::Cut, Fault::Hang] {
        proxy.then(Some(fault));
        let deadline = Instant::now() + Duration::from_millis(400);
        let error = table.write(&room(), &epoch(1), &[record(1, 1)], deadline).await.unwrap_err();
        assert!(matches!(error, TableError::Unavailable { .. }), "{fault:?}: {error:?}");
        assert_eq!(StoreError::from(error).code(), ErrorCode::Unavailable);
        let error = table.probe(Instant::now() + Duration::from_millis(400)).await.unwrap_err();
        assert!(matches!(error, TableError::Unavailable { .. }), "{fault:?}: {error:?}");
        // It heals by itself.
        proxy.then(None);
        table.probe(soon()).await.unwrap();
    }
    assert!(direct.read(&room(), &epoch(1), offset(0), ALL, None, soon()).await.unwrap().is_empty());

    // As many as may be asked at once wait for answers that don't come: one more is told so.
    proxy.then(Some(Fault::Hang));
    let before = proxy.requests();
    let waiting: Vec<_> = (0..128)
        .map(|_| {
            let table = table.clone();
            tokio::spawn(async move { table.probe(soon()).await })
        })
        .collect();
    proxy.wait_for_requests(before + 128).await;
    let error = table.probe(Instant::now() + Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, TableError::Overloaded { .. }), "{error:?}");
    proxy.then(None);
    for probe in waiting {
        probe.await.unwrap().unwrap();
    }
}
