//! A hub that keeps up with what others publish.

use twine_protocol::GapReason;

use super::{Bench, DAY, Hub, Retention, Server, offset, place, room};
use crate::broker::redis;
use crate::store::page::Loss;

/// A hub did not hear of some messages, and when it comes to read them they are too old to be there.
pub(super) async fn what_is_gone(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    let watching = hub.watch(&room()).await;
    let epoch = watching.room.head().epoch;
    let fleet = &hub.fleet;
    for id in ["1", "2", "3"] {
        let id = id.parse().unwrap();
        let assigned = fleet.link.publish(&room(), &id, None, "1", None, &fleet.limits).await.unwrap();
        assert!(matches!(assigned, redis::Published::Assigned { .. }), "{assigned:?}");
    }
    // Durable once, and gone since: from the log and from the table. The hub is told of them only.
    server.admin::<u64>(&["XDEL", "twine:{chat}:log", "1-0", "2-0", "3-0"]);
    let places = [1, 2, 3].map(offset);
    fleet.link.commit(&room(), &epoch, &places, &fleet.limits).await.unwrap();
    watching.until(&place(&epoch, 3)).await;
    let published = hub.publish(&room(), "4").await.unwrap();
    assert_eq!((published.epoch.clone(), published.offset.get()), (epoch.clone(), 4));
    watching.until(&place(&epoch, 4)).await;
    let steps = hub.page(&watching, place(&epoch, 0)).await;
    let Some(Loss { lost, reason: GapReason::Expired }) = steps.loss.clone() else {
        panic!("{steps:?}");
    };
    assert_eq!((lost.from, lost.to, lost.count), (place(&epoch, 0), place(&epoch, 3), Some(3)));
    let read: Vec<_> = steps.all().iter().map(|step| step.cursor.clone()).collect();
    assert_eq!(read, [place(&epoch, 4)]);
    assert_eq!(hub.log(&room(), &place(&epoch, 4)).await, [(place(&epoch, 4), "4".to_owned())]);
    hub.stop().await;
}
