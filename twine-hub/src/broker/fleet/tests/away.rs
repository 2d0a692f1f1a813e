//! A table that is away.

use super::{Bench, DAY, Hub, PATIENCE, Retention, Server, room, soon};
use crate::broker::PublishError;
use crate::broker::redis::Looked;
use crate::store::dynamodb::tests::faulty_proxy::{Fault, FaultyProxy};
use crate::store::dynamodb::tests::{connect, location};

/// Once it is known to be away publishes are refused without a place in Redis, which others would have to
/// complete; and they go on by themselves once it is back.
pub(super) async fn publishes_are_refused_at_once(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let proxy = FaultyProxy::start(bench.port).await;
    let behind = connect(&location(proxy.port(), table.name()), Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &behind);
    hub.publish_surely(&room(), "a").await;
    until(|| hub.rooms.health().is_ok()).await;
    proxy.then(Some(Fault::Hang));
    until(|| hub.rooms.health().is_err()).await;
    let head = async || match hub.fleet.link.look(&room()).await.unwrap() {
        Looked::Known { head, .. } => head,
        Looked::Rotate(_) => panic!("Redis is sound"),
    };
    let before = head().await;
    for id in ["b", "c", "d"] {
        let refused = hub.publish(&room(), id).await.unwrap_err();
        assert!(matches!(refused, PublishError::Store(_)), "{refused}");
    }
    assert_eq!(head().await, before, "none was given a place");
    proxy.then(None);
    until(|| hub.rooms.health().is_ok()).await;
    hub.publish_surely(&room(), "b").await;
    hub.stop().await;
}

/// Nobody announces it.
async fn until(is_so: impl Fn() -> bool) {
    let give_up = soon();
    while !is_so() {
        assert!(tokio::time::Instant::now() < give_up, "not after {PATIENCE:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
