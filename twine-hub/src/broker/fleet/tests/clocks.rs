//! A hub whose clock is wrong by minutes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use twine_protocol::Epoch;
use twine_protocol::api::Published;

use super::{Bench, DAY, Hub, Retention, Server, Table, message, offset, place, position, room, soon};
use crate::broker::fleet::Fleet;
use crate::broker::redis::{Limits, Link, RoomLimits, Target};
use crate::clock;
use crate::store::Record;
use crate::store::dynamodb::Amount;
use crate::store::dynamodb::tests::{connect, delete_fence, location};

const MINUTES: i64 = 60_000;

/// Runs something on a thread whose clock is wrong by so many milliseconds, and stands still.
async fn at_a_wrong_time<T, F>(by: i64, task: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let run = move || {
        let unix_millis = clock::unix_millis().checked_add_signed(by).unwrap();
        clock::manual::set(Some(clock::manual::Set { now: clock::now(), unix_millis }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let done = runtime.block_on(task());
        clock::manual::set(None);
        done
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Publishes through a hub of its own, which ends then.
async fn publish(redis: &str, bench: Bench, table: &Table, ids: &[&str]) -> Vec<Published> {
    let table = connect(&location(bench.port, table.name()), table.retention()).await;
    let (link, _) = Link::start(&Target::parse(redis).unwrap(), Limits::default()).unwrap();
    let fleet = Arc::new(Fleet::new(link, table, RoomLimits::default(), Arc::default()));
    let give_up = soon();
    let published = loop {
        let messages = ids.iter().map(|id| message(&room(), id)).collect();
        match fleet.publish(messages).await {
            Ok(published) => break published,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    };
    fleet.link.close().await;
    published
}

/// Redis fails again and again, and hubs with wrong clocks open the next epochs.
pub(super) async fn nothing_is_repeated(bench: Bench) {
    for by in [-10 * MINUTES, 10 * MINUTES] {
        let server = Server::start();
        let table = bench.table(Retention::For(DAY)).await;
        let hub = Hub::start(&server.url(), &table);
        let right = position(hub.publish(&room(), "right").await.unwrap());
        server.admin::<()>(&["FLUSHALL"]);
        let (url, of_thread) = (server.url(), table.clone());
        let publishing = move || async move { publish(&url, bench, &of_thread, &["right", "wrong"]).await };
        let published = at_a_wrong_time(by, publishing).await;
        assert_eq!((published[0].duplicate, position(published[0].clone())), (true, right.clone()), "{by}");
        let wrong = position(published[1].clone());
        assert!(wrong.epoch > right.epoch);
        server.admin::<()>(&["FLUSHALL"]);
        let again = hub.publish_surely(&room(), "wrong").await;
        assert_eq!((again.duplicate, position(again)), (true, wrong.clone()), "{by}");
        let last = position(hub.publish_surely(&room(), "last").await);
        let log =
            [(right, "right".to_owned()), (wrong, "wrong".to_owned()), (last.clone(), "last".to_owned())];
        assert_eq!(hub.log(&room(), &last).await, log);

        // The table has forgotten the room, and Redis knows an epoch of the future.
        let before = Epoch::new(&format!("{:012x}-00000000", clock::unix_millis() + 600_000)).unwrap();
        table.advance(&room(), Some(&last.epoch), &before, soon()).await.unwrap();
        server.admin::<u64>(&["HSET", "twine:{chat}:room", "epoch", before.as_str()]);
        delete_fence(&table, &room()).await;
        let next = hub.publish_surely(&room(), "next").await;
        assert!(next.epoch > before, "{} comes after {before}", next.epoch);
        hub.stop().await;
    }
}

/// A message that is a little younger than the retention is there, whatever a hub's clock says.
pub(super) async fn nothing_is_too_old_early(bench: Bench) {
    let retention = Retention::For(Duration::from_hours(2));
    let table = bench.table(retention).await;
    let epoch = Epoch::new("1").unwrap();
    let data = message(&room(), "1").data;
    let time = clock::unix_millis() - 119 * 60_000;
    let record = Record { offset: offset(1), time, id: None, sender: None, data };
    table.write(&room(), &epoch, &[record], soon()).await.unwrap();
    for by in [-10 * MINUTES, 10 * MINUTES] {
        let (name, epoch) = (table.name().to_owned(), epoch.clone());
        let read = at_a_wrong_time(by, move || async move {
            let table = connect(&location(bench.port, &name), retention).await;
            let wanted = Amount { messages: 10, bytes: usize::MAX };
            table.read(&room(), &epoch, place(&epoch, 0).offset, wanted, None, soon()).await.unwrap().len()
        });
        assert_eq!(read.await, 1, "{by}");
    }
}
