//! A room that goes on in another epoch, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use twine_protocol::{MessageId, Offset, Position, RoomName};

use super::life::{Ending, Mortal};
use super::{Bench, DAY, Hub, Retention, Server, Table, message, place, position, room, soon};
use crate::broker::redis::{self, Installed, Looked};
use crate::store::Record;
use crate::store::epoch::mint;

/// Rooms that are rotated at once, twice.
const AT_ONCE: usize = 6;

/// A hub dies at any request of a rotation and of what it publishes then. Another one goes on from there:
/// what was acknowledged is there, and everything once.
pub(super) async fn any_request_may_be_the_last(bench: Bench) {
    let server = Arc::new(Server::start());
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Arc::new(Hub::start(&server.url(), &table));
    let mut have_lived = 0;
    for first in (0..).step_by(AT_ONCE) {
        let mut rounds = JoinSet::new();
        for n in first..first + AT_ONCE {
            for ending in [Ending::Before, Ending::After] {
                let (server, table, hub) = (server.clone(), table.clone(), hub.clone());
                rounds.spawn(async move { round(bench, &server, &table, &hub, n, ending).await });
            }
        }
        while let Some(lives) = rounds.join_next().await {
            have_lived += usize::from(lives.unwrap());
        }
        // Every request was the last of some hub.
        if have_lived >= AT_ONCE {
            break;
        }
    }
    Arc::into_inner(hub).unwrap().stop().await;
}

