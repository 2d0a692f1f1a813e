//! The real HAProxy in front of hubs, as `deploy/haproxy/haproxy.cfg` sets it up.
//!
//! The hubs here know nothing of each other: who is connected to one gets what is published there,
//! which shows where HAProxy sends what.

// clippy allows these in functions marked as tests only, and here helpers are tests too.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

mod proxy;
#[path = "../http/support.rs"]
#[allow(dead_code)]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use twine_hub::{Hub, Running};

use crate::proxy::{Port, Proxy, Server};
use crate::support::{KEY, Request};

/// The places of a hub behind the proxy, which a later process of it takes again.
struct Ports {
    http: Port,
    agent: Port,
}

impl Ports {
    fn reserve() -> Self {
        Self { http: Port::reserve(), agent: Port::reserve() }
    }

    /// A hub in these places. One that was here before may not have left them yet.
    async fn start(&self, max_connections: usize) -> Running {
        loop {
            let builder = Hub::builder().ephemeral().configure(|config| {
                config.listen = self.http.address();
                config.agent_listen = Some(self.agent.address());
                config.api_key = vec![KEY.parse().unwrap()];
                config.max_connections = max_connections;
                // Each shard tells its first client at once.
                config.shards = 1;
                // A hub that is told to stop goes on for as long as a test looks at it.
                config.drain_window = Duration::from_hours(1);
                config.shutdown_grace = Duration::from_hours(2);
            });
            match builder.start().await {
                Ok(hub) => return hub,
                Err(twine_hub::StartError::Listen { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A subscriber of the room `chat`.
async fn subscriber(address: SocketAddr) -> Socket {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await.unwrap();
    for frame in [r#"{"type":"connect"}"#, r#"{"type":"subscribe","id":1,"room":"chat"}"#] {
        socket.send(Message::text(frame)).await.unwrap();
        next(&mut socket).await;
    }
    socket
}

async fn next(socket: &mut Socket) -> String {
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

async fn publish(address: SocketAddr, data: &str) {
    let body = format!(r#"{{"room":"chat","data":"{data}"}}"#);
    let answer = Request::publish(&body).send_to(address).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_hub_that_drains_gets_nobody_new_and_serves_on_and_is_back_when_it_is() {
    let (first, second) = (Ports::reserve(), Ports::reserve());
    let (stopping, _other) = (first.start(100).await, second.start(100).await);
    let proxy = Proxy::start(&[&first, &second].map(|hub| (hub.http.address(), hub.agent.address())));
    for hub in ["hub-1", "hub-2"] {
        proxy.until(hub, Server::is_up).await;
    }
    let mut there = [subscriber(first.http.address()).await, subscriber(first.http.address()).await];

    let stopping = tokio::spawn(stopping.shutdown());
    proxy.until("hub-1", |server| !server.is_up()).await;
    // Publishes go to the other hub, so these are connected to it, all of them.
    let mut new = Vec::new();
    for _ in 0..10 {
        new.push(subscriber(proxy.address()).await);
    }
    publish(proxy.address(), "through the proxy").await;
    for socket in &mut new {
        let message = next(socket).await;
        assert!(message.contains("through the proxy"), "{message}");
    }
    // One of the two was told to go at once; the other's turn is later.
    publish(first.http.address(), "to the stopping hub").await;
    let said = [next(&mut there[0]).await, next(&mut there[1]).await];
    assert_eq!(said.iter().filter(|said| said.contains(r#""code":"draining""#)).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.contains("to the stopping hub")).count(), 1, "{said:?}");

    stopping.abort();
    let _back = first.start(100).await;
    proxy.until("hub-1", Server::is_up).await;
}

#[tokio::test]
async fn a_hub_gets_the_share_of_connections_that_it_has_room_for_and_a_full_one_turns_nobody_away() {
    let (first, second) = (Ports::reserve(), Ports::reserve());
    let (_small, _large) = (first.start(4).await, second.start(1_000).await);
    let proxy = Proxy::start(&[&first, &second].map(|hub| (hub.http.address(), hub.agent.address())));
    let address = first.http.address();
    let mut there = vec![subscriber(address).await, subscriber(address).await, subscriber(address).await];
    // At most, for the processor's load counts too.
    proxy.until("hub-1", |server| server.is_up() && (1..=25).contains(&server.weight)).await;
    there.push(subscriber(address).await);
    proxy.until("hub-1", |server| server.weight == 1).await;
    // The full hub gets one of a hundred, and its 503 is not the client's last word.
    for _ in 0..200 {
        there.push(subscriber(proxy.address()).await);
    }
    publish(second.http.address(), "to the other").await;
    for socket in &mut there[4..] {
        let message = next(socket).await;
        assert!(message.contains("to the other"), "{message}");
    }
}
