//! Readers that take little, or nothing.

use super::*;

#[tokio::test]
async fn a_reader_that_stops_holds_nobody_up_and_misses_nothing() {
    for tail_bytes in [usize::MAX, 1 << 20] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(
            Kind::Memory { max_bytes: usize::MAX },
            &options,
            &Options { shards: 1, ..Options::default() },
        );
        let mut slow = bench.subscriber("chat").await;
        let mut quick = bench.subscriber("chat").await;
        let filler = "x".repeat(60_000);
        // More than the sockets' buffers hold.
        for n in 0..400 {
            bench.publish("chat", &format!(r#""{n} {filler}""#)).await;
            assert!(quick.data().await.starts_with(&format!("\"{n} ")));
        }
        for n in 0..400 {
            assert!(slow.data().await.starts_with(&format!("\"{n} ")), "message {n}");
        }
        bench.publish("chat", "1").await;
        assert_eq!((slow.data().await, quick.data().await), ("1".into(), "1".into()));
        bench.end().await;
    }
}

#[tokio::test]
async fn a_reader_that_stays_stuck_is_cut_without_a_word_and_goes_on_after_what_it_took() {
    const MESSAGES: u64 = 400;
    let options = Options { write_timeout: Duration::from_millis(300), ..Options::default() };
    let bench = Bench::in_memory(&options);
    let mut stuck = bench.subscriber("chat").await;
    let mut cursor = bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().head;
    bench.publish_many("chat", MESSAGES, &"x".repeat(60_000)).await;
    while bench.telemetry.connections.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.errors(ErrorCode::TooSlow), 1);
    // What was on its way still arrives, up to the middle of a message or the end of one.
    while let Some(Ok(frame)) = stuck.0.next().await {
        assert!(!frame.is_close(), "there was room for {frame:?}");
        let Frame::Message(message) = json::decode_server(frame.to_text().unwrap()).unwrap() else {
            continue;
        };
        assert_eq!(message.offset, cursor.offset.next());
        cursor.offset = message.offset;
    }
    assert!(cursor.offset.get() < MESSAGES);
    let mut back = bench.client().await;
    back.connect().await;
    back.subscribe_after("chat", &cursor).await;
    let Frame::Subscribed(told) = back.next().await else { panic!("not subscribed") };
    assert_eq!((told.offset, told.recovered), (cursor.offset, Some(true)));
    for offset in cursor.offset.get() + 1..=MESSAGES {
        assert!(matches!(back.next().await, Frame::Message(message) if message.offset.get() == offset));
    }
    bench.end().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_is_not_taken_for_silent() {
    let bench = Bench::in_memory(&Options { heartbeat: SHORT_HEARTBEAT, ..Options::default() });
    // More than a reader with such buffers takes in many heartbeats.
    let position = bench.publish("chat", "0").await;
    bench.publish_many("chat", 2_000, &"x".repeat(4_000)).await;
    for _ in 0..ATTEMPTS {
        if reads_for_four_heartbeats_without_a_word(&bench, &position).await {
            return drop(bench.end().await);
        }
    }
    panic!("a reader that is slow was taken for silent");
}

async fn reads_for_four_heartbeats_without_a_word(bench: &Bench, after: &Position) -> bool {
    let socket = bench.socket_with(small_buffers);
    let mut slow = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    slow.connect().await;
    slow.subscribe_after("chat", after).await;
    let (mut heartbeats, mut offset) = (0, after.offset.get());
    while heartbeats < 4 {
        match slow.next().await {
            Frame::Subscribed(_) => {}
            Frame::Message(message) => {
                offset += 1;
                assert_eq!(message.offset.get(), offset);
            }
            Frame::Ping => heartbeats += 1,
            Frame::Error(error) if error.code == ErrorCode::HeartbeatTimeout => return false,
            other => panic!("after message {offset}: {other:?}"),
        }
    }
    true
}

#[tokio::test]
async fn a_client_that_asks_without_reading_waits_for_its_answers_and_gets_them_all() {
    const PINGS: usize = 1_500;
    let bench = Bench::in_memory(&Options::default());
    let socket = bench.socket_with(small_buffers);
    let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    for _ in 0..PINGS {
        client.0.feed(Ws::Ping(Bytes::from_static(&[b'x'; 100]))).await.unwrap();
    }
    client.0.flush().await.unwrap();
    for _ in 0..PINGS {
        assert!(matches!(client.0.next().await, Some(Ok(Ws::Pong(_)))));
    }
    bench.end().await;
}
