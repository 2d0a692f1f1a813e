//! What the scripts promise, one server.

use super::server::Server;
use super::*;

#[tokio::test]
async fn a_room_that_redis_does_not_know_is_to_be_rotated_first() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("new");
    let Published::Rotate(rotate) = hub.publish(&room, "a").await.unwrap() else {
        panic!("not to be rotated")
    };
    assert_eq!(rotate.last, None);
    let epoch = hub.rotate(&room, "000000000001-x").await;
    assert_eq!(hub.assign(&room, "a").await.get(), 1);
    let Looked::Known { done, head, .. } = hub.link.look(&room).await.unwrap() else { panic!("not known") };
    assert_eq!((done, head.get()), (position(&epoch, 0), 1));
    hub.link.close().await;
    assert!(matches!(hub.link.look(&room).await, Err(RedisError::Closed)));
}

#[tokio::test]
async fn a_message_is_shown_once_it_is_committed_without_a_hole_before_it() {
    let server = Server::start();
    let (publisher, mut first, mut second) =
        (Hub::at(&server.url()), Hub::at(&server.url()), Hub::at(&server.url()));
    let room = room("order");
    let epoch = publisher.rotate(&room, "1").await;
    first.link.watch(&room).await.unwrap();
    second.link.watch(&room).await.unwrap();
    for id in ["a", "b", "c", "d", "e"] {
        publisher.assign(&room, id).await;
    }
    // Out of order: nothing moves while the first is missing.
    assert_eq!(publisher.commit(&room, &epoch, &[2, 4]).await, Committed::Done(Offset::ZERO));
    assert_eq!(publisher.commit(&room, &epoch, &[1]).await, Committed::Done(Offset::new(2).unwrap()));
    assert_eq!(publisher.commit(&room, &epoch, &[5, 3]).await, Committed::Done(Offset::new(5).unwrap()));
    // Again: it stays as it is.
    assert_eq!(publisher.commit(&room, &epoch, &[1, 5]).await, Committed::Done(Offset::new(5).unwrap()));
    for hub in [&mut first, &mut second] {
        let text =
            |list: Vec<(u64, String)>| list.iter().map(|(at, id)| format!("{at}{id}")).collect::<Vec<_>>();
        assert_eq!(text(hub.next_messages().await), ["1a", "2b"]);
        assert_eq!(text(hub.next_messages().await), ["3c", "4d", "5e"]);
    }
}

#[tokio::test]
async fn publishing_an_id_again_answers_its_first_place() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("ids");
    let epoch = hub.rotate(&room, "1").await;
    hub.assign(&room, "a").await;
    let duplicate = |is_pending| Published::Duplicate { position: position(&epoch, 1), is_pending };
    assert_eq!(hub.publish(&room, "a").await.unwrap(), duplicate(true));
    hub.commit(&room, &epoch, &[1]).await;
    assert_eq!(hub.publish(&room, "a").await.unwrap(), duplicate(false));
    assert_eq!(hub.assign(&room, "b").await.get(), 2);
}

#[tokio::test]
async fn of_an_earlier_epoch_only_what_is_known_to_be_durable_counts_as_published() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("ids");
    let first = hub.rotate(&room, "1").await;
    hub.assign(&room, "durable").await;
    hub.assign(&room, "lost").await;
    server.admin::<()>(&["DEL", "twine:{ids}:room"]);
    let id = MessageId::new("durable").unwrap();
    hub.link.remember(&room, &id, &position(&first, 1), Duration::from_mins(1)).await.unwrap();
    let second = hub.rotate(&room, "2").await;
    let found = Published::Duplicate { position: position(&first, 1), is_pending: false };
    assert_eq!(hub.publish(&room, "durable").await.unwrap(), found);
    let Published::Assigned { position: found, .. } = hub.publish(&room, "lost").await.unwrap() else {
        panic!("a lost message counts as published");
    };
    assert_eq!(found, position(&second, 1));
}

