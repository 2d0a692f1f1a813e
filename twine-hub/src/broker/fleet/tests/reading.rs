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

/// A hub whose Redis was superseded, and which does not know, tells nothing rather than what is old.
pub(super) async fn a_superseded_redis_has_not_the_last_word(bench: Bench) {
    let servers = [Server::start(), Server::start()];
    let table = bench.table(Retention::For(DAY)).await;
    let [old, new] = servers.each_ref().map(|server| Hub::start(&server.url(), &table));
    let room = RoomName::new("read").unwrap();
    old.publish_surely(&room, "a").await;
    let published = new.publish_surely(&room, "b").await;
    let range =
        Range { after: None, before: None, since: None, until: None, direction: Direction::Backwards };
    for hub in [&old, &new] {
        if let Ok(history) = hub.rooms.history(&room, range.clone(), 1).await {
            let last = history.messages.last().unwrap();
            assert_eq!((&last.epoch, last.offset), (&published.epoch, published.offset));
        }
    }
    for hub in [old, new] {
        hub.stop().await;
    }
}
