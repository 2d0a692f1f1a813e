//! The background queue: what it takes, what it refuses, and what becomes of either.

use std::time::Duration;

use twine_server_sdk::{ErrorKind, Message, PublisherStats, RetryPolicy};

use super::support::{FaultyProxy, Step, problem, stored_all, twine_at};

fn counts(stats: PublisherStats) -> [u64; 4] {
    [stats.accepted, stats.published, stats.refused, stats.dropped]
}

#[tokio::test]
async fn messages_that_gathered_go_in_one_request_and_in_order() {
    let hub = FaultyProxy::scripted([stored_all(&["chat", "news", "chat"])]).await;
    let publisher = twine_at(&hub.url()).build().unwrap().publisher().start().unwrap();
    // Nothing awaits here, so the task has not run before the third is queued.
    for (room, data) in [("chat", 1), ("news", 2), ("chat", 3)] {
        publisher.publish(room, &data).unwrap();
    }
    publisher.flush().await;

    assert_eq!(hub.requests().len(), 1);
    let batch: serde_json::Value = serde_json::from_str(&hub.bodies()[0]).unwrap();
    let sent = batch["messages"].as_array().unwrap().iter();
    let sent: Vec<_> = sent.map(|m| (m["room"].as_str().unwrap(), m["data"].as_u64().unwrap())).collect();
    assert_eq!(sent, [("chat", 1), ("news", 2), ("chat", 3)]);
    assert_eq!(counts(publisher.stats()), [3, 3, 0, 0]);
}

#[tokio::test]
async fn a_full_queue_is_an_error_and_a_count() {
    let hub = FaultyProxy::scripted([stored_all(&["chat", "chat"]), stored_all(&["chat"])]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    let publisher = twine.publisher().max_messages(2).start().unwrap();
    publisher.publish("chat", "first").unwrap();
    publisher.publish("chat", "second").unwrap();
    let error = publisher.publish("chat", "one too many").unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QueueFull, true));

    publisher.flush().await;
    publisher.publish("chat", "third").unwrap();
    assert_eq!(counts(publisher.close().await), [3, 3, 1, 0]);
}

#[tokio::test]
async fn a_hub_that_is_away_is_waited_for() {
    let away = std::iter::repeat_n(Step::Cut, 5);
    let back = Step::Answer(stored_all(&["chat"]));
    let hub = FaultyProxy::start(None, away.chain([back])).await;
    let publisher = twine_at(&hub.url()).build().unwrap().publisher().start().unwrap();
    publisher.publish("chat", "hello").unwrap();
    assert_eq!(counts(publisher.close().await), [1, 1, 0, 0]);
    assert_eq!(hub.requests().len(), 6);
}

#[tokio::test]
async fn a_hub_that_stays_away_costs_messages_in_the_end() {
    let hub = FaultyProxy::start(None, [Step::Hang]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    let publisher = twine.publisher().retry_for(Duration::from_millis(50)).start().unwrap();
    publisher.publish("chat", "lost").unwrap();
    assert_eq!(counts(publisher.close().await), [1, 0, 0, 1]);
}

#[tokio::test]
async fn a_batch_that_is_given_up_does_not_hold_up_the_next() {
    let hub = FaultyProxy::start(None, [Step::Cut, Step::Answer(stored_all(&["chat"]))]).await;
    let twine = twine_at(&hub.url()).retry(RetryPolicy::never()).build().unwrap();
    let publisher = twine.publisher().start().unwrap();
    publisher.publish("chat", "lost").unwrap();
    publisher.flush().await;
    publisher.publish("chat", "hello").unwrap();
    assert_eq!(counts(publisher.close().await), [2, 1, 0, 1]);
}

#[tokio::test]
async fn a_wrong_key_drops_messages_and_says_so() {
    let hub = FaultyProxy::scripted([problem("401 Unauthorized", "key_invalid")]).await;
    let publisher = twine_at(&hub.url()).build().unwrap().publisher().start().unwrap();
    publisher.publish("chat", "hello").unwrap();
    publisher.publish("chat", "hello").unwrap();
    assert_eq!(counts(publisher.close().await), [2, 0, 0, 2]);
    assert_eq!(hub.requests().len(), 1);
}

#[tokio::test]
async fn a_closed_publisher_refuses() {
    let hub = FaultyProxy::scripted([]).await;
    let publisher = twine_at(&hub.url()).build().unwrap().publisher().start().unwrap();
    publisher.close().await;
    let error = publisher.publish_message(Message::new("chat", "late").unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Closed, false));
    // Again is no harm.
    publisher.flush().await;
    assert_eq!(counts(publisher.close().await), [0; 4]);
}

#[test]
fn a_publisher_whose_runtime_is_gone_refuses_and_has_counted_what_was_lost() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (hub, publisher) = runtime.block_on(async {
        let hub = FaultyProxy::start(None, [Step::Hang]).await;
        let publisher = twine_at(&hub.url()).build().unwrap().publisher().start().unwrap();
        publisher.publish("chat", "on its way").unwrap();
        hub.until_requests(1).await;
        publisher.publish("chat", "waiting").unwrap();
        (hub, publisher)
    });
    drop(runtime);
    drop(hub);
    assert_eq!(publisher.publish("chat", "late").unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(counts(publisher.stats()), [2, 0, 0, 2]);
}

#[test]
fn a_publisher_needs_a_runtime() {
    let twine = twine_at("http://127.0.0.1:1").build().unwrap();
    assert_eq!(twine.publisher().start().unwrap_err().kind(), ErrorKind::Config);
}