#[tokio::test]
async fn a_place_is_given_in_the_epoch_that_was_asked_for_or_none_is() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("epochs");
    let first = hub.rotate(&room, "1").await;
    let publish = async |id: &str, epoch| {
        let id = MessageId::new(id).unwrap();
        hub.link.publish(&room, &id, None, "1", Some(epoch), &hub.limits).await.unwrap()
    };
    assert!(matches!(publish("a", &first).await, Published::Assigned { .. }));
    server.admin::<()>(&["DEL", "twine:{epochs}:room"]);
    assert!(matches!(publish("b", &first).await, Published::Rotate(_)));
    let second = hub.rotate(&room, "2").await;
    assert_eq!(publish("b", &first).await, Published::OtherEpoch);
    let Published::Assigned { position: found, .. } = publish("b", &second).await else { panic!("no place") };
    assert_eq!(found, position(&second, 1));
    let found = Published::Duplicate { position: found, is_pending: true };
    assert_eq!(publish("b", &second).await, found);
}

#[tokio::test]
async fn many_publishers_get_dense_places_and_each_id_one() {
    const MESSAGES: usize = 400;
    let server = Server::start();
    let hubs = [Hub::at(&server.url()), Hub::at(&server.url())];
    let room = room("crowd");
    hubs[0].rotate(&room, "1").await;
    let mut publishing = tokio::task::JoinSet::new();
    // Each id is published by both hubs at once.
    for n in 0..MESSAGES {
        for hub in &hubs {
            let (link, room, limits) = (hub.link.clone(), room.clone(), hub.limits);
            publishing.spawn(async move {
                let id = MessageId::new(&n.to_string()).unwrap();
                link.publish(&room, &id, None, "1", None, &limits).await.unwrap()
            });
        }
    }
    let (mut assigned, mut duplicates) = (Vec::new(), Vec::new());
    while let Some(published) = publishing.join_next().await {
        match published.unwrap() {
            Published::Assigned { position, .. } => assigned.push(position.offset.get()),
            Published::Duplicate { position, .. } => duplicates.push(position.offset.get()),
            other => panic!("{other:?}"),
        }
    }
    assigned.sort_unstable();
    duplicates.sort_unstable();
    let dense: Vec<_> = (1..=MESSAGES as u64).collect();
    assert_eq!(assigned, dense);
    assert_eq!(duplicates, dense);
}

#[tokio::test]
async fn a_backlog_is_bounded_but_repeats_are_answered() {
    let server = Server::start();
    let mut hub = Hub::at(&server.url());
    hub.limits.max_pending = 2;
    let room = room("busy");
    let epoch = hub.rotate(&room, "1").await;
    hub.assign(&room, "a").await;
    hub.assign(&room, "b").await;
    assert_eq!(hub.publish(&room, "c").await.unwrap(), Published::Busy);
    assert!(matches!(hub.publish(&room, "b").await.unwrap(), Published::Duplicate { .. }));
    hub.commit(&room, &epoch, &[2]).await;
    assert_eq!(hub.publish(&room, "c").await.unwrap(), Published::Busy, "what is before the hole counts");
    hub.commit(&room, &epoch, &[1]).await;
    assert_eq!(hub.assign(&room, "c").await.get(), 3);
}

