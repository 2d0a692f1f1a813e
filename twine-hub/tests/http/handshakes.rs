//! Handshakes, which a hub answers without the server behind everything else, and what comes with them.

use base64::Engine as _;
use twine_hub::{Hub, Running};

use crate::express::Client;
use crate::support::{assert_works, hub, hub_with};

/// The handshake of RFC 6455, section 1.2, and what of frames comes right behind it.
fn handshake(path: &str, more: &str, behind: &[u8]) -> Vec<u8> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    );
    [head.as_bytes(), behind].concat()
}

#[tokio::test]
async fn it_does_not_show_who_answers_a_handshake() {
    let hub = hub().await;
    // A body, which is against the rules, is for the general server.
    for (path, more) in [("/ws", ""), ("/ws?x=1", ""), ("/ws", "Content-Length: 0\r\n")] {
        let mut client = Client::connect(hub.address()).await;
        let more = format!("Sec-WebSocket-Protocol: other, twine.v1.json\r\n{more}");
        client.send(&handshake(path, &more, &connect_frame())).await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 101);
        for (name, value) in [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("sec-websocket-protocol", "twine.v1.json"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{path} {more}");
        }
        client.until(b"connected").await;
    }
    assert_works(&hub).await;
}

/// A short text as a client's frame with a mask of zeros.
fn client_frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text.as_bytes()].concat()
}

fn connect_frame() -> Vec<u8> {
    client_frame(r#"{"type":"connect"}"#)
}

/// A query with these frames.
fn early(frames: &[&str]) -> String {
    format!("/ws?early={}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(frames.join("\n")))
}

#[tokio::test]
async fn frames_that_come_with_a_handshake_are_heard_before_those_behind_it() {
    let hub = hub().await;
    // The general server gets the one with a body.
    for more in ["", "Content-Length: 0\r\n"] {
        let mut client = Client::connect(hub.address()).await;
        let path = early(&[r#"{"type":"connect"}"#, r#"{"type":"subscribe","id":1,"room":"a"}"#]);
        let behind = client_frame(r#"{"type":"subscribe","id":2,"room":"b"}"#);
        client.send(&handshake(&path, more, &behind)).await;
        assert_eq!(client.answer().await.unwrap().status, 101);
        client.until(b"\"connected\"").await;
        client.until(b"\"subscribed\",\"id\":1").await;
        client.until(b"\"subscribed\",\"id\":2").await;
    }
    assert_works(&hub).await;
}

#[tokio::test]
async fn what_is_wrong_with_early_frames_is_said_as_everywhere() {
    let hub = hub().await;
    for path in ["/ws?early=_w", "/ws?early=%ff", "/ws?early=e30&early=e30"] {
        for more in ["", "Content-Length: 0\r\n"] {
            let mut client = Client::connect(hub.address()).await;
            client.send(&handshake(path, more, b"")).await;
            assert_eq!(
                client.answer().await.unwrap().problem(),
                (400, "bad_request".into()),
                "{path} {more}"
            );
        }
    }
    // What may not be in an address: the general server says so, whoever looked at it first.
    for path in ["/ws?early={}\"", "/ws?<>"] {
        for more in ["", "Content-Length: 0\r\n"] {
            let mut client = Client::connect(hub.address()).await;
            client.send(&handshake(path, more, b"")).await;
            assert_eq!(client.answer().await.unwrap().status, 400, "{path} {more}");
        }
    }
    for (frames, code) in
        [(&["{"][..], "bad_frame"), (&[r#"{"type":"subscribe","id":1,"room":"a"}"#], "bad_frame")]
    {
        let mut client = Client::connect(hub.address()).await;
        client.send(&handshake(&early(frames), "", b"")).await;
        assert_eq!(client.answer().await.unwrap().status, 101);
        client.until(code.as_bytes()).await;
    }
    // One that is longer than a frame may be, and still fits into a head.
    let small = hub_with(|config| config.max_frame = 1024).await;
    let mut client = Client::connect(small.address()).await;
    client.send(&handshake(&early(&[&"x".repeat(1025)]), "", b"")).await;
    assert_eq!(client.answer().await.unwrap().status, 101);
    client.until(b"frame_too_big").await;
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_handshake_that_waits_with_its_connection_is_answered_with_all_that_came() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // All of it is there before anybody accepts.
    let mut good = Client::connect(address).await;
    good.send(&handshake("/ws", "", &connect_frame())).await;
    let mut foreign = Client::connect(address).await;
    foreign.send(&handshake("/ws", "Origin: https://elsewhere.example\r\n", b"")).await;
    let mut other = Client::connect(address).await;
    other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let gone = Client::connect(address).await;
    drop(gone);
    let hub = Hub::builder().ephemeral().listener(listener).start().await.unwrap();
    assert_eq!(good.answer().await.unwrap().status, 101);
    good.until(b"connected").await;
    assert_eq!(foreign.answer().await.unwrap().problem(), (403, "origin_not_allowed".into()));
    assert_eq!(other.answer().await.unwrap().status, 200);
    hub.shutdown().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_as_everywhere() {
    let hub: Running = hub().await;
    let refused = |from: &str, to: &str| {
        let text = String::from_utf8(handshake("/ws", "Connection: close\r\n", b"")).unwrap();
        text.replace(from, to).into_bytes()
    };
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("Host: x", "Host: x\r\nOrigin: https://elsewhere.example", 403),
        ("/ws", "/wsx", 404),
        ("GET", "POST", 405),
    ] {
        let mut client = Client::connect(hub.address()).await;
        client.send(&refused(from, to)).await;
        assert_eq!(client.answer().await.unwrap().problem().0, status, "{to}");
    }
}
