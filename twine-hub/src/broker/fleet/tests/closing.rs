//! A hub that stops.

use twine_protocol::{Epoch, RoomName};

use super::{Bench, DAY, Hub, Retention, Server, place, room};
use crate::broker::PublishError;
use crate::store::StoreError;
use crate::store::dynamodb::tests::faulty_proxy::{Fault, FaultyProxy};
use crate::store::dynamodb::tests::{connect, location};

/// More reads than are answered within minutes, by the deadlines of each.
const READS: usize = 800;

/// Neither answers any more. Reads of many subscribers wait, a publish, and somebody who opens a room.
pub(super) async fn while_both_are_away(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let proxy = FaultyProxy::start(bench.port).await;
    let behind = connect(&location(proxy.port(), table.name()), Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &behind);
    let watching = hub.watch(&room()).await;
    let epoch = Epoch::new("1").unwrap();
    proxy.then(Some(Fault::Hang));
    let before = proxy.requests();
    let rooms = (0..READS).map(|n| RoomName::new(&n.to_string()).unwrap());
    let reads: Vec<_> =
        rooms.map(|room| hub.begin_to_read(&room, place(&epoch, 0), place(&epoch, 1))).collect();
    let publishing = {
        let rooms = hub.rooms.clone();
        tokio::spawn(async move { rooms.publish(vec![super::message(&room(), "a")]).await })
    };
    // Readers first ask for a fence; as many do as there are threads, and the publish writes.
    proxy.wait_for_requests(before + 16).await;
    server.pause();
    let opening = hub.begin_to_watch(&RoomName::new("other").unwrap());
    // Each read by itself would take seconds.
    hub.stop().await;
    for read in reads {
        assert!(read.await.unwrap().is_err());
    }
    let refused = publishing.await.unwrap().unwrap_err();
    assert!(matches!(refused, PublishError::Store(_) | PublishError::Draining), "{refused}");
    let refused = opening.await.unwrap().err().unwrap();
    assert!(matches!(*refused, StoreError::Closed), "{refused}");
    drop(watching);
    server.resume();
}
