//! The promises of `docs/RECOVERY.md`, a test each, which tries to break it on the real binary.
//!
//! Others go further on each: the torture test counts under load, the connection's and the store's
//! own tests go through every case. These are the shortest that would not pass without the promise.

// Clippy knows a test by its attribute, and a test's helpers have none.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

#[path = "../torture/hub.rs"]
#[allow(dead_code)]
mod hub;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, future};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message as Ws};
use twine_client::{Client, Event, SubscribeOptions, Subscription};
use twine_protocol::{GapReason, Position};
use twine_server_sdk::{Message, RetryPolicy, Twine};

use crate::hub::Hub;

const ROOM: &str = "chat";

/// A publisher that repeats quickly what a killed hub has not answered.
fn publisher(hub: &Hub) -> Twine {
    let quickly = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(50)).unwrap();
    hub.twine().deadline(Duration::from_mins(5)).retry(quickly).build().unwrap()
}

async fn subscribe(hub: &Hub, options: SubscribeOptions) -> (Client, Subscription) {
    let client = Client::builder(&hub.url()).start().unwrap();
    let subscription = client.subscribe(ROOM, options).await.unwrap();
    (client, subscription)
}

/// Position and number of the next message.
async fn next(subscription: &mut Subscription) -> (Position, u64) {
    match subscription.recv().await.unwrap().unwrap() {
        Event::Message(message) => (message.position, message.data.get().parse().unwrap()),
        other => panic!("no message: {other:?}"),
    }
}

#[tokio::test]
async fn order_a_subscriber_sees_a_rooms_messages_in_position_order_always() {
    const EACH: u64 = 200;
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let (_live, mut live) = subscribe(&hub, SubscribeOptions::default()).await;
    let twine = publisher(&hub);
    // All publish at once, each its own numbers in ascending order.
    let publish = |by: u64| {
        let twine = twine.clone();
        async move {
            for n in 0..EACH {
                twine.publish(ROOM, &(by * EACH + n)).await.unwrap();
            }
        }
    };
    let mut seen = Vec::new();
    let read = async {
        for _ in 0..4 * EACH {
            seen.push(next(&mut live).await);
        }
    };
    future::join(future::join_all((0..4).map(publish)), read).await;
    assert!(seen.is_sorted_by(|(earlier, _), (later, _)| earlier < later));
    for by in 0..4 {
        let own: Vec<_> = seen.iter().map(|(_, number)| *number).filter(|n| n / EACH == by).collect();
        assert_eq!(own, (by * EACH..(by + 1) * EACH).collect::<Vec<_>>());
    }
    // Whoever comes later sees the same.
    let history = SubscribeOptions { history: Some(1_000), ..SubscribeOptions::default() };
    let (_late, mut late) = subscribe(&hub, history).await;
    for expected in seen {
        assert_eq!(next(&mut late).await, expected);
    }
}

#[tokio::test]
async fn exactly_once_to_the_callback_across_kills_and_where_it_can_not_be_the_app_is_told() {
    let mut hub = Hub::new(&["--recovery-max-messages", "10"]);
    hub.start().await;
    let (client, mut subscription) = subscribe(&hub, SubscribeOptions::default()).await;
    let twine = publisher(&hub);
    let mut last = None;
    for n in 0..60 {
        if n % 20 == 10 {
            hub.kill();
            let listening = hub.spawn();
            // This one is published while there is no hub, and repeated until there is.
            let (_, published) = future::join(listening, twine.publish(ROOM, &n)).await;
            published.unwrap();
        } else {
            twine.publish(ROOM, &n).await.unwrap();
        }
        client.wake().await;
        let (position, number) = next(&mut subscription).await;
        assert_eq!(number, n, "none missed, none twice");
        last = Some(position);
    }
    let after = SubscribeOptions { after: last.clone(), ..SubscribeOptions::default() };
    drop((client, subscription));
    for n in 60..110 {
        twine.publish(ROOM, &n).await.unwrap();
    }
    // More than the hub was told to recover.
    let (_client, mut subscription) = subscribe(&hub, after).await;
    assert_eq!(subscription.recovered(), Some(false));
    let Event::Gap(gap) = subscription.recv().await.unwrap().unwrap() else { panic!("a loss is told") };
    assert_eq!((Some(gap.from), gap.count, gap.reason), (last, Some(40), GapReason::Limit));
    for n in 100..110 {
        assert_eq!(next(&mut subscription).await.1, n);
    }
}

