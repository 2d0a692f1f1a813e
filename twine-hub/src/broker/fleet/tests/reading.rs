//! Reading what was published a moment ago.

use super::*;

/// Whatever a publisher was told is stored, the history has from then on: at the hub that told it and at any
/// other, whether the room is in memory there or not.
pub(super) async fn history_has_what_was_acknowledged(bench: Bench) {
    let redis = tokio::task::block_in_place(Server::start);
    let table = bench.table(Retention::For(DAY)).await;
    let hubs = [Hub::start(&redis.url(), &table), Hub::start(&redis.url(), &table)];
    let room = RoomName::new("read").unwrap();
    for n in 0..60 {
        if n == 30 {
            for hub in &hubs {
                hub.watch(&room).await;
            }
        }
        let (by, id) = (&hubs[n % 2], format!("message-{n}"));
        let published = by.publish_surely(&room, &id).await;
        for hub in &hubs {
            let range = Range {
                after: None,
                before: None,
                since: None,
                until: None,
                direction: Direction::Backwards,
            };
            let history = hub.rooms.history(&room, range, 1).await.unwrap();
            let last = history.messages.last().unwrap();
            assert_eq!((&last.epoch, last.offset), (&published.epoch, published.offset), "{id}");
        }
    }
    for hub in hubs {
        hub.stop().await;
    }
}
