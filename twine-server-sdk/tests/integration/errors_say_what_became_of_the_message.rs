//! After an error, a backend knows whether its message was stored.

use std::error::Error as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;
use twine_server_sdk::{Error, ErrorKind, RetryPolicy, Stored};

use super::support::{FaultyProxy, Step, answer, problem, stored, twine_at, with_header};

/// The error of a publish that is tried once.
async fn error_of(step: Step) -> Error {
    let hub = FaultyProxy::start(None, [step]).await;
    let twine = twine_at(&hub.url()).retry(RetryPolicy::never()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.attempts(), hub.requests().len()), (1, 1));
    error
}

#[tokio::test]
async fn it_was_not_stored_where_it_was_never_sent() {
    // Bound, so that nobody else gets the port, and without ears.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", taken.local_addr().unwrap());
    let twine = twine_at(&url).retry(RetryPolicy::never()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Connect, Stored::No));
    assert!(error.is_retryable());
    assert!(error.source().is_some());
    assert_eq!(error.to_string(), "no connection to 127.0.0.1 (the message was not stored)");
}

#[tokio::test]
async fn it_may_have_been_stored_where_no_answer_came() {
    let error = error_of(Step::Cut).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Interrupted, Stored::Maybe));
    let error = error_of(Step::AnswerInPart(stored("chat"), 10)).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Interrupted, Stored::Maybe));
    assert!(error.is_retryable());

    let hub = FaultyProxy::start(None, [Step::Hang]).await;
    let once = twine_at(&hub.url()).retry(RetryPolicy::never());
    let twine = once.request_timeout(Duration::from_millis(50)).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Timeout, Stored::Maybe));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn it_was_stored_where_the_answer_was_a_success_and_then_cut() {
    let whole = stored("chat");
    let error = error_of(Step::AnswerInPart(whole.clone(), whole.len() - 1)).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Interrupted, Stored::Yes));
}

#[tokio::test]
async fn a_refusal_is_understood_also_where_its_explanation_was_cut() {
    let whole = problem("503 Service Unavailable", "draining");
    let error = error_of(Step::AnswerInPart(whole.clone(), whole.len() - 1)).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Unavailable, Stored::Maybe));
    let whole = problem("401 Unauthorized", "key_invalid");
    let error = error_of(Step::AnswerInPart(whole.clone(), whole.len() - 1)).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Unauthorized, Stored::No));
}

#[tokio::test]
async fn a_doubt_of_an_earlier_attempt_stays() {
    let hub =
        FaultyProxy::start(None, [Step::Cut, Step::Answer(problem("401 Unauthorized", "key_invalid"))]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    let error = twine.publish("chat", "hello").await.unwrap_err();
    assert_eq!((error.kind(), error.stored()), (ErrorKind::Unauthorized, Stored::Maybe));
    assert_eq!(error.attempts(), 2);
}

#[tokio::test]
async fn another_servers_answer_is_not_taken_for_a_hubs() {
    let page = answer("200 OK", "text/html", "<html>");
    let error = error_of(Step::Answer(page)).await;
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::BadAnswer, false));
    let endless = answer("200 OK", "application/json", &"[".repeat(1 << 20));
    assert_eq!(error_of(Step::Answer(endless)).await.kind(), ErrorKind::BadAnswer);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = FaultyProxy::scripted([stored("chat")]).await;
    let redirect = answer("307 Temporary Redirect", "text/plain", "");
    let redirect = with_header(&redirect, &format!("Location: {}", elsewhere.url()));
    let error = error_of(Step::Answer(redirect)).await;
    assert_eq!((error.kind(), error.stored()), (ErrorKind::BadAnswer, Stored::No));
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_bad_message_is_refused_before_anything_is_sent() {
    let hub = FaultyProxy::scripted([]).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    for error in [
        twine.publish("", "hello").await.unwrap_err(),
        twine.publish("a\nb", "hello").await.unwrap_err(),
        twine.publish_to_rooms(["chat", ""], "hello").await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.stored()), (ErrorKind::InvalidMessage, Stored::No));
        assert_eq!((error.attempts(), error.is_retryable()), (0, false));
    }
    // Nothing to publish is no error, and nothing to send.
    assert!(twine.publish_batch(&[]).await.unwrap().is_empty());
    assert!(twine.publish_to_rooms([""; 0], "hello").await.unwrap().is_empty());
    assert!(hub.requests().is_empty());
}
