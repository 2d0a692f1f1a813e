//! The hub answers each bad frame of `twine-protocol/vectors/client-frames.json` as it says there.

// The exception of clippy.toml covers test functions, not what they share.
#![allow(clippy::unwrap_used)]

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use twine_hub::Hub;
use twine_protocol::{CloseCode, ServerFrame, json};

#[derive(Deserialize)]
struct File {
    bad: Vec<Bad>,
}

#[derive(Deserialize)]
struct Bad {
    name: String,
    text: String,
    code: String,
    id: Option<u64>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[tokio::test]
async fn bad_frames_are_answered_as_the_vectors_say() {
    let file: File =
        serde_json::from_str(include_str!("../../twine-protocol/vectors/client-frames.json")).unwrap();
    let hub = Hub::builder().ephemeral().start().await.unwrap();
    for bad in file.bad {
        let mut socket = open(&hub.url()).await;
        socket.send(Message::text(bad.text)).await.unwrap();
        match frame(&mut socket).await {
            ServerFrame::Error(error) => {
                assert_eq!((error.code.as_str(), error.id), (bad.code.as_str(), bad.id), "{}", bad.name);
            }
            other => panic!("{}: {other:?}", bad.name),
        }
        if bad.code == "bad_frame" {
            match socket.next().await.unwrap().unwrap() {
                Message::Close(Some(close)) => {
                    assert_eq!(u16::from(close.code), CloseCode::BadFrame.as_u16(), "{}", bad.name);
                    assert_eq!(close.reason.as_str(), bad.code, "{}", bad.name);
                }
                other => panic!("{}: {other:?}", bad.name),
            }
        } else {
            // The connection stays, and serves.
            socket.send(Message::text(r#"{"type":"subscribe","id":99,"room":"chat"}"#)).await.unwrap();
            let answer = frame(&mut socket).await;
            assert!(matches!(answer, ServerFrame::Subscribed(s) if s.id == 99), "{}", bad.name);
        }
    }
    hub.shutdown().await;
}

/// A connection after its greeting.
async fn open(url: &str) -> Socket {
    let url = format!("{}/ws", url.replacen("http", "ws", 1));
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.send(Message::text(r#"{"type":"connect"}"#)).await.unwrap();
    assert!(matches!(frame(&mut socket).await, ServerFrame::Connected(_)));
    socket
}

async fn frame(socket: &mut Socket) -> ServerFrame<twine_protocol::Data> {
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => json::decode_server(text.as_str()).unwrap(),
        other => panic!("no frame: {other:?}"),
    }
}
