//! Clients that say half and then nothing, or nothing at all.
//!
//! Every wait here ends by the hub's own timeouts, which are short in these hubs; without them the
//! tests would hang.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use twine_hub::Running;

use crate::support::{KEY, Request, answer, assert_works, hub_with};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn half_a_body_and_silence_is_told_so() {
    let hub = hub_with(|config| config.request_timeout = SHORT).await;
    let bytes = Request::publish(r#"{"room":"chat","data":1}"#).bytes(hub.address());
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(&bytes[..bytes.len() - 5]).await.unwrap();
    assert_eq!(answer(&mut socket).await.unwrap().problem(), (408, "request_timeout".into()));
    assert_works(&hub).await;
}

#[tokio::test]
async fn half_a_head_and_silence_is_closed() {
    let hub = hub_with(|config| config.header_timeout = SHORT).await;
    // The hub does not know the version of HTTP after none of these, and after "PR" it may be 2.
    for start in ["", "P", "PR", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-Half: "] {
        let mut socket = TcpStream::connect(hub.address()).await.unwrap();
        socket.write_all(start.as_bytes()).await.unwrap();
        assert!(answer(&mut socket).await.is_none(), "{start:?}");
    }
    assert_works(&hub).await;
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed() {
    let hub = hub_with(|config| config.header_timeout = SHORT).await;
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut socket).await.unwrap().status, 200);
}

#[tokio::test]
async fn http_2_and_silence_is_closed() {
    let hub = hub_with(|config| config.header_timeout = SHORT).await;
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    // It ends, whether by a close or by a reset.
    let _ = socket.read_to_end(&mut bytes).await;
    assert_works(&hub).await;
}

#[tokio::test]
async fn http_2_without_a_next_request_is_closed_and_one_with_a_slow_request_is_not() {
    // Of a machine that stands still for so long no client is quick enough: then once more.
    let patience = Duration::from_millis(500);
    let hub = hub_with(|config| config.header_timeout = patience).await;
    for attempt in 1.. {
        match idle_beside_slow(&hub).await {
            Ok(()) => break,
            Err(error) => assert!(attempt < 5, "{error}"),
        }
    }
}

/// Begins a publish, waits until another connection is closed for its silence, and publishes.
async fn idle_beside_slow(hub: &Running) -> hyper::Result<()> {
    let uri = |path: &str| format!("http://{}{path}", hub.address());
    let (mut slow, slow_connection) = http_2(hub).await?;
    let (parts, mut sent) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let body =
        poll_fn(move |cx| sent.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(part.into())))));
    let publish = http::Request::post(uri("/api/publish"))
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .body(StreamBody::new(body).boxed_unsync())
        .unwrap();
    let published = tokio::spawn(slow.send_request(publish));
    parts.send(r#"{"room":"chat","#).unwrap();

    let (mut idle, idle_connection) = http_2(hub).await?;
    let get = http::Request::get(uri("/healthz")).body(Empty::new().boxed_unsync()).unwrap();
    assert_eq!(idle.send_request(get).await?.status(), 200);
    idle_connection.await.unwrap()?;

    // Where the connection is gone, nobody takes it: the answer tells.
    let _ = parts.send(r#""data":1}"#);
    drop(parts);
    assert_eq!(published.await.unwrap()?.status(), 200);
    slow_connection.await.unwrap()
}

/// A client of HTTP/2, and the task that ends with its connection.
async fn http_2(
    hub: &Running,
) -> hyper::Result<(SendRequest<UnsyncBoxBody<Bytes, Infallible>>, JoinHandle<hyper::Result<()>>)> {
    let socket = TokioIo::new(TcpStream::connect(hub.address()).await.unwrap());
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await?;
    Ok((client, tokio::spawn(connection)))
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let hub = hub_with(|config| {
        config.write_timeout = SHORT;
        config.max_http_connections = 1;
    })
    .await;
    let data = "x".repeat(60_000);
    for _ in 0..50 {
        Request::publish(&format!(r#"{{"room":"chat","data":"{data}"}}"#)).send(&hub).await;
    }
    // Three megabytes each: more than the kernel takes for a client that reads none of them.
    let request = Request::get("/api/rooms/chat/messages").with_key().bytes(hub.address());
    let mut deaf = TcpStream::connect(hub.address()).await.unwrap();
    let request = String::from_utf8(request).unwrap().replace("Connection: close\r\n", "");
    deaf.write_all(request.repeat(10).as_bytes()).await.unwrap();
    // It has the only place: this is answered when the hub has closed it.
    assert_works(&hub).await;
    drop(deaf);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let hub = hub_with(|config| config.max_http_connections = 1).await;
    let mut first = TcpStream::connect(hub.address()).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(hub.address()).await.unwrap();
    second.write_all(&Request::get("/healthz").bytes(hub.address())).await.unwrap();
    drop(first);
    assert_eq!(answer(&mut second).await.unwrap().status, 200);
}
