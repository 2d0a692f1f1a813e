//! A real hub stores what is published: once, in order, and also when something fails on the way.

use std::ops::Range;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use twine_server_sdk::{ErrorCode, ErrorKind, Message, Stored, Twine};

use super::support::{FaultyProxy, Step, TestHub, TlsProxy, twine_at};

#[tokio::test]
async fn a_publish_is_stored_with_what_was_said_of_it() {
    #[derive(Serialize)]
    struct Said {
        name: &'static str,
        text: &'static str,
    }
    let hub = TestHub::start().await;
    let said = Said { name: "Ada", text: "hello \"world\" ✓" };
    let published = hub.twine().publish("chat", &said).await.unwrap();
    assert_eq!((published.room.as_str(), published.offset.get()), ("chat", 1));
    assert!(!published.duplicate);

    let named = Message::new("chat", &2).unwrap().with_id("order-4711").unwrap();
    let named = named.with_sender("shop").unwrap();
    hub.twine().publish_message(&named).await.unwrap();

    let messages = hub.history("chat").await;
    assert_eq!(messages[0].data, json!({ "name": "Ada", "text": "hello \"world\" ✓" }));
    assert_eq!((&messages[0].epoch, messages[0].offset), (&published.epoch, published.offset));
    assert!(messages[0].id.is_some() && messages[0].sender.is_none());
    assert_eq!(messages[1].id.as_ref(), Some(named.id()));
    assert_eq!(messages[1].sender.as_deref(), Some("shop"));
}

#[tokio::test]
async fn a_batch_is_stored_in_order() {
    let hub = TestHub::start().await;
    let message = |room, data| Message::new(room, &data).unwrap();
    let batch = [message("chat", 1), message("news", 2), message("chat", 3)];
    let results = hub.twine().publish_batch(&batch).await.unwrap();
    let results: Vec<_> = results.iter().map(|one| (one.room.as_str(), one.offset.get())).collect();
    assert_eq!(results, [("chat", 1), ("news", 1), ("chat", 2)]);
    assert_eq!(hub.payloads("chat").await, [1, 3]);
    assert_eq!(hub.payloads("news").await, [2]);
}

#[tokio::test]
async fn several_rooms_get_the_same() {
    let hub = TestHub::start().await;
    let results = hub.twine().publish_to_rooms(["chat", "news"], "hello").await.unwrap();
    assert_eq!(results.len(), 2);
    for room in ["chat", "news"] {
        assert_eq!(hub.payloads(room).await, ["hello"]);
    }
}

#[tokio::test]
async fn the_same_message_is_stored_once_in_a_room() {
    let hub = TestHub::start().await;
    let twine = hub.twine();
    let message = Message::new("chat", "hello").unwrap();
    let first = twine.publish_message(&message).await.unwrap();
    let again = twine.publish_message(&message).await.unwrap();
    let in_a_batch = twine.publish_batch(&[message]).await.unwrap().remove(0);
    assert_eq!((first.duplicate, again.duplicate, in_a_batch.duplicate), (false, true, true));
    assert_eq!([again.offset, in_a_batch.offset], [first.offset; 2]);
    assert_eq!(hub.payloads("chat").await, ["hello"]);

    // The same id says nothing in another room.
    let elsewhere = Message::new("news", "hello").unwrap().with_id("mine").unwrap();
    let here = Message::new("chat", "hello").unwrap().with_id("mine").unwrap();
    assert!(!twine.publish_message(&elsewhere).await.unwrap().duplicate);
    assert!(!twine.publish_message(&here).await.unwrap().duplicate);
}

#[tokio::test]
async fn a_wrong_key_is_told_at_once() {
    let hub = TestHub::start().await;
    let twine = Twine::builder(format!("http://{}", hub.addr()), "wrong").no_proxy().build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Unauthorized, Stored::No));
    assert_eq!((error.code(), error.attempts()), (Some(ErrorCode::KeyInvalid), 1));
    assert!(hub.payloads("chat").await.is_empty());
}

#[tokio::test]
async fn what_is_too_big_is_refused_and_a_batch_with_it() {
    let hub = TestHub::start_with(|config| {
        config.max_data = 1 << 10;
        config.max_body = 8 << 10;
    })
    .await;
    let twine = hub.twine();
    let of = |n_bytes| Message::new("chat", &"x".repeat(n_bytes)).unwrap();

    let error = twine.publish_message(&of(2 << 10)).await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Rejected, Stored::No));
    assert_eq!((error.code(), error.index()), (Some(ErrorCode::DataTooBig), None));

    let error = twine.publish_batch(&[of(1), of(2 << 10), of(1)]).await.unwrap_err();
    assert_eq!((error.code(), error.index()), (Some(ErrorCode::DataTooBig), Some(1)));

    let error = twine.publish_message(&of(16 << 10)).await.unwrap_err();
    assert_eq!((error.code(), error.stored()), (Some(ErrorCode::BodyTooBig), Stored::No));

    assert!(hub.payloads("chat").await.is_empty());
}

#[tokio::test]
async fn a_lost_answer_costs_nothing_and_repeats_nothing() {
    let hub = TestHub::start().await;
    for n_bytes in [0, 9, 60, 150] {
        let room = format!("cut-after-{n_bytes}");
        // The hub has stored it and answered; what comes back is the first so many bytes.
        let proxy = FaultyProxy::start(Some(hub.addr()), [Step::PassThenCut(n_bytes)]).await;
        let twine = twine_at(&proxy.url()).build().unwrap();
        let published = twine.publish(&room, "hello").await.unwrap();
        assert!(published.duplicate, "the second answer is that of the first publish");
        assert_eq!(proxy.requests().len(), 2);
        assert_eq!(hub.payloads(&room).await, ["hello"]);
    }
}

