//! Messages that are published together.

use std::time::Duration;

use tokio::time::Instant;
use twine_protocol::Position;

use super::life::Mortal;
use super::rotation::assign;
use super::{Bench, DAY, Hub, Retention, Server, message, room, soon};
use crate::broker::fleet::writer::{Fate, Request};
use crate::store::dynamodb::tests::faulty_proxy::Fault;
use crate::store::epoch::mint;

const IDS: [&str; 4] = ["1", "2", "3", "4"];

/// The room goes on in another epoch when half of a batch has its places, and nothing of that is durable.
pub(super) async fn one_stays_in_order(bench: Bench) {
    for others_are_quicker in [false, true] {
        let server = Server::start();
        let table = bench.table(Retention::For(DAY)).await;
        let hub = Hub::start(&server.url(), &table);
        let first = hub.publish(&room(), "first").await.unwrap().epoch;
        let batch = Mortal::held_up(server.port, bench, &table, 2).await;
        batch.table.then(Some(Fault::Throttle));
        let publish = {
            let fleet = batch.fleet.clone();
            move || {
                let (fleet, messages) = (fleet.clone(), IDS.map(|id| message(&room(), id)).into());
                async move { fleet.publish(messages).await }
            }
        };
        let publishing = tokio::spawn(publish());
        batch.until_held_up().await;
        server.admin::<u64>(&["DEL", "twine:{chat}:room"]);
        if others_are_quicker {
            hub.publish_surely(&room(), "meanwhile").await;
        } else {
            let fence = table.advance(&room(), Some(&first), &mint(Some(&first)), soon()).await.unwrap();
            hub.fleet.seal(&room(), fence, soon()).await.unwrap();
        }
        batch.table.then(None);
        batch.release();
        let mut published = publishing.await.unwrap();
        let give_up = soon();
        // Where the machine is too busy its publisher comes again, and finds the order all the same.
        while published.is_err() && Instant::now() < give_up {
            published = publish().await;
        }
        let published = published.unwrap();
        let places: Vec<_> = published
            .into_iter()
            .map(|published| Position { epoch: published.epoch, offset: published.offset })
            .collect();
        assert!(places.is_sorted(), "{places:?}");
        assert!(places[0].epoch > first, "what was on its way is lost");
        let log = hub.log(&room(), &places[3]).await;
        let ids: Vec<_> = log.iter().map(|(_, id)| id.as_str()).filter(|id| IDS.contains(id)).collect();
        assert_eq!(ids, IDS);
        batch.bury().await;
        hub.stop().await;
    }
}

/// A write fails, and the next one of the same room would not.
pub(super) async fn what_is_behind_a_failed_write_waits(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    let epoch = hub.publish(&room(), "0").await.unwrap().epoch;
    let mortal = Mortal::held_up(server.port, bench, &table, usize::MAX).await;
    mortal.table.next([Fault::Hang]);
    let (first, second) = (assign(&hub, &room(), "1").await, assign(&hub, &room(), "2").await);
    let request = Request::default();
    let early = Instant::now() + Duration::from_millis(500);
    let first = mortal.fleet.write(&room(), epoch.clone(), first, &request, early);
    mortal.table.wait_for_requests(1).await;
    let second = mortal.fleet.write(&room(), epoch.clone(), second, &Request::default(), soon());
    assert!(first.await.unwrap().is_err());
    assert!(second.await.unwrap().is_err(), "it would be there without the one before");
    // Nor is one of the same request that gets its place only then.
    let third = assign(&hub, &room(), "3").await;
    let third = mortal.fleet.write(&room(), epoch.clone(), third, &request, soon());
    assert_eq!(third.await.unwrap().unwrap(), Fate::Ended);
    // Whoever publishes again has both completed.
    for id in ["3", "2", "1"] {
        let published = hub.publish_surely(&room(), id).await;
        assert_eq!(published.epoch, epoch);
    }
    mortal.bury().await;
    hub.stop().await;
}

/// What a client pipelines is handed over together: a publish that began at once might overtake the one before.
pub(super) async fn each_begins_when_it_is_awaited(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    hub.publish_surely(&room(), "first").await;
    let [second, third, never] =
        ["second", "third", "never"].map(|id| hub.rooms.publish(vec![message(&room(), id)]));
    let third = third.await.unwrap().remove(0);
    assert_eq!(third.offset.get(), 2, "those that nobody awaits have not begun");
    assert_eq!(second.await.unwrap().remove(0).offset.get(), 3);
    drop(never);
    assert_eq!(hub.publish_surely(&room(), "last").await.offset.get(), 4);
}
