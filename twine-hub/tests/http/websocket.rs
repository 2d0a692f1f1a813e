//! `GET /ws` up to the hand-over; what is said afterwards has tests of its own.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use twine_hub::Running;

use crate::support::{Answer, Request, assert_works, hub, hub_with, refusal};

pub(crate) fn handshake() -> Request {
    handshake_by("GET")
}

fn handshake_by(method: &str) -> Request {
    Request::new(method, "/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// The answer to a request that may be upgraded: what stands before the first frame.
pub(crate) async fn first_answer(hub: &Running, request: &Request) -> Answer {
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(&request.bytes(hub.address())).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head).unwrap();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    Answer::parse(text.as_str(), String::from_utf8(body).unwrap())
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

/// A subscriber of the room `chat`.
async fn subscriber(hub: &Running) -> Socket {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/ws", hub.address())).await.unwrap();
    socket.send(Message::text(r#"{"type":"connect"}"#)).await.unwrap();
    socket.send(Message::text(r#"{"type":"subscribe","id":1,"room":"chat"}"#)).await.unwrap();
    assert!(next(&mut socket).await.starts_with(r#"{"type":"connected""#));
    assert!(next(&mut socket).await.starts_with(r#"{"type":"subscribed","id":1,"room":"chat""#));
    socket
}

async fn next(socket: &mut Socket) -> String {
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test]
async fn a_message_reaches_a_subscriber() {
    let hub = hub().await;
    let mut socket = subscriber(&hub).await;
    Request::publish(r#"{"room":"chat","data":{"n" : 1.0},"sender":"me"}"#).send(&hub).await;
    let message = next(&mut socket).await;
    assert!(message.starts_with(r#"{"type":"message","room":"chat","offset":1,"#), "{message}");
    assert!(message.ends_with(r#""sender":"me","data":{"n" : 1.0}}"#), "{message}");
}

#[tokio::test]
async fn what_others_do_wrong_is_not_noticed() {
    let hub = hub().await;
    let mut socket = subscriber(&hub).await;
    Request::publish(r#"{"room":"chat","data":"#).send(&hub).await;
    Request::publish(&"x".repeat(2_000_000)).send(&hub).await;
    Request::post("/api/publish", r#"{"room":"chat","data":1}"#).send(&hub).await;
    Request::post_without_key("/api/publish", r#"{"room":"chat","data":1}"#).send(&hub).await;
    first_answer(&hub, &handshake().header("Origin", "https://evil.example")).await;
    let mut silent = TcpStream::connect(hub.address()).await.unwrap();
    silent.write_all(b"POST /api/publish HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    Request::publish(r#"{"room":"chat","data":"good"}"#).send(&hub).await;
    assert!(next(&mut socket).await.ends_with(r#""data":"good"}"#));
}

#[tokio::test]
async fn frames_sent_together_with_the_handshake_are_not_lost() {
    let hub = hub().await;
    // A masked text frame whose mask is zero.
    let connect = br#"{"type":"connect"}"#;
    let frame = [&[0x81, 0x80 | u8::try_from(connect.len()).unwrap(), 0, 0, 0, 0], &connect[..]].concat();
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(&[handshake().bytes(hub.address()), frame].concat()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(11).any(|window| window == br#""connected""#) {
        bytes.push(socket.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn the_subprotocol_is_selected_where_it_is_offered() {
    let hub = hub().await;
    for (offered, selected) in [
        (None, None),
        (Some("twine.v1.json"), Some("twine.v1.json")),
        (Some("chat, twine.v1.json"), Some("twine.v1.json")),
        (Some("twine.v9.cbor"), None),
    ] {
        let plain = handshake();
        let request =
            offered.map_or(plain.clone(), |offered| plain.header("Sec-WebSocket-Protocol", offered));
        let answer = first_answer(&hub, &request).await;
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("sec-websocket-protocol"), selected, "{offered:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("sec-websocket-extensions"), None);
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_told_how_to_make_one() {
    let hub = hub().await;
    let answer = Request::get("/ws").send(&hub).await;
    assert_eq!(answer.problem(), (426, "upgrade_required".into()));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    let old = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "8");
    let answer = old.send(&hub).await;
    assert_eq!(answer.problem(), (426, "upgrade_required".into()));
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    let head = handshake_by("HEAD").send(&hub).await;
    assert_eq!(head.status, 426);
    let no_key = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13");
    assert_eq!(refusal(&hub, no_key).await, (400, "bad_request".into()));
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_full_hub_says_so_and_takes_the_next_when_one_leaves() {
    let hub = hub_with(|config| config.max_connections = 1).await;
    let url = format!("ws://{}/ws", hub.address());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let answer = first_answer(&hub, &handshake()).await;
    assert_eq!(answer.problem(), (503, "full".into()));
    assert!(answer.header("retry-after").is_some());
    assert_works(&hub).await;

    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    // The place is free when the hub has seen the end, which the client can't observe: ask again.
    while first_answer(&hub, &handshake()).await.status != 101 {}
}