#[tokio::test]
async fn the_log_is_trimmed_by_length_and_age_but_never_what_is_not_durable() {
    let server = Server::start();
    let mut hub = Hub::at(&server.url());
    let room = room("trim");
    let epoch = hub.rotate(&room, "1").await;
    let len = || server.admin::<u64>(&["XLEN", "twine:{trim}:log"]);
    hub.limits.max_length = 20;
    for n in 0..64 {
        hub.assign(&room, &n.to_string()).await;
    }
    assert_eq!(len(), 64);
    hub.commit(&room, &epoch, &(1..=60).collect::<Vec<_>>()).await;
    for n in 64..80 {
        hub.assign(&room, &n.to_string()).await;
    }
    // 16 at a time: 48 of the 60 durable ones, by length.
    assert_eq!(len(), 32);
    (hub.limits.max_length, hub.limits.trim_age) = (1000, Duration::ZERO);
    hub.commit(&room, &epoch, &(61..=80).collect::<Vec<_>>()).await;
    for n in 80..96 {
        hub.assign(&room, &n.to_string()).await;
    }
    assert_eq!(len(), 16, "by age");
    let Looked::Known { done, .. } = hub.link.look(&room).await.unwrap() else { panic!("not known") };
    let Tail::Messages(records) = hub.link.read(&room, &position(&epoch, 0), 100, 1 << 20).await.unwrap()
    else {
        panic!("not known");
    };
    assert_eq!((done.offset.get(), records.len()), (80, 0));
}

#[tokio::test]
async fn the_log_is_read_densely_within_bounds_and_never_past_what_is_durable() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("read");
    let epoch = hub.rotate(&room, "1").await;
    for n in 1..=50 {
        hub.assign(&room, &n.to_string()).await;
    }
    hub.commit(&room, &epoch, &(1..=40).collect::<Vec<_>>()).await;
    let read = async |after: u64, limit: usize, bytes: usize| match hub
        .link
        .read(&room, &position(&epoch, after), limit, bytes)
        .await
        .unwrap()
    {
        Tail::Messages(records) => {
            for record in &records {
                assert_eq!(record.id.as_ref().unwrap().as_str(), record.offset.get().to_string());
                assert_eq!(record.sender.as_deref(), Some("me"));
                assert_eq!(record.data.get(), format!("\"{}\"", record.offset.get()));
            }
            records.iter().map(|record| record.offset.get()).collect::<Vec<_>>()
        }
        Tail::Elsewhere => panic!("the room is elsewhere"),
    };
    assert_eq!(read(0, 100, 1 << 20).await, (1..=40).collect::<Vec<_>>());
    assert_eq!(read(10, 5, 1 << 20).await, [11, 12, 13, 14, 15]);
    assert_eq!(read(10, 100, 1).await, [11]);
    assert!(read(40, 100, 1 << 20).await.is_empty());
    let other = Position::new("0", 0).unwrap();
    assert!(matches!(hub.link.read(&room, &other, 1, 1).await.unwrap(), Tail::Elsewhere));
}

#[tokio::test]
async fn what_stays_pending_is_found_and_completed_by_any_hub() {
    let server = Server::start();
    let (dead, hub) = (Hub::at(&server.url()), Hub::at(&server.url()));
    let room = room("orphan");
    let epoch = dead.rotate(&room, "1").await;
    dead.assign(&room, "a").await;
    dead.assign(&room, "b").await;
    dead.link.close().await;
    until("it stalls", async || {
        let looked = hub.link.look(&room).await.unwrap();
        matches!(looked, Looked::Known { stalled, .. } if stalled > Duration::ZERO)
    })
    .await;
    let hour = Duration::from_hours(1);
    let overdue = async |age| match hub.link.overdue(&room, &epoch, age, 10, 1 << 20).await.unwrap() {
        Overdue::Messages(records) => records.iter().map(|record| record.offset.get()).collect::<Vec<_>>(),
        Overdue::Elsewhere => panic!("the room is elsewhere"),
    };
    assert!(overdue(hour).await.is_empty());
    assert_eq!(overdue(Duration::ZERO).await, [1, 2]);
    assert_eq!(hub.commit(&room, &epoch, &[1, 2]).await, Committed::Done(Offset::new(2).unwrap()));
    assert!(overdue(Duration::ZERO).await.is_empty());
}

