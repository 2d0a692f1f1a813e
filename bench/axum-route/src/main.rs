//! axum-route: what taking a publish costs with axum and nothing behind it.
//!
//! `POST /api/publish` reads the body, parses it as a hub must, the payload left as it is, and answers as
//! much as a hub does. No key, no store, no numbers, nobody who gets it. HTTP/1.1, and HTTP/2 in clear text.
//!
//!   --port N    listen on 127.0.0.1:N (default 7900)

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Publish<'a> {
    #[serde(borrow)]
    room: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

async fn publish(body: Bytes) -> Response {
    let Ok(Publish { room, data }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let offset = data.get().len();
    let answer = format!(
        r#"{{"room":"{room}","epoch":"0000018bcfe56800-7f3a","offset":{offset},"time":1700000000000}}"#
    );
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}

#[tokio::main]
async fn main() {
    let port: u16 = match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, flag, port] if flag == "--port" => port.parse().expect("a port"),
        _ => 7900,
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    // As a server is set up in earnest.
    let listener = listener.tap_io(|socket| socket.set_nodelay(true).expect("TCP_NODELAY"));
    let app = Router::new().route("/api/publish", post(publish));
    axum::serve(listener, app).await.expect("serving");
}