#[tokio::test]
async fn exactly_once_to_the_callback_across_restarts_that_tell_their_clients() {
    const EACH: u64 = 50;
    let mut hub = Hub::new(&["--drain-window", "500ms"]);
    hub.start().await;
    let twine = publisher(&hub);
    let mut subscribers = Vec::new();
    for _ in 0..5 {
        subscribers.push(subscribe(&hub, SubscribeOptions::default()).await);
    }
    for round in 0..3 {
        let numbers = round * EACH..(round + 1) * EACH;
        // Published while the hub stops, while there is none, and when it is back.
        let publish = async {
            for n in numbers.clone() {
                twine.publish(ROOM, &n).await.unwrap();
            }
        };
        let restart = async {
            hub.stop().await;
            hub.start().await;
        };
        let read = future::join_all(subscribers.iter_mut().map(async |(_, subscription)| {
            for n in numbers.clone() {
                assert_eq!(next(subscription).await.1, n, "none missed, none twice");
            }
        }));
        future::join3(publish, restart, read).await;
    }
}

#[tokio::test]
async fn publish_is_idempotent_across_a_kill() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    let twine = publisher(&hub);
    let message = Message::new(ROOM, &1).unwrap().with_id("order-4711").unwrap();
    // At the same moment, and again when the hub that took it is gone.
    let at_once = future::try_join_all((0..8).map(|_| twine.publish_message(&message))).await.unwrap();
    let first = at_once.iter().find(|published| !published.duplicate).expect("one of them was the first");
    assert_eq!(at_once.iter().filter(|published| published.duplicate).count(), 7);
    assert!(at_once.iter().all(|p| (&p.epoch, p.offset) == (&first.epoch, first.offset)));
    hub.kill();
    hub.start().await;
    let again = twine.publish_message(&message).await.unwrap();
    assert_eq!((again.duplicate, &again.epoch, again.offset), (true, &first.epoch, first.offset));
    assert_eq!(hub.history::<Value>(ROOM).await.len(), 1);
}

#[tokio::test]
async fn an_acknowledged_publish_is_durable() {
    let mut hub = Hub::new(&[]);
    hub.start().await;
    for n in 0..10_u64 {
        publisher(&hub).publish(ROOM, &n).await.unwrap();
        // As soon as it was acknowledged.
        hub.kill();
        hub.start().await;
        let stored: Vec<u64> = hub.history(ROOM).await.into_iter().map(|message| message.data).collect();
        assert_eq!(stored, (0..=n).collect::<Vec<_>>());
    }
    hub.end();
}

#[tokio::test]
async fn everything_is_bounded_and_says_so() {
    let mut hub = Hub::new(
        &[
            ["--max-connections", "2"],
            ["--max-rooms-per-connection", "1"],
            ["--max-frame", "1KiB"],
            ["--max-data", "1KiB"],
            ["--max-batch", "2"],
        ]
        .concat(),
    );
    hub.start().await;
    let twine = hub.twine().retry(RetryPolicy::never()).build().unwrap();
    let big = "x".repeat(2_000);
    let refused = |error: twine_server_sdk::Error| error.code().map(|code| code.as_str().to_owned());
    assert_eq!(refused(twine.publish(ROOM, &big).await.unwrap_err()).as_deref(), Some("data_too_big"));
    let three: Vec<_> = (0..3).map(|n| Message::new(ROOM, &n).unwrap()).collect();
    assert_eq!(refused(twine.publish_batch(&three).await.unwrap_err()).as_deref(), Some("bad_request"));
    let mut one = Socket::open(&hub, &[]).await.unwrap();
    let mut other = Socket::open(&hub, &[]).await.unwrap();
    assert_eq!(Socket::open(&hub, &[]).await.err(), Some(503), "full");
    one.ask(&json!({ "type": "connect" })).await;
    assert_eq!(one.ask(&json!({ "type": "subscribe", "id": 1, "room": "a" })).await["type"], "subscribed");
    let refused = one.ask(&json!({ "type": "subscribe", "id": 2, "room": "b" })).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("too_many_rooms"), &json!(2)));
    let refused = other.ask(&json!({ "type": "connect", "scope": big })).await;
    assert_eq!(refused["code"], "frame_too_big");
    // Who kept to the bounds has noticed nothing.
    twine.publish("a", &1).await.unwrap();
    assert_eq!(one.next().await["data"], 1);
}

