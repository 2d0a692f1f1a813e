//! Paths, methods and keys.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{KEY, Request, assert_works, exchange, hub, refusal};

const API: [(&str, &str); 5] = [
    ("POST", "/api/publish"),
    ("POST", "/api/publish/batch"),
    ("GET", "/api/rooms"),
    ("GET", "/api/rooms/chat"),
    ("GET", "/api/rooms/chat/messages"),
];

#[tokio::test]
async fn a_hub_says_what_it_is_and_how_it_does() {
    let hub = hub().await;
    let about = Request::get("/").send(&hub).await;
    assert_eq!((about.status, about.json()["name"].as_str()), (200, Some("twine-hub")));
    assert_eq!(Request::get("/healthz").send(&hub).await.status, 200);
    let ready = Request::get("/readyz").send(&hub).await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["store"]["kind"], "memory");
    assert_eq!(ready.json()["version"], twine_hub::VERSION);
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let hub = hub().await;
    Request::publish(r#"{"room":"chat","data":1,"id":"a"}"#).send(&hub).await;
    Request::publish(r#"{"room":"chat","data":1,"id":"a"}"#).send(&hub).await;
    Request::get("/nowhere").send(&hub).await;
    let metrics = Request::get("/metrics").send(&hub).await;
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    for line in [
        "twine_messages_published_total 1",
        "twine_rooms 1",
        "twine_connections 0",
        r#"twine_errors_total{code="not_found"} 1"#,
    ] {
        assert!(metrics.body.lines().any(|found| found == line), "{line} is missing in\n{}", metrics.body);
    }
    assert!(metrics.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn nothing_is_at_an_unknown_path() {
    let hub = hub().await;
    for path in ["/nowhere", "/api", "/api/rooms/", "/api/rooms/a/b", "/ws/", "/..%2Fetc/passwd"] {
        assert_eq!(refusal(&hub, Request::get(path)).await, (404, "not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let hub = hub().await;
    for (method, path, allow) in [
        ("GET", "/api/publish", "POST"),
        ("PUT", "/api/rooms", "GET,HEAD"),
        ("POST", "/set-cookie", "GET,HEAD,DELETE,OPTIONS"),
        ("POST", "/ws", "GET,HEAD"),
        ("DELETE", "/healthz", "GET,HEAD"),
    ] {
        let answer = Request::new(method, path).send(&hub).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed".into()), "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[tokio::test]
async fn the_api_opens_with_a_key_only() {
    let hub = hub().await;
    for (method, path) in API {
        let request = || Request::new(method, path);
        let answer = request().send(&hub).await;
        assert_eq!(answer.problem(), (401, "key_missing".into()), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let wrong = request().header("Authorization", "Bearer another-key");
        assert_eq!(refusal(&hub, wrong).await, (401, "key_invalid".into()), "{path}");
        let almost = request().header("Authorization", &format!("Bearer {KEY}x"));
        assert_eq!(refusal(&hub, almost).await, (401, "key_invalid".into()), "{path}");
        // Cookies and parameters are no place for a key.
        let elsewhere = request().header("Cookie", &format!("key={KEY}")).header("X-Api-Key", KEY);
        assert_eq!(refusal(&hub, elsewhere).await, (401, "key_missing".into()), "{path}");
        assert_ne!(request().with_key().send(&hub).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn pages_get_nothing_from_the_api() {
    let hub = hub().await;
    let answer =
        Request::get("/api/rooms").with_key().header("Origin", "http://localhost:3000").send(&hub).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_browser_client_may_be_loaded_by_every_page_or_is_said_to_be_missing() {
    let hub = hub().await;
    let script = Request::get("/twine.js").header("Origin", "https://any.example").send(&hub).await;
    if script.status == 404 {
        // This hub was built before the browser client was.
        assert_eq!(script.problem().1, "not_found");
        return;
    }
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(script.header("access-control-allow-origin"), Some("*"));
    let again = Request::get("/twine.js").header("If-None-Match", script.header("etag").unwrap());
    let again = again.send(&hub).await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let hub = hub().await;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"HELO there\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let answer = exchange(hub.address(), bytes).await.expect("an answer");
        assert_eq!(answer.status, 400, "{bytes:?}");
    }
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    // The hub may close before it has read all of it.
    let _ = socket.write_all(head.as_bytes()).await;
    drop(socket);
    assert_works(&hub).await;
}

#[tokio::test]
async fn http_2_works_without_tls() {
    let hub = hub().await;
    let socket = TokioIo::new(TcpStream::connect(hub.address()).await.unwrap());
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let ask = async |path: &str, body: String| {
        let request = http::Request::post(format!("http://{}{path}", hub.address()))
            .header("Authorization", format!("Bearer {KEY}"))
            .header("Content-Type", "application/json")
            .body(Full::<Bytes>::from(body))
            .unwrap();
        client.clone().send_request(request).await.unwrap().status().as_u16()
    };
    let publishes = (0..20).map(|n| ask("/api/publish", format!(r#"{{"room":"chat","data":{n}}}"#)));
    assert_eq!(futures_util::future::join_all(publishes).await, [200; 20]);
    assert_eq!(ask("/ws", String::new()).await, 405);
    hub.shutdown().await;
    connection.await.unwrap().unwrap();
}