#[tokio::test]
async fn a_room_whose_keys_are_not_all_there_is_to_be_rotated() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    for (lost, name) in [("pending", "evicted-pending"), ("room", "evicted-room")] {
        let room = room(name);
        let epoch = hub.rotate(&room, "1").await;
        hub.assign(&room, "a").await;
        server.admin::<()>(&["DEL", &format!("twine:{{{name}}}:{lost}")]);
        assert!(matches!(hub.publish(&room, "b").await.unwrap(), Published::Rotate(_)), "{lost}");
        assert_eq!(hub.commit(&room, &epoch, &[1]).await, Committed::Rotated, "{lost}");
    }
    // Without its log nobody can complete what is pending.
    let room = room("evicted-log");
    let epoch = hub.rotate(&room, "1").await;
    hub.assign(&room, "a").await;
    server.admin::<()>(&["DEL", "twine:{evicted-log}:log"]);
    let overdue = hub.link.overdue(&room, &epoch, Duration::ZERO, 10, 1).await.unwrap();
    assert!(matches!(overdue, Overdue::Elsewhere), "{overdue:?}");
}

#[tokio::test]
async fn an_epoch_begins_only_where_it_is_later_and_on_the_server_it_was_meant_for() {
    let server = Server::start();
    let mut hub = Hub::at(&server.url());
    let room = room("epochs");
    hub.link.watch(&room).await.unwrap();
    let Looked::Rotate(crate::broker::redis::scripts::Rotate { server: id, .. }) =
        hub.link.look(&room).await.unwrap()
    else {
        panic!("not to be rotated");
    };
    let epoch = |text| Epoch::new(text).unwrap();
    let install = async |on: &str, text| hub.link.install(&room, on, &epoch(text), 7).await.unwrap();
    assert_eq!(install("other", "2").await, Installed::OtherServer(id.clone()));
    assert_eq!(install(&id, "2").await, Installed::Yes);
    assert_eq!(install(&id, "2").await, Installed::Yes, "an answer that was lost");
    assert_eq!(install(&id, "1").await, Installed::Later(epoch("2")));
    assert_eq!(hub.assign(&room, "a").await.get(), 1);
    assert_eq!(install(&id, "20").await, Installed::Yes);
    assert_eq!(hub.commit(&room, &epoch("2"), &[1]).await, Committed::Rotated);
    let Looked::Known { done, head, .. } = hub.link.look(&room).await.unwrap() else { panic!("not known") };
    assert_eq!((done, head), (position(&epoch("20"), 0), Offset::ZERO));
    for begun in ["2", "20"] {
        let event = hub.next().await;
        let BusEvent::Said { chunk: Chunk::Epoch(found), .. } = event else { panic!("{event:?}") };
        assert_eq!(found, epoch(begun));
    }
}

#[tokio::test]
async fn time_never_goes_back_in_a_room() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("time");
    let Looked::Rotate(crate::broker::redis::scripts::Rotate { server: id, .. }) =
        hub.link.look(&room).await.unwrap()
    else {
        panic!("not to be rotated");
    };
    // By the clock of another server, which was ahead.
    let ahead = 1 << 43;
    let epoch = Epoch::new("1").unwrap();
    assert_eq!(hub.link.install(&room, &id, &epoch, ahead).await.unwrap(), Installed::Yes);
    let Published::Assigned { time, .. } = hub.publish(&room, "a").await.unwrap() else { panic!("refused") };
    assert_eq!(time, ahead);
    hub.commit(&room, &epoch, &[1]).await;
    let Tail::Messages(records) = hub.link.read(&room, &position(&epoch, 0), 1, 1).await.unwrap() else {
        panic!("not known");
    };
    assert_eq!(records[0].time, ahead);
}

#[tokio::test]
async fn scripts_are_loaded_again_where_the_server_forgot_them() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("scripts");
    hub.rotate(&room, "1").await;
    hub.assign(&room, "a").await;
    server.admin::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(hub.assign(&room, "b").await.get(), 2);
}