#[tokio::test]
async fn no_door_is_left_open() {
    let mut hub = Hub::new(&["--allowed-origins", "https://app.example"]);
    hub.start().await;
    // No publish without a key.
    let thief = Twine::builder(hub.url(), "a-key-of-another-hub").no_proxy().build().unwrap();
    let refused = thief.publish(ROOM, &1).await.unwrap_err();
    assert_eq!(refused.code().map(twine_protocol::ErrorCode::as_str), Some("key_invalid"));
    // No WebSocket from an origin that is not allowed.
    for origin in ["https://evil.example", "null", "http://app.example", "https://app.example.evil.example"] {
        assert_eq!(Socket::open(&hub, &[("Origin", origin)]).await.err(), Some(403), "{origin}");
    }
    // No session without its cookie, and no other user's messages.
    let user =
        [("Origin", "https://app.example"), ("Cookie", "twineid=936da01f-9abd-4d9d-80c7-02af85c822a8")];
    let other =
        [("Origin", "https://app.example"), ("Cookie", "twineid=0e6d5a44-5bd0-4a3c-9d2c-3f8d6c7b9a10")];
    let twine = publisher(&hub);
    let mut tab = Socket::open(&hub, &user).await.unwrap();
    let session = tab.ask(&json!({ "type": "connect" })).await["session"].clone();
    tab.ask(&json!({ "type": "subscribe", "id": 1, "room": ROOM })).await;
    // The hub has let the session go when it closes its side.
    tab.close().await;
    twine.publish(ROOM, &"for the user").await.unwrap();
    for headers in [&other[..], &user[..1], &[]] {
        let mut tab = Socket::open(&hub, headers).await.unwrap();
        let connected = tab.ask(&json!({ "type": "connect", "session": session })).await;
        assert_eq!((&connected["resumed"], &connected["rooms"]), (&json!(false), &json!([])), "{headers:?}");
        let subscribed = tab.ask(&json!({ "type": "subscribe", "id": 1, "room": ROOM })).await;
        assert_eq!(subscribed["head"]["offset"], subscribed["offset"], "it starts at the head");
        tab.close().await;
    }
    let mut tab = Socket::open(&hub, &user).await.unwrap();
    let connected = tab.ask(&json!({ "type": "connect", "session": session })).await;
    assert_eq!((&connected["resumed"], &connected["rooms"]), (&json!(true), &json!([ROOM])));
    tab.ask(&json!({ "type": "subscribe", "id": 1, "room": ROOM })).await;
    assert_eq!(tab.next().await["data"], "for the user");
}

/// A WebSocket with the headers that a test means.
struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// The status of a refusal.
    async fn open(hub: &Hub, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}/ws", hub.address()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let socket = TcpStream::connect(hub.address()).await.unwrap();
        match tokio_tungstenite::client_async(request, socket).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Says this and gives the next frame.
    async fn ask(&mut self, frame: &Value) -> Value {
        self.0.send(Ws::text(frame.to_string())).await.unwrap();
        self.next().await
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Ws::Text(text) = self.0.next().await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Closes it, and returns when the hub has as well.
    async fn close(mut self) {
        self.0.close(None).await.unwrap();
        while self.0.next().await.is_some_and(|message| message.is_ok()) {}
    }
}
