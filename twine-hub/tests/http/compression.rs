//! `permessage-deflate` (PROTOCOL.md, section "Compression"), as a browser speaks it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use twine_hub::Running;

use crate::support::{Request, hub, hub_with};
use crate::websocket::{first_answer, handshake};

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that compresses all that it sends, where that was agreed.
struct Client {
    socket: TcpStream,
    compresses: bool,
}

/// A frame as it came.
#[derive(Debug, PartialEq)]
struct Frame {
    text: String,
    was_compressed: bool,
    bytes: usize,
}

impl Client {
    async fn open(hub: &Running, offer: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(hub.address()).await.unwrap();
        let request = handshake();
        let request =
            offer.map_or(request.clone(), |offer| request.header("Sec-WebSocket-Extensions", offer));
        socket.write_all(&request.bytes(hub.address())).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let agreed = format!("sec-websocket-extensions: {AGREED}\r\n");
        let compresses = String::from_utf8(head).unwrap().contains(&agreed);
        Self { socket, compresses }
    }

    async fn subscriber(hub: &Running, offer: Option<&str>, after: Option<&str>) -> Self {
        let mut client = Self::open(hub, offer).await;
        client.say(r#"{"type":"connect"}"#).await;
        let after = after.map(|after| format!(r#","after":{after}"#)).unwrap_or_default();
        client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"chat"{after}}}"#)).await;
        assert!(client.next().await.text.starts_with(r#"{"type":"connected""#));
        assert!(client.next().await.text.starts_with(r#"{"type":"subscribed""#));
        client
    }

    async fn say(&mut self, text: &str) {
        let payload = if self.compresses { deflate(text) } else { text.as_bytes().to_vec() };
        let first = if self.compresses { 0xc1 } else { 0x81 };
        // Masked with zeros.
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        frame.extend(payload);
        self.socket.write_all(&frame).await.unwrap();
    }

    async fn next(&mut self) -> Frame {
        let first = self.socket.read_u8().await.unwrap();
        let len = match self.socket.read_u8().await.unwrap() {
            126 => usize::from(self.socket.read_u16().await.unwrap()),
            127 => usize::try_from(self.socket.read_u64().await.unwrap()).unwrap(),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.socket.read_exact(&mut payload).await.unwrap();
        let was_compressed = match first {
            0x81 => false,
            0xc1 => true,
            other => panic!("a frame that begins with {other:#x}: {payload:?}"),
        };
        if was_compressed {
            // An empty last block, so that the whole is a stream.
            payload.extend([0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
            payload = miniz_oxide::inflate::decompress_to_vec(&payload).unwrap();
        }
        Frame { text: String::from_utf8(payload).unwrap(), was_compressed, bytes: len }
    }

    /// The code that the hub closes with.
    async fn closed(&mut self) -> u16 {
        loop {
            let first = self.socket.read_u8().await.unwrap();
            let mut len = u16::from(self.socket.read_u8().await.unwrap());
            if first == 0x88 {
                return self.socket.read_u16().await.unwrap();
            }
            // What is told before it closes.
            if len == 126 {
                len = self.socket.read_u16().await.unwrap();
            }
            self.socket.read_exact(&mut vec![0; usize::from(len)]).await.unwrap();
        }
    }
}

/// A message without the last bytes of its stream (RFC 7692, section 7.2.1), in stored blocks.
fn deflate(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    let mut block = vec![0];
    block.extend(len.to_le_bytes());
    block.extend((!len).to_le_bytes());
    block.extend(text.as_bytes());
    block.push(0);
    block
}

async fn publish(hub: &Running, text: &str) {
    let body = format!(r#"{{"room":"chat","data":"{text}"}}"#);
    assert_eq!(Request::publish(&body).send(hub).await.status, 200);
}

#[tokio::test]
async fn who_takes_it_gets_long_messages_compressed_and_everyone_the_same_text() {
    let hub = hub().await;
    let mut taking = Client::subscriber(&hub, Some(OFFER), None).await;
    let mut another = Client::subscriber(&hub, Some(OFFER), None).await;
    let mut plain = Client::subscriber(&hub, None, None).await;
    let long = "all work and no play ".repeat(200);
    for text in ["short", &long, "short again", &long] {
        publish(&hub, text).await;
        let (frame, same, uncompressed) = (taking.next().await, another.next().await, plain.next().await);
        assert_eq!(frame, same);
        assert_eq!(frame.text, uncompressed.text);
        assert!(frame.text.ends_with(&format!(r#""data":"{text}"}}"#)));
        assert!(!uncompressed.was_compressed);
        let is_long = text.len() > 1024;
        assert_eq!(frame.was_compressed, is_long);
        assert!(!is_long || frame.bytes < text.len() / 5, "{}", frame.bytes);
    }
}

#[tokio::test]
async fn what_a_client_missed_comes_compressed_too() {
    // Nothing stays in memory: it comes from the store.
    let hub = hub_with(|config| config.tail_bytes = 1).await;
    let long = "all work and no play ".repeat(200);
    publish(&hub, "first").await;
    for _ in 0..3 {
        publish(&hub, &long).await;
    }
    let history = Request::get("/api/rooms/chat/messages").with_key().send(&hub).await.json();
    let after = format!(r#"{{"epoch":{},"offset":1}}"#, history["epoch"]);
    for offer in [Some(OFFER), None] {
        let mut client = Client::subscriber(&hub, offer, Some(&after)).await;
        for offset in 2..=4 {
            let frame = client.next().await;
            assert!(frame.text.contains(&format!(r#""offset":{offset},"#)), "{}", frame.text);
            assert_eq!(frame.was_compressed, offer.is_some());
        }
    }
}

#[tokio::test]
async fn it_is_agreed_to_where_it_is_offered_and_not_switched_off() {
    for (compress_from, offer, agreed) in [
        (Some(1), Some(OFFER), Some(AGREED)),
        (Some(1), Some("permessage-deflate; server_max_window_bits=9, permessage-deflate"), Some(AGREED)),
        (Some(1), Some("permessage-deflate; server_max_window_bits=9"), None),
        (Some(1), None, None),
        (None, Some(OFFER), None),
    ] {
        let hub = hub_with(|config| config.compress_from = compress_from).await;
        let request = handshake();
        let request =
            offer.map_or(request.clone(), |offer| request.header("Sec-WebSocket-Extensions", offer));
        let answer = first_answer(&hub, &request).await;
        assert_eq!((answer.status, answer.header("sec-websocket-extensions")), (101, agreed), "{offer:?}");
        let mut client = Client::subscriber(&hub, offer, None).await;
        let long = "all work and no play ".repeat(200);
        publish(&hub, &long).await;
        let frame = client.next().await;
        assert_eq!(frame.was_compressed, agreed.is_some(), "{offer:?}");
    }
}

#[tokio::test]
async fn a_bomb_ends_its_connection_and_no_other() {
    let hub = hub().await;
    let mut witness = Client::subscriber(&hub, Some(OFFER), None).await;
    let mut client = Client::open(&hub, Some(OFFER)).await;
    // 60,000 bytes of one letter in less than a hundred.
    let mut bomb = miniz_oxide::deflate::compress_to_vec("x".repeat(60_000).as_bytes(), 9);
    bomb.push(0);
    assert!(bomb.len() < 126);
    let mut frame = vec![0xc1, 0x80 | u8::try_from(bomb.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(bomb);
    client.socket.write_all(&frame).await.unwrap();
    assert_eq!(client.closed().await, 1009);
    publish(&hub, "still here").await;
    assert!(witness.next().await.text.contains("still here"));
}

#[tokio::test]
async fn who_did_not_agree_may_not_compress() {
    let hub = hub().await;
    let mut client = Client::open(&hub, None).await;
    client.compresses = true;
    client.say(r#"{"type":"connect"}"#).await;
    assert_eq!(client.closed().await, 1002);
}