#[tokio::test]
async fn every_key_of_a_room_expires() {
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("keys");
    let epoch = hub.rotate(&room, "1").await;
    hub.assign(&room, "a").await;
    hub.assign(&room, "b").await;
    hub.commit(&room, &epoch, &[1]).await;
    let keys: Vec<String> = server.admin(&["KEYS", "*"]);
    assert_eq!(keys.len(), 5, "{keys:?}");
    for key in &keys {
        assert!(server.admin::<i64>(&["PTTL", key]) > 0, "{key}");
    }
    hub.commit(&room, &epoch, &[2]).await;
    let left = server.admin::<u64>(&["PTTL", "twine:{keys}:log"]);
    assert!(left <= 240_000, "once all is durable the log is kept for {left} ms");
}

#[tokio::test]
async fn what_is_too_much_for_the_bus_is_to_be_read() {
    let server = Server::start();
    let mut hub = Hub::at(&server.url());
    let room = room("large");
    let epoch = hub.rotate(&room, "1").await;
    hub.link.watch(&room).await.unwrap();
    let data = format!("\"{}\"", "x".repeat(64 * 1024));
    for n in 0..100_u32 {
        let id = MessageId::new(&n.to_string()).unwrap();
        hub.link.publish(&room, &id, None, &data, None, &hub.limits).await.unwrap();
    }
    hub.commit(&room, &epoch, &(1..=100).collect::<Vec<_>>()).await;
    let mut at = 0;
    loop {
        match hub.next().await {
            BusEvent::Said { chunk: Chunk::Messages { from, records }, .. } => {
                assert_eq!(from.offset.get(), at);
                assert!(records.len() <= 9, "a chunk of {}", records.len());
                at += records.len() as u64;
            }
            BusEvent::Said { chunk: Chunk::Done(done), .. } => {
                assert_eq!(done, position(&epoch, 100));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((60..100).contains(&at), "{at} were sent");
}

#[tokio::test]
async fn a_slow_consumer_is_told_that_it_missed_something() {
    let server = Server::start();
    let (publisher, room) = (Hub::at(&server.url()), room("slow"));
    let limits = Limits { bus_messages: 4, deadline: PATIENCE, connect: PATIENCE, ..Limits::default() };
    let mut slow = Hub::with(&server.url(), limits);
    slow.link.watch(&room).await.unwrap();
    let epoch = publisher.rotate(&room, "1").await;
    for n in 1..=20 {
        publisher.assign(&room, &n.to_string()).await;
        publisher.commit(&room, &epoch, &[n]).await;
    }
    slow.next_interruption().await;
}

#[tokio::test]
async fn what_another_program_says_on_the_bus_is_unreadable_not_fatal() {
    let server = Server::start();
    let (mut hub, room) = (Hub::at(&server.url()), room("noise"));
    hub.link.watch(&room).await.unwrap();
    server.admin::<()>(&["SPUBLISH", "twine:{noise}", "hello"]);
    let event = hub.next().await;
    assert!(matches!(&event, BusEvent::Unreadable(of) if *of == room), "{event:?}");
    hub.link.unwatch(&room);
    until("the subscription ends", async || {
        server.admin::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"]).is_empty()
    })
    .await;
    hub.link.watch(&room).await.unwrap();
    assert_eq!(server.admin::<Vec<String>>(&["PUBSUB", "SHARDCHANNELS"]), ["twine:{noise}"]);
}

#[tokio::test]
async fn a_commit_takes_any_number_of_places() {
    const MESSAGES: u64 = 1030;
    let server = Server::start();
    let hub = Hub::at(&server.url());
    let room = room("many");
    let epoch = hub.rotate(&room, "1").await;
    for n in 1..=MESSAGES {
        hub.assign(&room, &n.to_string()).await;
    }
    let all: Vec<_> = (1..=MESSAGES).collect();
    assert_eq!(hub.commit(&room, &epoch, &all).await, Committed::Done(Offset::new(MESSAGES).unwrap()));
}
