//! A hub, and a client that sends exactly the bytes a test means.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use twine_hub::{Config, Hub, Running};

/// The key of every hub here.
pub(crate) const KEY: &str = "a-key-for-tests-only";

/// A hub of its own on a free port, in memory.
pub(crate) async fn hub() -> Running {
    hub_with(|_| {}).await
}

/// The same with other settings.
pub(crate) async fn hub_with(change: impl FnOnce(&mut Config)) -> Running {
    let key = KEY.parse().unwrap();
    let builder = Hub::builder().ephemeral().configure(|config| config.api_key = vec![key]);
    builder.configure(change).start().await.unwrap()
}

/// A hub that keeps everything in `data_dir`.
pub(crate) async fn hub_in(data_dir: &Path) -> Running {
    let builder = Hub::builder().configure(|config| {
        config.listen = ([127, 0, 0, 1], 0).into();
        data_dir.clone_into(&mut config.data_dir);
        config.api_key = vec![KEY.parse().unwrap()];
    });
    builder.start().await.unwrap()
}

/// A request, in the making.
#[derive(Clone)]
pub(crate) struct Request {
    head: String,
    has_host: bool,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        Self { head, has_host: false, body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A publish with key and content type.
    pub(crate) fn publish(body: &str) -> Self {
        Self::post("/api/publish", body).header("Content-Type", "application/json")
    }

    /// A body with the key, and without a content type.
    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self::post_without_key(path, body).with_key()
    }

    pub(crate) fn post_without_key(path: &str, body: &str) -> Self {
        Self { body: body.into(), ..Self::new("POST", path) }
    }

    pub(crate) fn with_key(self) -> Self {
        self.header("Authorization", &format!("Bearer {KEY}"))
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.has_host |= name.eq_ignore_ascii_case("host");
        write!(self.head, "{name}: {value}\r\n").unwrap();
        self
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self, address: SocketAddr) -> Vec<u8> {
        let mut head = self.head.clone();
        if !self.has_host {
            write!(head, "Host: {address}\r\n").unwrap();
        }
        if !self.body.is_empty() {
            write!(head, "Content-Length: {}\r\n", self.body.len()).unwrap();
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Sends it and reads the answer.
    pub(crate) async fn send(&self, hub: &Running) -> Answer {
        self.send_to(hub.address()).await
    }

    /// The same, to a hub of another process.
    pub(crate) async fn send_to(&self, hub: SocketAddr) -> Answer {
        exchange(hub, &self.bytes(hub)).await.expect("an answer")
    }
}

/// What a hub answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn parse(head: &str, body: String) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and code of a problem document; checks that it is a whole one.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{self:?}");
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }
}

/// Sends bytes and reads until the hub closes; `None` where it closes without an answer.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    answer(&mut socket).await
}

/// Reads until the hub closes.
pub(crate) async fn answer(socket: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    if bytes.is_empty() {
        return None;
    }
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half an answer: {text:?}"));
    Some(Answer::parse(head, body.to_owned()))
}

/// The refusal of a request, as status and code.
pub(crate) async fn refusal(hub: &Running, request: Request) -> (u16, String) {
    request.send(hub).await.problem()
}

/// Says that the hub still works for everyone else.
pub(crate) async fn assert_works(hub: &Running) {
    let answer = Request::publish(r#"{"room":"still-works","data":1}"#).send(hub).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
