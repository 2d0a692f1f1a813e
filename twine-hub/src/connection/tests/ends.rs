//! How connections end, and places become free.

use super::*;

#[tokio::test]
async fn draining_sends_every_client_away_and_counts_them_out() {
    let bench = Bench::in_memory(&Options::default());
    let mut client = bench.subscriber("chat").await;
    let (telemetry, connections) = (bench.telemetry.clone(), bench.connections.clone());
    let drained =
        tokio::spawn(async move { connections.drain(Duration::ZERO, Duration::from_secs(5)).await });
    assert!(matches!(client.next().await, Frame::Disconnect(d) if d.code.as_str() == "draining"));
    assert_eq!(client.closed().await, 1012);
    drop(client);
    drained.await.unwrap();
    assert_eq!(telemetry.connections.get(), 0);
    bench.end().await;
}

#[tokio::test]
async fn who_is_told_to_go_later_is_served_until_then() {
    let bench = Bench::in_memory(&Options { shards: 1, ..Options::default() });
    let (mut one, mut two) = (bench.subscriber("chat").await, bench.subscriber("chat").await);
    let (connections, window) = (bench.connections.clone(), Duration::from_hours(1));
    let draining = tokio::spawn(async move { connections.drain(window, window).await });
    // The first of them is told at once, and nobody knows which that is.
    let (told, mut served) = tokio::select! {
        told = one.next() => (told, two),
        told = two.next() => (told, one),
    };
    let Frame::Disconnect(told) = told else { panic!("{told:?}") };
    assert_eq!(told.code, ErrorCode::Draining);
    assert!(told.retry < 1_000, "{} ms", told.retry);
    bench.publish("chat", "1").await;
    assert_eq!(served.data().await, "1");
    // Who comes now is sent on.
    assert!(
        matches!(bench.client().await.next().await, Frame::Disconnect(told) if told.code == ErrorCode::Draining)
    );
    bench.end().await;
    assert!(matches!(served.next().await, Frame::Disconnect(told) if told.code == ErrorCode::Draining));
    draining.await.unwrap();
}

#[tokio::test]
async fn an_end_behind_more_input_than_a_turn_reads_is_noticed() {
    use std::io::Write as _;
    // One shard takes them in turn: when the second is answered, the first has been taken.
    let options = Options { heartbeat: Duration::from_hours(1), shards: 1, ..Options::default() };
    let bench = Bench::in_memory(&options);
    let mut client = TcpStream::connect(bench.listener.local_addr().unwrap()).unwrap();
    let (socket, _) = bench.listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    let mut input = masked(r#"{"type":"connect"}"#);
    while input.len() < 300 << 10 {
        input.extend(masked(r#"{"type":"pong"}"#));
    }
    client.write_all(&input).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // Handed over with everything in the socket already: the poll tells of it once.
    let place = bench.connections.reserve().unwrap();
    let caller = Caller { cookie: None, origin: "".into(), address: LOCAL };
    bench.connections.adopt(
        place,
        Handover { socket, answer: Bytes::new(), read: Vec::new(), is_compressed: false, caller },
    );
    let mut again = bench.client().await;
    again.connect().await;
    while bench.telemetry.connections.get() > 1 {
        tokio::task::yield_now().await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_full_hub_has_no_place_until_one_is_free() {
    let bench = Bench::in_memory(&Options { max_connections: 1, ..Options::default() });
    let place = bench.connections.reserve().unwrap();
    assert!(bench.connections.reserve().is_none());
    drop(place);
    assert!(bench.connections.reserve().is_some());
    bench.end().await;
}
