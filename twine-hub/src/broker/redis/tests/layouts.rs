//! Clusters and sentinels.

use super::keys::Keys;
use super::server::{Server, cluster};
use super::*;

fn cluster_url(nodes: &[Server]) -> String {
    format!("redis-cluster://127.0.0.1:{}", nodes[0].port)
}

/// Three rooms, each on another node of three.
fn rooms_of_all_nodes() -> Vec<RoomName> {
    let third = |room: &RoomName| usize::from(Keys::new(room).slot()) * 3 / 16_384;
    (0..3).map(|n| (0..1000).map(|i| room(&format!("r{i}"))).find(|room| third(room) == n).unwrap()).collect()
}

#[tokio::test]
async fn in_a_cluster_each_room_is_on_its_node() {
    let nodes = cluster();
    let (publisher, mut hub) = (Hub::at(&cluster_url(&nodes)), Hub::at(&cluster_url(&nodes)));
    for room in rooms_of_all_nodes() {
        let epoch = publisher.rotate(&room, "1").await;
        hub.link.watch(&room).await.unwrap();
        publisher.assign(&room, "a").await;
        publisher.commit(&room, &epoch, &[1]).await;
        assert_eq!(hub.next_messages().await, [(1, "a".to_owned())]);
    }
    for node in &nodes {
        assert_eq!(node.admin::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"]).len(), 1);
    }
    assert_eq!(hub.link.state(), State::Connected);
}

#[tokio::test]
async fn a_room_whose_slot_moves_goes_on_at_its_new_node() {
    let nodes = cluster();
    let (publisher, mut hub) = (Hub::at(&cluster_url(&nodes)), Hub::at(&cluster_url(&nodes)));
    let rooms = rooms_of_all_nodes();
    let (moving, staying) = (&rooms[0], &rooms[1]);
    for room in [moving, staying] {
        publisher.rotate(room, "1").await;
        hub.link.watch(room).await.unwrap();
    }
    let epoch = Epoch::new("1").unwrap();
    let slot = Keys::new(moving).slot().to_string();
    let (from, to) = (&nodes[0], &nodes[2]);
    let id = |node: &Server| node.admin::<String>(&["CLUSTER", "MYID"]);
    to.admin::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    from.admin::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    for key in from.admin::<Vec<String>>(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]) {
        from.admin::<()>(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &key, "0", "60000"]);
    }
    // The old node sends on to the new one, which has not all keys yet: the publish waits.
    let mut publishing = std::pin::pin!(publisher.publish(moving, "a"));
    let still = tokio::time::timeout(Duration::from_millis(100), publishing.as_mut()).await;
    assert!(still.is_err(), "{still:?}");
    for node in &nodes {
        node.admin::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
    // Another server: it can't know whether everything came over.
    assert!(matches!(publishing.await.unwrap(), Published::Rotate(_)));
    hub.next_interruption().await;
    until("subscribed at the new node", async || {
        to.admin::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"])
            .contains(&Keys::new(moving).channel().name().to_owned())
    })
    .await;
    let second = publisher.rotate(moving, "2").await;
    publisher.assign(moving, "a").await;
    publisher.commit(moving, &second, &[1]).await;
    while !matches!(
        hub.next().await,
        BusEvent::Said { room, chunk: Chunk::Messages { .. } } if room == *moving
    ) {}
    // The room beside it never stopped.
    publisher.assign(staying, "b").await;
    publisher.commit(staying, &epoch, &[1]).await;
    assert_eq!(hub.next_messages().await, [(1, "b".to_owned())]);
}

#[tokio::test]
async fn without_a_node_of_a_cluster_the_rooms_of_the_others_go_on() {
    let mut nodes = cluster();
    for node in &nodes {
        node.admin::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let (hub, rooms) = (Hub::at(&cluster_url(&nodes)), rooms_of_all_nodes());
    for room in &rooms {
        hub.rotate(room, "1").await;
    }
    nodes[1].kill();
    until("its room fails", async || hub.publish(&rooms[1], "a").await.is_err()).await;
    assert_eq!(hub.assign(&rooms[0], "a").await.get(), 1);
    assert_eq!(hub.assign(&rooms[2], "a").await.get(), 1);
    until("not ready", async || hub.link.state() != State::Connected).await;
    nodes[1].restart();
    until("its room is there again", async || {
        matches!(hub.publish(&rooms[1], "a").await, Ok(Published::Rotate(_)))
    })
    .await;
}

#[tokio::test]
async fn after_a_failover_the_hub_finds_the_new_master_and_the_room_is_rotated() {
    let mut master = Server::start();
    let replica = Server::with(&["--replicaof", &format!("127.0.0.1 {}", master.port)]);
    until("the replica follows", async || {
        replica.admin::<String>(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let sentinel = Server::sentinel(&master, "main");
    until("the sentinel knows the replica", async || {
        sentinel.admin::<String>(&["INFO", "sentinel"]).contains("slaves=1")
    })
    .await;
    let url = format!("redis-sentinel://127.0.0.1:{}/main", sentinel.port);
    let (mut hub, room) = (Hub::at(&url), room("failover"));
    let first = hub.rotate(&room, "1").await;
    hub.link.watch(&room).await.unwrap();
    hub.assign(&room, "a").await;
    until("the replica has it", async || replica.admin::<u64>(&["XLEN", "twine:{failover}:log"]) == 1).await;
    master.kill();
    // By itself: the new master is found and the subscription in force there.
    hub.next_interruption().await;
    let mut rotate = None;
    until("the new master answers", async || {
        if let Ok(Published::Rotate(found)) = hub.publish(&room, "b").await {
            rotate = Some(found);
        }
        rotate.is_some()
    })
    .await;
    assert_eq!(rotate.unwrap().last, Some(position(&first, 1)));
    let second = hub.rotate(&room, "2").await;
    hub.assign(&room, "b").await;
    hub.commit(&room, &second, &[1]).await;
    assert_eq!(hub.next_messages().await, [(1, "b".to_owned())]);
}
