//! What passes by itself is retried, with the same body and so the same id.

use std::time::Duration;

use twine_server_sdk::{ErrorKind, Message, RetryPolicy, Stored};

use super::support::{FaultyProxy, Step, problem, stored, twine_at, with_header};

#[tokio::test]
async fn every_attempt_is_the_same_request() {
    let hub = FaultyProxy::start(
        None,
        [
            Step::Cut,
            Step::AnswerInPart(stored("chat"), 10),
            Step::AnswerInPart(stored("chat"), stored("chat").len() - 1),
            Step::Answer(problem("408 Request Timeout", "request_timeout")),
            Step::Answer(problem("429 Too Many Requests", "too_many")),
            Step::Answer(problem("500 Internal Server Error", "internal")),
            Step::Answer("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_owned()),
            Step::Answer(problem("503 Service Unavailable", "draining")),
            Step::Answer("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\n\r\n".to_owned()),
            Step::Answer(problem("507 Insufficient Storage", "store_full")),
            Step::Answer(stored("chat")),
        ],
    )
    .await;
    let twine = twine_at(&hub.url()).build().unwrap();

    let message = Message::new("chat", "hello").unwrap();
    let published = twine.publish_message(&message).await.unwrap();

    assert_eq!((published.room.as_str(), published.offset.get()), ("chat", 1));
    let expected = format!(r#"{{"room":"chat","data":"hello","id":"{}"}}"#, message.id());
    assert_eq!(hub.bodies(), vec![expected; 11]);
}

#[tokio::test]
async fn a_hang_ends_after_the_request_timeout_and_is_retried() {
    // Many answers, for on a busy machine other attempts may run out of time as well.
    let answers = std::iter::repeat_n(Step::Answer(stored("chat")), 1000);
    let hub = FaultyProxy::start(None, std::iter::once(Step::Hang).chain(answers)).await;
    let twine = twine_at(&hub.url()).request_timeout(Duration::from_millis(50)).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();
    assert!(hub.requests().len() >= 2);
}

#[tokio::test]
async fn the_hub_says_when_to_come_back() {
    let busy =
        |after| with_header(&problem("503 Service Unavailable", "full"), &format!("Retry-After: {after}"));
    let hub = FaultyProxy::scripted([busy("0"), stored("chat")]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    twine.publish("chat", "hello").await.unwrap();
    assert_eq!(hub.requests().len(), 2);

    // An hour is beyond the deadline: no use in waiting, and none in asking sooner.
    let hub = FaultyProxy::scripted([busy("3600"), stored("chat")]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!(hub.requests().len(), 1);
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Unavailable, Stored::Maybe));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
}

#[tokio::test]
async fn the_deadline_ends_all_retries() {
    let hub = FaultyProxy::start(None, std::iter::repeat_n(Step::Hang, 100)).await;
    let twine = twine_at(&hub.url()).deadline(Duration::from_millis(100)).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Timeout, Stored::Maybe));
}

#[tokio::test]
async fn a_policy_bounds_the_retries() {
    let down = || problem("503 Service Unavailable", "unavailable");
    let policy = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(1)).unwrap();
    for (policy, attempts) in [(policy.max_retries(2), 3), (RetryPolicy::never(), 1)] {
        let hub = FaultyProxy::scripted([down(), down(), down(), down()]).await;
        let twine = twine_at(&hub.url()).retry(policy).build().unwrap();
        let error = twine.publish("chat", "hello").await.unwrap_err();
        assert_eq!((error.attempts(), hub.requests().len()), (attempts, attempts as usize));
    }
}

#[tokio::test]
async fn what_can_not_pass_is_not_retried() {
    for (status, code, kind) in [
        ("400 Bad Request", "bad_request", ErrorKind::Rejected),
        ("401 Unauthorized", "key_invalid", ErrorKind::Unauthorized),
        ("413 Payload Too Large", "data_too_big", ErrorKind::Rejected),
    ] {
        let hub = FaultyProxy::scripted([problem(status, code), stored("chat")]).await;
        let twine = twine_at(&hub.url()).build().unwrap();
        let error = twine.publish("chat", "hello").await.unwrap_err();
        assert_eq!((error.kind(), error.stored()), (kind, Stored::No));
        assert_eq!(error.code().unwrap().as_str(), code);
        assert_eq!((error.attempts(), hub.requests().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let hub = FaultyProxy::start(
        None,
        [
            Step::Answer(with_header(&stored("chat"), "Connection: close")),
            Step::Answer(stored("chat")),
            // The hub closes right after an answer that promised to go on.
            Step::AnswerInPart(stored("chat") + "\r\n", stored("chat").len()),
            Step::Answer(stored("chat")),
        ],
    )
    .await;
    let twine = twine_at(&hub.url()).build().unwrap();
    for _ in 0..4 {
        twine.publish("chat", "hello").await.unwrap();
    }
    assert_eq!(hub.requests().len(), 4);
}
