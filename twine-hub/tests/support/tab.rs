//! A page's connection, frame by frame: with the headers and frames that a test means.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};

/// Of a page on the same machine, which a hub there lets in.
pub(crate) const APP: &str = "http://localhost:3000";

/// A page's connection.
pub(crate) struct Tab(tokio_tungstenite::WebSocketStream<TcpStream>);

impl Tab {
    /// Opens it with these headers, and says `connect` with these fields; gives what the hub answers.
    pub(crate) async fn open(hub: SocketAddr, headers: &[(&str, &str)], mut connect: Value) -> (Self, Value) {
        let mut request = format!("ws://{hub}/ws").into_client_request().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let socket = TcpStream::connect(hub).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, socket).await.unwrap();
        let mut tab = Self(socket);
        connect["type"] = "connect".into();
        tab.say(&connect).await;
        let connected = tab.next().await;
        assert_eq!(connected["type"], "connected", "{connected}");
        (tab, connected)
    }

    /// The same for a page of [`APP`] with this cookie.
    pub(crate) async fn of(hub: SocketAddr, cookie: &str, connect: Value) -> (Self, Value) {
        Self::open(hub, &[("Origin", APP), ("Cookie", cookie)], connect).await
    }

    pub(crate) async fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let message = self.0.next().await.expect("a frame").expect("a frame");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Subscribes `chat` without saying from where; gives the answer.
    pub(crate) async fn subscribe(&mut self) -> Value {
        self.say(&json!({ "type": "subscribe", "id": 1, "room": "chat" })).await;
        let subscribed = self.next().await;
        assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
        subscribed
    }

    /// What comes up to the message with this data; epochs are left out.
    pub(crate) async fn data_up_to(&mut self, last: u64) -> Vec<u64> {
        let mut all = Vec::new();
        while all.last() != Some(&last) {
            let frame = self.next().await;
            match frame["type"].as_str() {
                Some("message") => all.push(frame["data"].as_u64().unwrap()),
                Some("epoch") => {}
                _ => panic!("no message: {frame}"),
            }
        }
        all
    }

    /// Says that it has everything of `chat` up to here; the hub has heard it when this returns.
    pub(crate) async fn acknowledge(&mut self, position: &Value) {
        self.say(&json!({ "type": "pong", "cursors": { "chat": position } })).await;
        self.say(&json!({ "type": "unsubscribe", "id": 9, "room": "none" })).await;
        assert_eq!(self.next().await["id"], 9);
    }

    /// Takes `chat` out of its session, which without rooms goes with the connection.
    pub(crate) async fn unsubscribe(&mut self) {
        self.say(&json!({ "type": "unsubscribe", "id": 2, "room": "chat" })).await;
        assert_eq!(self.next().await["type"], "unsubscribed");
    }

    /// Says that it is there whenever it is asked, until the hub ends the connection.
    #[allow(dead_code, reason = "only some of the tests that share this file do")]
    pub(crate) async fn answer_pings(&mut self) {
        let pong = Message::text(json!({ "type": "pong" }).to_string());
        while let Some(Ok(message)) = self.0.next().await {
            if message.to_text().is_ok_and(|frame| frame.contains(r#""type":"ping""#))
                && self.0.send(pong.clone()).await.is_err()
            {
                return;
            }
        }
    }

    /// Ends the connection, and waits until the hub has.
    pub(crate) async fn leave(mut self) {
        self.0.close(None).await.unwrap();
        self.ended().await;
    }

    /// Waits until the hub has ended the connection.
    pub(crate) async fn ended(mut self) {
        while self.0.next().await.is_some_and(|frame| frame.is_ok()) {}
    }

    /// Has four messages of `chat` come, and acknowledges two.
    pub(crate) async fn has_acknowledged_half(&mut self, publish: impl AsyncFn(u64) -> Value) {
        self.subscribe().await;
        for n in 1..=4 {
            let position = publish(n).await;
            assert_eq!(self.data_up_to(n).await, [n]);
            if n == 2 {
                self.acknowledge(&position).await;
            }
        }
    }
}