#[tokio::test]
async fn a_publish_outlives_a_restart_of_the_hub() {
    let hub = TestHub::start().await;
    let proxy = FaultyProxy::start(Some(hub.addr()), []).await;
    proxy.set_rest(Step::PassThenCut(0));
    let twine = twine_at(&proxy.url()).build().unwrap();
    let publish = tokio::spawn(async move { twine.publish("chat", "hello").await });
    // A second attempt says that the first one is over: stored, and nobody knows.
    proxy.until_requests(2).await;
    let hub = hub.stop().await;
    let before = proxy.requests().len();
    proxy.until_requests(before + 2).await;

    let hub = hub.start().await;
    proxy.set_hub(hub.addr());
    proxy.set_rest(Step::Pass);
    let published = publish.await.unwrap().unwrap();
    assert!(published.duplicate);
    assert_eq!(hub.payloads("chat").await, ["hello"]);
}

#[tokio::test]
async fn many_at_once_are_each_stored_once_across_a_restart() {
    let hub = TestHub::start().await;
    let proxy = FaultyProxy::start(Some(hub.addr()), []).await;
    let mut publishes = publish_numbers(&twine_at(&proxy.url()).build().unwrap());
    // In the middle of them.
    publishes.join_next().await.unwrap().unwrap();
    let hub = hub.stop().await.start().await;
    proxy.set_hub(hub.addr());
    publishes.join_all().await;
    assert_eq!(numbers_in(&hub).await, ALL_NUMBERS.collect::<Vec<_>>());
}

#[tokio::test]
async fn http_2_carries_many_publishes_over_one_connection() {
    let hub = TestHub::start().await;
    let proxy = TlsProxy::start(hub.addr(), &["h2", "http/1.1"]).await;
    let twine = twine_at(&proxy.url()).root_certificates(proxy.pem()).build().unwrap();
    // Once connected, all that follows finds the connection.
    twine.publish("elsewhere", "hello").await.unwrap();
    publish_numbers(&twine).join_all().await;
    assert_eq!(numbers_in(&hub).await, ALL_NUMBERS.collect::<Vec<_>>());
    assert_eq!(proxy.agreed_protocols(), ["h2"]);
}

#[tokio::test]
async fn http_2_connections_that_are_cut_repeat_nothing() {
    let hub = TestHub::start().await;
    // Enough for several answers, and not for all: the hub has stored more than it can tell.
    let proxy = TlsProxy::start_cutting(hub.addr(), &["h2", "http/1.1"], 2000).await;
    let twine = twine_at(&proxy.url()).root_certificates(proxy.pem()).build().unwrap();
    twine.publish("elsewhere", "hello").await.unwrap();
    publish_numbers(&twine).join_all().await;
    assert_eq!(numbers_in(&hub).await, ALL_NUMBERS.collect::<Vec<_>>());
    assert!(proxy.agreed_protocols().len() > 1, "no connection was cut");
}

const ALL_NUMBERS: Range<u64> = 0..50;

/// Publishes all numbers at once, in no order.
fn publish_numbers(twine: &Twine) -> JoinSet<()> {
    ALL_NUMBERS
        .map(|number| {
            let twine = twine.clone();
            async move {
                twine.publish("numbers", &number).await.unwrap();
            }
        })
        .collect()
}

/// What is stored of them, sorted: a repeated one is there twice.
async fn numbers_in(hub: &TestHub) -> Vec<u64> {
    let payloads = hub.payloads("numbers").await;
    let mut numbers: Vec<_> = payloads.iter().map(|payload| payload.as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn a_background_publisher_keeps_the_order_and_loses_only_what_is_refused() {
    const N_MESSAGES: usize = 900;
    let hub = TestHub::start_with(|config| config.max_data = 1 << 10).await;
    let publisher = hub.twine().publisher().start().unwrap();
    for number in 0..N_MESSAGES {
        publisher.publish("chat", &number).unwrap();
        if number % 100 == 50 {
            publisher.publish("chat", &"x".repeat(2 << 10)).unwrap();
        }
    }
    let stats = publisher.close().await;
    assert_eq!((stats.published, stats.dropped, stats.refused), (N_MESSAGES as u64, 9, 0));
    assert_eq!((stats.queued, stats.queued_bytes), (0, 0));
    let expected: Vec<_> = (0..N_MESSAGES).map(Value::from).collect();
    assert_eq!(hub.payloads("chat").await, expected);
}

#[tokio::test]
async fn a_background_publisher_finds_the_size_that_a_hub_takes() {
    let hub = TestHub::start_with(|config| {
        config.max_body = 4 << 10;
        config.max_data = 2 << 10;
    })
    .await;
    let publisher = hub.twine().publisher().start().unwrap();
    for number in 0..100 {
        publisher.publish("chat", &number).unwrap();
    }
    let stats = publisher.close().await;
    assert_eq!((stats.published, stats.dropped), (100, 0));
    assert_eq!(hub.payloads("chat").await, (0..100).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_background_publisher_outlives_a_restart_of_the_hub() {
    let hub = TestHub::start().await;
    let proxy = FaultyProxy::start(Some(hub.addr()), []).await;
    let twine = twine_at(&proxy.url()).build().unwrap();
    let publisher = twine.publisher().start().unwrap();
    publisher.publish("chat", "before").unwrap();
    publisher.flush().await;

    let hub = hub.stop().await;
    let before = proxy.requests().len();
    publisher.publish("chat", "meanwhile").unwrap();
    proxy.until_requests(before + 2).await;
    publisher.publish("chat", "after").unwrap();

    let hub = hub.start().await;
    proxy.set_hub(hub.addr());
    publisher.flush().await;
    assert_eq!(hub.payloads("chat").await, ["before", "meanwhile", "after"]);
}
