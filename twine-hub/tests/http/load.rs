//! How full a hub says that it is, to people and to HAProxy.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use twine_hub::Running;

use crate::support::{Request, hub, hub_with};

/// A hub with an agent and room for four connections.
async fn hub_for_four() -> Running {
    hub_with(|config| {
        config.max_connections = 4;
        config.agent_listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await
}

async fn load(hub: &Running) -> serde_json::Value {
    let answer = Request::get("/load").send(hub).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    answer.json()
}

/// Opens a WebSocket, which stays open until it is dropped.
async fn open(hub: &Running) -> impl Sized + use<> {
    tokio_tungstenite::connect_async(format!("ws://{}/ws", hub.address())).await.unwrap()
}

/// Between two looks at what nobody announces.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// What the agent says, to the end.
async fn asked(agent: SocketAddr) -> String {
    let mut line = String::new();
    TcpStream::connect(agent).await.unwrap().read_to_string(&mut line).await.unwrap();
    line
}

#[tokio::test]
async fn the_load_is_the_greatest_of_its_parts_and_follows_the_connections() {
    let hub = hub_for_four().await;
    let _open = (open(&hub).await, open(&hub).await, open(&hub).await);
    // It is looked at once a second.
    let load = loop {
        let load = load(&hub).await;
        if load["parts"]["connections"]["used"] == 3.0 {
            break load;
        }
        a_moment().await;
    };
    assert_eq!((&load["role"], &load["draining"]), (&"all".into(), &false.into()));
    let parts = load["parts"].as_object().unwrap();
    assert_eq!(parts["connections"]["load"], 75, "{load}");
    assert_eq!(parts.len(), 5, "{load}");
    assert!(parts["memory"]["used"].as_f64().unwrap() > 0.0, "{load}");
    let greatest = parts.values().filter_map(|part| part["load"].as_u64()).max();
    assert_eq!(load["load"].as_u64(), greatest, "{load}");
}

#[tokio::test]
async fn metrics_say_what_load_says() {
    let hub = hub_for_four().await;
    let _open = (open(&hub).await, open(&hub).await);
    loop {
        let metrics = Request::get("/metrics").send(&hub).await.body;
        if metrics.lines().any(|line| line == r#"twine_load_part_ratio{part="connections"} 0.5"#) {
            assert!(metrics.contains("\ntwine_load_ratio "), "{metrics}");
            break;
        }
        a_moment().await;
    }
}

#[tokio::test]
async fn time_from_publish_to_socket_counts_once_there_was_one() {
    let hub = hub().await;
    assert!(load(&hub).await["parts"]["publish_to_socket"].is_null());
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/ws", hub.address())).await.unwrap();
    for frame in [r#"{"type":"connect"}"#, r#"{"type":"subscribe","id":1,"room":"chat"}"#] {
        let frame = tokio_tungstenite::tungstenite::Message::text(frame);
        futures_util::SinkExt::send(&mut socket, frame).await.unwrap();
        futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
    }
    Request::publish(r#"{"room":"chat","data":1}"#).send(&hub).await;
    while load(&hub).await["parts"]["publish_to_socket"].is_null() {
        a_moment().await;
    }
}

#[tokio::test]
async fn the_agent_offers_what_is_left() {
    let hub = hub_for_four().await;
    let agent = hub.agent_address().unwrap();
    let said = asked(agent).await;
    let weight = said.strip_prefix("ready up ").and_then(|rest| rest.strip_suffix("%\n")).expect(&said);
    assert!((1..=100).contains(&weight.parse::<u8>().unwrap()), "{said}");
    let _open = (open(&hub).await, open(&hub).await, open(&hub).await, open(&hub).await);
    // Full, and never none.
    while asked(agent).await != "ready up 1%\n" {
        a_moment().await;
    }
}

#[tokio::test]
async fn the_agent_answers_also_who_says_something_or_does_not_hang_up() {
    let hub = hub_for_four().await;
    let agent = hub.agent_address().unwrap();
    let mut socket = TcpStream::connect(agent).await.unwrap();
    socket.write_all(b"twine/hub-1\n").await.unwrap();
    let mut line = String::new();
    socket.read_to_string(&mut line).await.unwrap();
    assert!(line.starts_with("ready up "), "{line}");
    // More of them than it talks to at once.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(agent).await.unwrap());
    }
    for socket in &mut silent {
        assert_eq!(socket.read_u8().await.unwrap(), b'r');
    }
    assert!(asked(agent).await.starts_with("ready up "));
}

#[tokio::test]
async fn without_an_address_there_is_no_agent() {
    assert_eq!(hub().await.agent_address(), None);
}
