use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use twine_client::{Client, Error};

/// The head of the next handshake, and its socket.
async fn handshake(listener: &TcpListener) -> (String, TcpStream) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap(), socket)
}

#[tokio::test]
async fn headers_go_with_each_handshake_also_of_a_client_that_comes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::builder(&url).header("Cookie", "twineid=1").header("X-Part", "a").start().unwrap();
    for _ in 0..2 {
        let (head, _cut) = handshake(&listener).await;
        let lines: Vec<_> = head.lines().map(str::to_ascii_lowercase).collect();
        for line in ["cookie: twineid=1", "x-part: a", "sec-websocket-protocol: twine.v1.json"] {
            assert!(lines.iter().any(|found| found == line), "{line} is missing in {head}");
        }
    }
    drop(client);
}

#[tokio::test]
async fn a_header_that_can_not_be_sent_is_refused_at_once() {
    let builder = Client::builder("http://localhost").header("Host", "elsewhere");
    assert!(matches!(builder.start(), Err(Error::Header { name, .. }) if name == "Host"));
}

#[tokio::test]
async fn a_client_comes_from_the_address_it_was_given() {
    // Linux has all of 127.0.0.0/8, others have to be told.
    let local = if cfg!(target_os = "linux") { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::builder(&url).local_address(local.into()).start().unwrap();
    let (_, socket) = handshake(&listener).await;
    assert_eq!(socket.peer_addr().unwrap().ip(), IpAddr::V4(Ipv4Addr::from(local)));
    drop(client);
}

#[tokio::test]
async fn an_address_of_another_kind_than_the_hubs_is_named() {
    let builder = Client::builder("http://127.0.0.1:1").local_address(Ipv6Addr::LOCALHOST.into());
    let error = builder.connect().await.unwrap_err();
    assert!(matches!(&error, Error::Connect { problem } if problem.contains("from ::1")), "{error}");
}
