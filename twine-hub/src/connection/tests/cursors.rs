//! Where a subscription begins, and what it goes on with.

use super::*;

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_from_memory_and_from_the_store() {
    for tail_bytes in [usize::MAX, 0] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
        let mut first = bench.publish("chat", "1").await;
        for n in 2..=500 {
            bench.publish("chat", &n.to_string()).await;
        }
        let mut client = bench.client().await;
        client.connect().await;
        client.subscribe_after("chat", &first).await;
        let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
        assert_eq!((subscribed.offset, subscribed.recovered), (first.offset, Some(true)));
        assert_eq!(subscribed.head.offset.get(), 500);
        bench.publish("chat", "501").await;
        for n in 2..=501 {
            assert_eq!(client.data().await, n.to_string());
        }
        // From elsewhere: told so, and from here on nothing is missed.
        first.epoch = twine_protocol::Epoch::new("zzz").unwrap();
        client.subscribe_after("chat", &first).await;
        let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
        assert_eq!((subscribed.recovered, subscribed.reason), (Some(false), Some(GapReason::Unknown)));
        assert_eq!(subscribed.offset.get(), 501);
        bench.publish("chat", "502").await;
        assert_eq!(client.data().await, "502");
        bench.end().await;
    }
}

#[tokio::test]
async fn history_starts_that_many_messages_before_the_head() {
    for tail_bytes in [usize::MAX, 0] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
        for n in 1..=30 {
            bench.publish("chat", &n.to_string()).await;
        }
        let mut client = bench.client().await;
        client.connect().await;
        for (history, first) in [(5, 26), (1000, 1)] {
            client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"chat","history":{history}}}"#)).await;
            let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
            assert_eq!((subscribed.offset.get(), subscribed.recovered), (first - 1, None));
            for n in first..=30 {
                assert_eq!(client.data().await, n.to_string());
            }
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn over_a_restart_the_cursor_crosses_into_the_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let bench = Bench::new(kind.clone(), &rooms::Options::default(), &Options::default());
    let first = bench.publish("chat", "1").await;
    let last = bench.publish("chat", "2").await;
    bench.end().await;
    let bench = Bench::new(kind, &rooms::Options::default(), &Options::default());
    bench.publish("chat", "3").await;
    let mut client = bench.client().await;
    client.connect().await;
    client.subscribe_after("chat", &first).await;
    let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
    assert_eq!((subscribed.offset, subscribed.recovered), (first.offset, Some(true)));
    assert_eq!(client.data().await, "2");
    let Frame::Epoch(crossing) = client.next().await else { panic!("no crossing") };
    assert_eq!((crossing.prev, &crossing.epoch), (last, &subscribed.head.epoch));
    assert_eq!(client.data().await, "3");
    bench.publish("chat", "4").await;
    assert_eq!(client.data().await, "4");
    assert_eq!(bench.end().await.delivered.get(), 3, "a crossing is no message");
}

#[tokio::test]
async fn a_room_that_recovers_and_is_left_holds_no_other_room_up() {
    let options = rooms::Options { tail_bytes: 0, ..rooms::Options::default() };
    let memory = Kind::Memory { max_bytes: usize::MAX };
    let bench = Bench::new(memory, &options, &Options { shards: 1, ..Options::default() });
    let first = bench.publish("long", "0").await;
    for _ in 0..20 {
        bench.publish_many("long", 500, &"x".repeat(1000)).await;
    }
    for left_by in [
        r#"{"type":"unsubscribe","id":3,"room":"long"}"#,
        r#"{"type":"subscribe","id":3,"room":"long","history":1}"#,
    ] {
        let mut client = bench.client().await;
        client.connect().await;
        client.subscribe_after("long", &first).await;
        assert!(matches!(client.next().await, Frame::Subscribed(_)));
        client.say(r#"{"type":"subscribe","id":2,"room":"short"}"#).await;
        client.say(left_by).await;
        let mut answered = 0;
        while answered < 2 {
            match client.next().await {
                Frame::Subscribed(_) | Frame::Unsubscribed(_) => answered += 1,
                Frame::Message(message) => assert_eq!(message.room.as_str(), "long"),
                other => panic!("{other:?}"),
            }
        }
        bench.publish("short", "1").await;
        while !matches!(client.next().await, Frame::Message(message) if message.room.as_str() == "short") {}
    }
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_nobody_uses_leaves_memory() {
    let options = rooms::Options { tail_bytes: 0, ..rooms::Options::default() };
    let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
    let client = bench.subscriber("chat").await;
    bench.publish("chat", "1").await;
    assert_eq!(bench.telemetry.rooms.get(), 1);
    drop(client);
    while bench.telemetry.rooms.get() > 0 {
        tokio::task::yield_now().await;
    }
    let again = bench.rooms.info(&"chat".parse().unwrap()).await.unwrap();
    assert_eq!(again.head.offset.get(), 1, "its head is still known");
    bench.publish("chat", "2").await;
    assert_eq!(bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().head.offset.get(), 2);
    bench.end().await;
}
