//! What each frame is answered.

use super::*;

#[tokio::test]
async fn a_message_reaches_every_subscriber_of_its_room_and_nobody_else() {
    let bench = Bench::in_memory(&Options { shards: 2, ..Options::default() });
    let mut chat = Vec::new();
    for _ in 0..5 {
        chat.push(bench.subscriber("chat").await);
    }
    let mut other = bench.subscriber("other").await;
    for n in 0..3 {
        bench.publish("chat", &n.to_string()).await;
    }
    bench.publish("other", r#""marker""#).await;
    for client in &mut chat {
        for n in 0..3 {
            assert_eq!(client.data().await, n.to_string());
        }
    }
    assert_eq!(other.data().await, r#""marker""#);
    assert_eq!(bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().subscribers, 5);
    assert_eq!(bench.end().await.delivered.get(), 16);
}

#[tokio::test]
async fn what_is_asked_at_once_is_answered_in_one_piece_and_in_order() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let bench = Bench::in_memory(&Options::default());
    let mut socket = bench.socket();
    let asked = [
        r#"{"type":"connect"}"#,
        r#"{"type":"unsubscribe","id":1,"room":"none"}"#,
        r#"{"type":"unsubscribe","id":2,"room":"none"}"#,
    ];
    socket.write_all(&asked.map(masked).concat()).await.unwrap();
    let mut read = vec![0; 4096];
    let n = socket.read(&mut read).await.unwrap();
    let read = String::from_utf8_lossy(&read[..n]);
    let places = [r#""type":"connected""#, r#""id":1"#, r#""id":2"#].map(|text| read.find(text));
    assert!(places.is_sorted() && places[0].is_some(), "{read}");
    bench.end().await;
}

#[tokio::test]
async fn more_than_is_gathered_is_answered_in_order_also_before_the_connection_ends() {
    let bench = Bench::in_memory(&Options::default());
    let mut client = bench.client().await;
    client.connect().await;
    for id in 0..200 {
        client.say(&format!(r#"{{"type":"unsubscribe","id":{id},"room":"none"}}"#)).await;
    }
    client.say("{").await;
    for id in 0..200 {
        assert_eq!(client.error().await, (Some(id), "not_subscribed"));
    }
    assert_eq!(client.error().await, (None, "bad_frame"));
    assert_eq!(client.closed().await, 4400);
    bench.end().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_answered_by_its_code_and_nobody_else_notices() {
    let bench = Bench::in_memory(&Options { max_frame: 1000, ..Options::default() });
    let mut witness = bench.subscriber("chat").await;
    let long = format!(r#"{{"type":"connect","scope":"{}"}}"#, "x".repeat(1000));
    let connect = r#"{"type":"connect"}"#;
    for (frames, error, close) in [
        (vec!["{"], "bad_frame", 4400),
        (vec!["[]"], "bad_frame", 4400),
        (vec![r#"{"type":"subscribe","id":1,"room":"chat"}"#], "bad_frame", 4400),
        (vec![r#"{"type":"ping"}"#], "bad_frame", 4400),
        (vec![connect, connect], "bad_frame", 4400),
        (vec![connect, r#"{"id":1}"#], "bad_frame", 4400),
        (vec![connect, r#"{"type":"subscribe","room":"chat"}"#], "bad_frame", 4400),
        (vec![connect, r#"{"type":"subscribe","id":-1,"room":"chat"}"#], "bad_frame", 4400),
        (vec![&long], "frame_too_big", 1009),
    ] {
        let mut client = bench.client().await;
        for frame in &frames {
            client.say(frame).await;
        }
        for _ in 1..frames.len() {
            assert!(matches!(client.next().await, Frame::Connected(_)));
        }
        assert_eq!(client.error().await, (None, error), "{frames:?}");
        assert_eq!(client.closed().await, close, "{frames:?}");
    }
    let mut client = bench.client().await;
    client.connect().await;
    client.0.send(Ws::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.error().await, (None, "bad_frame"));
    assert_eq!(client.closed().await, 4400);
    bench.publish("chat", "1").await;
    assert_eq!(witness.data().await, "1");
    bench.end().await;
}

#[tokio::test]
async fn a_request_that_can_not_be_met_is_refused_by_its_id_and_the_connection_goes_on() {
    let bench = Bench::in_memory(&Options { max_rooms: 3, ..Options::default() });
    let mut client = bench.subscriber("chat").await;
    client.say(r#"{"type":"publish","id":5}"#).await;
    assert_eq!(client.error().await, (Some(5), "unknown_frame"));
    client.say(r#"{"type":"subscribe","id":6,"room":""}"#).await;
    assert_eq!(client.error().await, (Some(6), "bad_room"));
    client.say(&format!(r#"{{"type":"subscribe","id":7,"room":"{}"}}"#, "x".repeat(256))).await;
    assert_eq!(client.error().await, (Some(7), "bad_room"));
    client.say(r#"{"type":"unsubscribe","id":8,"room":"never"}"#).await;
    assert_eq!(client.error().await, (Some(8), "not_subscribed"));
    for n in 0..10_000 {
        client.say(&format!(r#"{{"type":"subscribe","id":{},"room":"room {n}"}}"#, 100 + n)).await;
        match client.next().await {
            Frame::Subscribed(s) => assert!(n < 2 && s.id == 100 + n),
            Frame::Error(e) => {
                assert!(n >= 2 && e.id == Some(100 + n) && e.code.as_str() == "too_many_rooms");
            }
            other => panic!("{other:?}"),
        }
    }
    bench.publish("chat", "1").await;
    assert_eq!(client.data().await, "1");
    bench.end().await;
}

#[tokio::test]
async fn subscribing_again_answers_the_present_cursor_and_unsubscribing_ends_delivery() {
    let bench = Bench::in_memory(&Options::default());
    let mut client = bench.subscriber("chat").await;
    let position = bench.publish("chat", "1").await;
    assert_eq!(client.data().await, "1");
    client.say(r#"{"type":"subscribe","id":2,"room":"chat"}"#).await;
    let Frame::Subscribed(again) = client.next().await else { panic!("not subscribed") };
    assert_eq!((again.id, again.offset, again.recovered), (2, position.offset, None));
    bench.publish("chat", "2").await;
    assert_eq!(client.data().await, "2");
    client.say(r#"{"type":"unsubscribe","id":3,"room":"chat"}"#).await;
    assert!(matches!(client.next().await, Frame::Unsubscribed(u) if u.id == 3));
    bench.publish("chat", "3").await;
    client.say(r#"{"type":"unsubscribe","id":4,"room":"chat"}"#).await;
    assert_eq!(client.error().await, (Some(4), "not_subscribed"));
    assert_eq!(bench.telemetry.subscriptions.get(), 0);
    bench.end().await;
}