/// Says whether the hub has come to an end before it died.
async fn round(bench: Bench, server: &Server, table: &Table, hub: &Hub, n: usize, ending: Ending) -> bool {
    let name = format!("{n}-{ending:?}");
    let room = RoomName::new(&name).unwrap();
    let mut acknowledged: BTreeMap<&str, Position> = BTreeMap::new();
    for id in ["1", "2"] {
        acknowledged.insert(id, position(hub.publish_surely(&room, id).await));
    }
    // Left by a hub that died: one that has a place only, and one that is written too.
    let first = acknowledged["1"].epoch.clone();
    for id in ["placed", "written"] {
        let record = assign(hub, &room, id).await;
        if id == "written" {
            table.write(&room, &first, &[record], soon()).await.unwrap();
        }
    }
    let mut keys: Vec<_> = ["room", "log", "pending"].map(|key| format!("twine:{{{name}}}:{key}")).into();
    keys.extend(["1", "2", "placed", "written"].map(|id| format!("twine:{{{name}}}:id:{id}")));
    let delete: Vec<_> = ["DEL"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    server.admin::<u64>(&delete);

    let mortal = Mortal::start(server.port, bench, table, n, ending).await;
    let messages = ["2", "3", "placed", "4"].map(|id| message(&room, id)).into();
    let published = mortal.lives(mortal.fleet.publish(messages)).await;
    let lives = published.is_some();
    for (id, published) in
        ["2", "3", "placed", "4"].into_iter().zip(published.into_iter().flatten().flatten())
    {
        let found = position(published);
        let before = acknowledged.insert(id, found.clone());
        assert!(before.is_none_or(|before| before == found), "{name}: {id} has two places");
    }
    mortal.bury().await;

    for id in ["written", "3", "1", "placed", "4", "2", "5"] {
        let found = position(hub.publish_surely(&room, id).await);
        let before = acknowledged.insert(id, found.clone());
        assert!(before.is_none_or(|before| before == found), "{name}: {id} has two places");
    }
    let mut expected: Vec<_> =
        acknowledged.into_iter().map(|(id, position)| (position, id.to_owned())).collect();
    expected.sort();
    let (last, _) = expected.last().unwrap();
    assert_eq!(hub.log(&room, last).await, expected, "{name}");
    lives
}

/// Gives a message its place, and does no more.
pub(super) async fn assign(hub: &Hub, room: &RoomName, id: &str) -> Record {
    let (fleet, message) = (&hub.fleet, message(room, id));
    let id = message.id.unwrap();
    let published =
        fleet.link.publish(room, &id, None, message.data.get(), None, &fleet.limits).await.unwrap();
    let redis::Published::Assigned { position, time, .. } = published else { panic!("{published:?}") };
    Record { offset: position.offset, time, id: Some(id), sender: None, data: message.data }
}

/// Hubs that take different servers for the master, of which one was interrupted.
pub(super) async fn an_epoch_begins_on_one_server(bench: Bench) {
    let servers = [Server::start(), Server::start()];
    let table = bench.table(Retention::For(DAY)).await;
    let hubs = servers.each_ref().map(|server| Hub::start(&server.url(), &table));
    let room = room();
    let [first, second] = &hubs;
    let Looked::Rotate(rotate) = first.fleet.link.look(&room).await.unwrap() else { panic!("it is new") };
    let opened = first.fleet.open_next(&room, None, soon()).await.unwrap().unwrap();
    // The other one finds an epoch that is open and on its server not begun.
    let mut published = vec![second.publish(&room, "1").await.unwrap()];
    assert_ne!(published[0].epoch, opened.epoch, "it may begin elsewhere at any moment");
    let installed = first.fleet.link.install(&room, &rotate.server, &opened.epoch, 0).await.unwrap();
    assert_eq!(installed, Installed::Yes);
    for (id, hub) in [("2", first), ("3", second), ("4", first), ("5", second)] {
        published.push(hub.publish(&room, id).await.unwrap());
    }
    let last = position(published[4].clone());
    let expected: Vec<_> =
        published.into_iter().zip(1..).map(|(published, id)| (position(published), id.to_string())).collect();
    assert_eq!(second.log(&room, &last).await, expected);
    for hub in hubs {
        hub.stop().await;
    }
}

/// Of an epoch that is not sealed nobody knows what its log will have.
pub(super) async fn ids_of_an_open_epoch_are_not_remembered(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    let room = room();
    let sealed = hub.publish(&room, "sealed").await.unwrap();
    let stray = assign(&hub, &room, "stray").await;
    server.admin::<()>(&["FLUSHALL"]);
    let Looked::Rotate(rotate) = hub.fleet.link.look(&room).await.unwrap() else { panic!("it is lost") };
    let fence = hub.fleet.open_next(&room, None, soon()).await.unwrap().unwrap();
    // As if the epoch had begun at a server that is gone, or the write had come late.
    table.write(&room, &fence.epoch, std::slice::from_ref(&stray), soon()).await.unwrap();
    table.write(&room, &sealed.epoch, std::slice::from_ref(&stray), soon()).await.unwrap();
    // More of them than are read at once.
    for n in 0..40 {
        let offset = Offset::new(stray.offset.get() + 1 + n).unwrap();
        let late = Record { offset, id: MessageId::new(&format!("late-{n}")).ok(), ..stray.clone() };
        table.write(&room, &sealed.epoch, &[late], soon()).await.unwrap();
    }
    hub.fleet.remember(&room, &fence, soon()).await.unwrap();
    hub.fleet.link.install(&room, &rotate.server, &fence.epoch, 0).await.unwrap();
    let again = hub.publish(&room, "sealed").await.unwrap();
    assert!(again.duplicate && again.epoch == sealed.epoch && again.offset == sealed.offset);
    let published = hub.publish(&room, "stray").await.unwrap();
    assert!(!published.duplicate, "it was never durable: {published:?}");
    hub.stop().await;
}

/// A hub advanced a fence and died, or was cut off from the server that all others use.
pub(super) async fn a_fence_moves_on_behind_a_sound_server(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    let watching = hub.watch(&room()).await;
    let mut published = 0;
    for (n, is_sealed) in [(1, false), (2, true), (3, false)] {
        let before = hub.publish(&room(), &format!("{n}-before")).await.unwrap();
        let next = mint(Some(&before.epoch));
        let advanced = table.advance(&room(), Some(&before.epoch), &next, soon()).await.unwrap();
        if is_sealed {
            hub.fleet.seal(&room(), advanced.clone(), soon()).await.unwrap();
        }
        // It may still be in the epoch before, where that was not sealed.
        let after = hub.publish(&room(), &format!("{n}-after")).await.unwrap();
        assert!(after.epoch > advanced.epoch || !is_sealed);
        let later = hub.publish(&room(), &format!("{n}-later")).await.unwrap();
        assert!(later.epoch > advanced.epoch);
        watching.until(&position(later.clone())).await;
        published += 3;
        assert_eq!(hub.log(&room(), &position(later)).await.len(), published);
    }
    hub.stop().await;
}

/// Whoever refreshes a room is answered, also where it leaves memory before or meanwhile.
pub(super) async fn a_room_that_left_memory_is_refreshed(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    for leaves_first in [true, false] {
        let watching = hub.watch(&room()).await;
        let refreshed = if leaves_first {
            hub.unwatch(&watching);
            hub.begin_to_refresh(&watching)
        } else {
            let refreshed = hub.begin_to_refresh(&watching);
            hub.unwatch(&watching);
            refreshed
        };
        refreshed.await.unwrap().unwrap();
    }
    hub.stop().await;
}

/// A client may have seen, from its publisher's answer, what no hub has been told of yet.
pub(super) async fn what_is_assigned_is_waited_for(bench: Bench) {
    let server = Server::start();
    let table = bench.table(Retention::For(DAY)).await;
    let hub = Hub::start(&server.url(), &table);
    let watching = hub.watch(&room()).await;
    let epoch = watching.room.head().epoch;
    let record = assign(&hub, &room(), "1").await;
    hub.fleet.settle(&room(), &epoch, &[record], soon()).await.unwrap();
    // It is not committed: whoever notices that it waits for long does it. Until then nobody may say that
    // there is nothing at its place.
    server.admin::<u64>(&["HSET", "twine:{chat}:room", "moved", "0"]);
    while let Err(error) = hub.begin_to_refresh(&watching).await.unwrap() {
        // On a machine that is too busy to complete it in time.
        println!("not yet: {error}");
    }
    assert_eq!(watching.room.head(), place(&epoch, 1));
    hub.stop().await;
}
