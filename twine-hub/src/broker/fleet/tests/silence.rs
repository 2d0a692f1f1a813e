//! Rooms in which nothing happens for longer than messages are kept.

use std::time::Duration;

use twine_protocol::GapReason;

use super::{Bench, DAY, Hub, Retention, Server, place, position, room, soon};
use crate::store::dynamodb::tests::{connect, delete_messages, location};

/// The table has deleted all messages of a room when Redis fails. Who has had them all has lost nothing.
pub(super) async fn is_no_loss(bench: Bench) {
    for is_opened_later in [false, true] {
        let server = Server::start();
        let table = bench.table(Retention::For(DAY)).await;
        // A hub closes its own connections only.
        let start = async || {
            let own = connect(&location(bench.port, table.name()), table.retention()).await;
            Hub::start(&server.url(), &own)
        };
        let mut hub = start().await;
        for id in ["1", "2", "3"] {
            hub.publish(&room(), id).await.unwrap();
        }
        let watching = hub.watch(&room()).await;
        let epoch = watching.room.head().epoch;
        watching.until(&place(&epoch, 3)).await;
        if is_opened_later {
            // The hub that published dies without a word; another one only ever hears of the room.
            hub.fleet.ends.take(Duration::ZERO);
            let other = start().await;
            other.watch(&room()).await;
            std::mem::replace(&mut hub, other).stop().await;
        }
        hub.fleet.note_silent(Duration::ZERO, soon()).await;
        delete_messages(&table, &room()).await;
        server.admin::<()>(&["FLUSHALL"]);
        let next = position(hub.publish_surely(&room(), "4").await);
        let watching = hub.watch(&room()).await;
        watching.until(&next).await;
        let steps = hub.page(&watching, place(&epoch, 3)).await;
        assert_eq!(steps.loss, None);
        let cursors: Vec<_> = steps.all().iter().map(|step| step.cursor.clone()).collect();
        assert_eq!(cursors, [place(&next.epoch, 0), next.clone()]);
        // Who was further behind has lost what is gone, and knows how much.
        let loss = hub.page(&watching, place(&epoch, 1)).await.loss.unwrap();
        assert_eq!((loss.reason, loss.lost.count), (GapReason::Expired, Some(2)));
        hub.stop().await;
    }
}
