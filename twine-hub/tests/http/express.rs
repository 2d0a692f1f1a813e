//! Publishes, which a hub answers without the server behind everything else: that nobody can
//! tell which of the two has answered, however the bytes arrive.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use twine_hub::{Hub, Running};

use crate::support::{Answer, KEY, Request, answer, assert_works, hub, hub_in, hub_with};

/// A publish as a client sends it that keeps its connection.
fn publish(path: &str, body: &str, more: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Connections on which requests follow each other.
pub(crate) struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

/// Waits until shards look after so many publishers.
async fn until_settled(hub: &Running, n: u32) {
    let line = format!("twine_publishers {n}");
    while !Request::get("/metrics").send(hub).await.body.lines().any(|found| found == line) {
        tokio::task::yield_now().await;
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { socket: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    /// One that has published already, so often that a shard looks after its connection, as after those of so many
    /// `others`.
    async fn settled(hub: &Running, others: u32) -> Self {
        // Those who were here before have gone.
        until_settled(hub, others).await;
        let mut client = Self::connect(hub.address()).await;
        for _ in 0..4 {
            client.send(&publish("/api/publish", r#"{"room":"settling","data":1}"#, "")).await;
            assert!(client.answer().await.is_some());
        }
        until_settled(hub, others + 1).await;
        client
    }

    /// One that has just come, and one that is settled.
    async fn both(hub: &Running) -> [Self; 2] {
        [Self::connect(hub.address()).await, Self::settled(hub, 0).await]
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Reads until something has come.
    pub(crate) async fn until(&mut self, what: &[u8]) {
        while !self.read.windows(what.len()).any(|read| read == what) {
            let mut buffer = [0; 1024];
            let n = self.socket.read(&mut buffer).await.unwrap();
            assert!(n > 0, "the hub closes before {:?}", String::from_utf8_lossy(what));
            self.read.extend_from_slice(&buffer[..n]);
        }
    }

    /// The next answer; `None` where the hub closes.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some(head) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8(self.read[..head].to_vec()).unwrap();
                let parsed = Answer::parse(&text, String::new());
                let len: usize = parsed.header("content-length").unwrap_or("0").parse().unwrap();
                if let Some(body) = self.read.get(head + 4..head + 4 + len) {
                    let answer = Answer::parse(&text, String::from_utf8(body.to_vec()).unwrap());
                    self.read.drain(..head + 4 + len);
                    return Some(answer);
                }
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer).await.unwrap() {
                0 => return None,
                n => self.read.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

/// What is compared of an answer: all but what differs each time, which is checked to be there.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, serde_json::Value) {
    let names =
        ["content-type", "content-length", "cache-control", "www-authenticate", "retry-after", "connection"];
    let header = |name: &str| answer.header(name).map(|value| (name.to_owned(), value.to_owned()));
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{answer:?}");
    let mut body = answer.json();
    let positions = match body.get_mut("results") {
        Some(results) => results.as_array_mut().unwrap().iter_mut().collect(),
        None => vec![&mut body],
    };
    for position in positions {
        if let Some(epoch) = position.get_mut("epoch") {
            assert!(epoch.as_str().is_some_and(|epoch| !epoch.is_empty()), "{answer:?}");
            *epoch = "of its hub".into();
        }
    }
    (answer.status, names.into_iter().filter_map(header).collect(), body)
}

#[tokio::test]
async fn it_does_not_show_who_answers_a_publish() {
    let small = |config: &mut twine_hub::Config| {
        config.max_data = 100;
        config.max_body = 2_000;
    };
    let (express, general, shard) = (hub_with(small).await, hub_with(small).await, hub_with(small).await);
    let long = format!(r#"{{"room":"a","data":"{}"}}"#, "x".repeat(200));
    let longer = format!(r#"{{"room":"a","data":"{}"}}"#, "x".repeat(3_000));
    let one = "/api/publish";
    let batch = "/api/publish/batch";
    let mut cases: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (path, body) in [
        (one, r#"{"room":"a","data":1}"#),
        (one, r#"{"room":"a","data":{"x":[1,2]},"id":"i","sender":"s"}"#),
        (one, r#"{"room":"a","data":2,"id":"i"}"#),
        (one, r#"{"rooms":["a","b"],"data":3}"#),
        (one, r#"{"room":"","data":1}"#),
        (one, r#"{"room":"a","data":1,"other":1}"#),
        (one, r#"{"room":"a","data":"#),
        (one, ""),
        (one, &long),
        (one, &longer),
        (batch, r#"{"messages":[{"room":"a","data":4},{"room":"b","data":5}]}"#),
        (batch, r#"{"messages":[]}"#),
        (batch, r#"{"messages":[{"room":"a","data":4},{"room":"b"}]}"#),
    ] {
        // A query, which means nothing here, is for the general server.
        cases.push((publish(path, body, ""), publish(&format!("{path}?"), body, "")));
    }
    let plain = String::from_utf8(publish(one, r#"{"room":"a","data":6}"#, "")).unwrap();
    for (from, to) in [
        (KEY, "a-wrong-key"),
        ("Authorization", "Other"),
        ("application/json", "text/plain"),
        ("application/json", "Application/JSON; charset=utf-8"),
        ("Content-Type", "content-TYPE"),
        ("Host: x", "Host: x\r\nConnection: keep-alive"),
        ("Host: x", "Host: x\r\nExpect: something"),
        ("Host: x", &format!("Host: x\r\nAuthorization: Bearer {KEY}")),
    ] {
        let text = plain.replace(from, to);
        cases.push((text.clone().into_bytes(), text.replace("/api/publish", "/api/publish?").into_bytes()));
    }
    for (here, there) in cases {
        let mut answers = Vec::new();
        for (client, bytes) in [
            (Client::connect(general.address()).await, &there),
            (Client::connect(express.address()).await, &here),
            (Client::settled(&shard, 0).await, &here),
        ] {
            let mut client = client;
            client.send(bytes).await;
            answers.push(client.answer().await.map(|answer| told(&answer)));
        }
        assert!(answers[0].is_some());
        for answer in &answers[1..] {
            assert_eq!(*answer, answers[0], "{}", String::from_utf8_lossy(&here));
        }
    }
}

#[tokio::test]
async fn publishes_in_a_row_are_answered_in_their_order_whatever_stands_between_them() {
    let hub = hub().await;
    for (room, mut client) in ["a", "b"].into_iter().zip(Client::both(&hub).await) {
        let mut bytes = Vec::new();
        let body = |n| format!(r#"{{"room":"{room}","data":{n}}}"#);
        for n in 0..100 {
            bytes.extend(publish("/api/publish", &body(n), ""));
        }
        bytes.extend(publish("/api/publish", "nonsense", ""));
        bytes.extend(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        bytes.extend(publish("/api/publish", &body(100), "Connection: close\r\n"));
        client.send(&bytes).await;
        for n in 1..=100 {
            assert_eq!(client.answer().await.unwrap().json()["offset"], n);
        }
        assert_eq!(client.answer().await.unwrap().problem(), (400, "bad_json".into()));
        assert_eq!(client.answer().await.unwrap().status, 200);
        assert_eq!(client.answer().await.unwrap().json()["offset"], 101);
        assert!(client.answer().await.is_none());
    }
}

#[tokio::test]
async fn a_request_is_the_same_however_it_is_cut() {
    let hub = hub().await;
    let bytes = publish("/api/publish", r#"{"room":"a","data":"0123456789"}"#, "");
    let mut offset = 0;
    for cut in 1..bytes.len() {
        for mut client in Client::both(&hub).await {
            client.socket.set_nodelay(true).unwrap();
            client.send(&bytes[..cut]).await;
            // The hub may or may not have read this much by now: both must do.
            tokio::task::yield_now().await;
            client.send(&bytes[cut..]).await;
            offset += 1;
            assert_eq!(client.answer().await.unwrap().json()["offset"], offset);
        }
    }
}

#[tokio::test]
async fn bytes_that_come_one_by_one_make_a_request_too() {
    let hub = hub().await;
    let mut client = Client::connect(hub.address()).await;
    client.socket.set_nodelay(true).unwrap();
    for n in 1..=2 {
        for byte in publish("/api/publish", r#"{"room":"a","data":1}"#, "") {
            client.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.unwrap().json()["offset"], n);
    }
}

#[tokio::test]
async fn who_closes_its_side_after_a_publish_is_answered() {
    // That it closes is seen, and not only that it is silent.
    let hub = hub_with(|config| config.header_timeout = Duration::from_hours(1)).await;
    for (n, mut client) in (1..).zip(Client::both(&hub).await) {
        client.send(&publish("/api/publish", r#"{"room":"a","data":1}"#, "")).await;
        client.socket.shutdown().await.unwrap();
        assert_eq!(client.answer().await.unwrap().json()["offset"], n);
        assert!(client.answer().await.is_none());
    }
}

#[tokio::test]
async fn what_a_hub_that_stops_has_taken_it_answers_and_no_more() {
    const SENT: usize = 400;
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_in(folder.path()).await;
    // One of the two is silent: it must not hold the hub up.
    let [mut client, idle] = Client::both(&hub).await;
    let one = publish("/api/publish", r#"{"room":"a","data":1}"#, "");
    client.send(&one.repeat(SENT)).await;
    let mut answers = vec![client.answer().await.unwrap()];
    let stopped = tokio::spawn(hub.shutdown());
    while let Some(answer) = client.answer().await {
        answers.push(answer);
    }
    stopped.await.unwrap();
    drop(idle);
    let (last, others) = answers.split_last().unwrap();
    assert!(others.iter().all(|answer| answer.status == 200 && answer.header("connection").is_none()));
    if answers.len() < SENT {
        assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    }
    assert_eq!(n_stored(folder.path()).await, answers.len(), "a publish that nobody was told of was made");
}

#[tokio::test]
async fn one_who_has_settled_and_goes_on_while_the_hub_stops_knows_of_each_publish_that_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_in(folder.path()).await;
    let mut client = Client::settled(&hub, 0).await;
    let one = publish("/api/publish", r#"{"room":"a","data":1}"#, "");
    let (mut told, mut stopped, mut hub) = (0, None, Some(hub));
    // Until the hub closes, which may be while a request is on its way to it.
    while client.socket.write_all(&one).await.is_ok() {
        let mut buffer = [0; 4096];
        let Ok(n @ 1..) = client.socket.read(&mut buffer).await else { break };
        told += 1;
        let answer = String::from_utf8_lossy(&buffer[..n]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        if told == 50 {
            stopped = hub.take().map(|hub| tokio::spawn(hub.shutdown()));
        }
        if answer.contains("connection: close") {
            break;
        }
    }
    stopped.unwrap().await.unwrap();
    assert_eq!(n_stored(folder.path()).await, told);
}

#[tokio::test]
async fn a_dropped_hub_leaves_who_has_settled_and_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_in(folder.path()).await;
    let mut client = Client::settled(&hub, 0).await;
    drop(hub);
    while !matches!(client.socket.read(&mut [0]).await, Ok(0) | Err(_)) {}
    let start = || {
        let builder = Hub::builder().configure(|config| {
            config.listen = ([127, 0, 0, 1], 0).into();
            config.data_dir = folder.path().to_owned();
        });
        builder.start()
    };
    while start().await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// How many messages room `a` of a hub has that is started in this folder.
async fn n_stored(folder: &std::path::Path) -> usize {
    let hub = hub_in(folder).await;
    let (mut n, mut next) = (0, String::new());
    loop {
        let path = format!("/api/rooms/a/messages?direction=forwards&limit=1000{next}");
        let history = Request::get(&path).with_key().send(&hub).await.json();
        n += history["messages"].as_array().unwrap().len();
        let Some(position) = history.get("next") else { return n };
        next = format!("&epoch={}&after={}", position["epoch"].as_str().unwrap(), position["offset"]);
    }
}

#[tokio::test]
async fn nothing_is_done_that_comes_after_the_last_request() {
    let hub = hub().await;
    for (n, mut client) in (1..).zip(Client::both(&hub).await) {
        let last = publish("/api/publish", r#"{"room":"a","data":1}"#, "Connection: close\r\n");
        client.send(&[&last[..], &publish("/api/publish", r#"{"room":"a","data":2}"#, "")].concat()).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.json()["offset"].as_u64(), answer.header("connection")), (Some(n), Some("close")));
        assert!(client.answer().await.is_none());
    }
    assert_eq!(Request::publish(r#"{"room":"a","data":3}"#).send(&hub).await.json()["offset"], 3);
}

#[tokio::test]
async fn a_refusal_of_the_store_reads_the_same_whoever_words_it() {
    let hub = hub_with(|config| config.max_pending_bytes = 1).await;
    let mut told_of = Vec::new();
    for path in ["/api/publish", "/api/publish?"] {
        let mut client = Client::connect(hub.address()).await;
        client.send(&publish(path, r#"{"room":"a","data":1}"#, "")).await;
        told_of.push(told(&client.answer().await.unwrap()));
    }
    assert_eq!(told_of[0], told_of[1]);
    assert_eq!((told_of[0].0, &told_of[0].2["code"]), (503, &"unavailable".into()));
    let metrics = Request::get("/metrics").send(&hub).await.body;
    assert!(metrics.contains(r#"twine_errors_total{code="unavailable"} 2"#), "{metrics}");
}

#[tokio::test]
async fn half_a_publish_is_refused_by_who_knows_how_long_a_body_may_take() {
    let hub = hub_with(|config| {
        config.request_timeout = Duration::from_millis(50);
        config.header_timeout = Duration::from_hours(1);
    })
    .await;
    let bytes = publish("/api/publish", r#"{"room":"a","data":1}"#, "");
    for mut client in Client::both(&hub).await {
        client.send(&bytes[..bytes.len() - 3]).await;
        assert_eq!(client.answer().await.unwrap().problem(), (408, "request_timeout".into()));
    }
}

#[tokio::test]
async fn a_publish_that_is_cut_off_ends_as_everywhere() {
    let hub = hub().await;
    let mut ends = Vec::new();
    for path in ["/api/publish", "/api/publish?"] {
        let bytes = publish(path, r#"{"room":"a","data":1}"#, "");
        for cut in [20, bytes.len() - 3] {
            let mut client = Client::connect(hub.address()).await;
            client.send(&bytes[..cut]).await;
            client.socket.shutdown().await.unwrap();
            ends.push(client.answer().await.map(|answer| answer.status));
        }
    }
    assert_eq!(ends[..2], ends[2..]);
    assert_eq!(Request::publish(r#"{"room":"a","data":1}"#).send(&hub).await.json()["offset"], 1);
}

#[tokio::test]
async fn a_publisher_that_does_not_read_its_answers_is_left_and_costs_nobody_else_anything() {
    let hub = hub_with(|config| {
        config.write_timeout = Duration::from_millis(50);
        config.max_batch = 100;
    })
    .await;
    let rooms: Vec<_> = (0..100).map(|n| format!("{n}-{}", "x".repeat(200))).collect();
    let body = serde_json::json!({ "rooms": rooms, "data": 1 }).to_string();
    let one = publish("/api/publish", &body, "");
    for mut client in Client::both(&hub).await {
        socket2::SockRef::from(&client.socket).set_recv_buffer_size(4096).unwrap();
        // Each answer is as long as its request: sooner or later the system takes no more of them, and the hub
        // no more of those.
        while client.socket.write_all(&one).await.is_ok() {}
    }
    assert_works(&hub).await;
}

#[tokio::test]
async fn each_of_several_publishes_is_answered_however_long_the_answers_are() {
    let hub = hub().await;
    let messages = vec![serde_json::json!({ "room": "a", "data": 1 }); 600];
    let body = serde_json::json!({ "messages": messages }).to_string();
    for mut client in Client::both(&hub).await {
        client.send(&publish("/api/publish/batch", &body, "").repeat(3)).await;
        for _ in 0..3 {
            assert_eq!(client.answer().await.unwrap().json()["results"].as_array().unwrap().len(), 600);
        }
    }
}

#[tokio::test]
async fn who_has_settled_and_says_nothing_more_is_left_after_the_time_of_anyone() {
    let hub = hub_with(|config| config.header_timeout = Duration::from_secs(2)).await;
    let mut client = Client::settled(&hub, 0).await;
    assert!(client.answer().await.is_none());
    assert_works(&hub).await;
}

#[tokio::test]
async fn each_of_many_who_have_settled_is_answered_while_a_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let hub = hub_in(folder.path()).await;
    let mut clients = Vec::new();
    // More than a shard reads in a turn.
    for n in 0..70 {
        clients.push(Client::settled(&hub, n).await);
    }
    let (mut offsets, rounds) = (Vec::new(), 4);
    for _ in 0..rounds {
        for client in &mut clients {
            client.send(&publish("/api/publish", r#"{"room":"a","data":1}"#, "").repeat(3)).await;
        }
        for client in &mut clients {
            for _ in 0..3 {
                offsets.push(client.answer().await.unwrap().json()["offset"].as_u64().unwrap());
            }
        }
    }
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(1..=70 * 3 * rounds));
    hub.shutdown().await;
}

#[tokio::test]
async fn a_head_that_grows_and_grows_is_refused() {
    let hub = hub().await;
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    let head = format!("POST /api/publish HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    // It may be refused before all is sent.
    let _ = socket.write_all(head.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&bytes));
    assert_works(&hub).await;
}

#[tokio::test]
async fn who_has_settled_and_sends_a_request_in_two_pieces_settles_again() {
    let hub = hub().await;
    let mut client = Client::settled(&hub, 0).await;
    let request = publish("/api/publish", r#"{"room":"chat","data":1}"#, "");
    let (first, rest) = request.split_at(20);
    client.send(first).await;
    until_settled(&hub, 0).await;
    client.send(rest).await;
    assert!(client.answer().await.is_some());
    for _ in 0..8 {
        client.send(&request).await;
        assert!(client.answer().await.is_some());
    }
    until_settled(&hub, 1).await;
    hub.shutdown().await;
}

#[tokio::test]
async fn a_large_publish_goes_through_as_well() {
    let hub = hub_with(|config| config.max_data = 500_000).await;
    let body = format!(r#"{{"room":"a","data":"{}"}}"#, "x".repeat(200_000));
    let mut socket = TcpStream::connect(hub.address()).await.unwrap();
    socket.write_all(&Request::publish(&body).bytes(hub.address())).await.unwrap();
    assert_eq!(answer(&mut socket).await.unwrap().json()["offset"], 1);
}
