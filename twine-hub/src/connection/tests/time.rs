//! What happens to who says nothing for too long.

use super::*;

#[tokio::test]
async fn who_never_says_connect_is_closed() {
    let bench =
        Bench::in_memory(&Options { connect_timeout: Duration::from_millis(300), ..Options::default() });
    let mut silent = bench.client().await;
    assert_eq!(silent.error().await, (None, "connect_timeout"));
    assert_eq!(silent.closed().await, 4408);
    bench.end().await;
}

#[tokio::test]
async fn who_falls_silent_is_asked_and_then_closed() {
    let bench = Bench::in_memory(&Options { heartbeat: SHORT_HEARTBEAT, ..Options::default() });
    let mut asked = None;
    for _ in 0..ATTEMPTS {
        let mut client = bench.client().await;
        client.connect().await;
        match client.next().await {
            Frame::Ping => asked = Some(client),
            // Both were due at once.
            Frame::Error(error) if error.code == ErrorCode::HeartbeatTimeout => continue,
            other => panic!("{other:?}"),
        }
        break;
    }
    let mut client = asked.expect("a ping");
    client.say(r#"{"type":"pong"}"#).await;
    loop {
        match client.next().await {
            Frame::Ping => {}
            Frame::Error(error) => break assert_eq!(error.code.as_str(), "heartbeat_timeout"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.closed().await, 1012);
    bench.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_connect_frame_do_not_put_its_time_off() {
    let bench =
        Bench::in_memory(&Options { connect_timeout: Duration::from_millis(300), ..Options::default() });
    let mut client = bench.client().await;
    loop {
        client.0.send(Ws::Ping(Bytes::new())).await.unwrap();
        match client.0.next().await.unwrap().unwrap() {
            Ws::Pong(_) => {}
            Ws::Text(text) => break assert!(text.contains("connect_timeout"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    bench.end().await;
}
