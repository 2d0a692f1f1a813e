//! The feature `blocking`.

use std::thread;

use twine_server_sdk::{ErrorKind, Message, blocking};

use super::support::{FaultyProxy, Step, stored, stored_all, twine_at};

/// Runs what blocks outside of the test's runtime, which meanwhile answers.
async fn block<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.unwrap()
}

#[tokio::test]
async fn every_call_is_there_and_retries() {
    let hub = FaultyProxy::start(
        None,
        [
            Step::Cut,
            Step::Answer(stored("chat")),
            Step::Answer(stored("chat")),
            Step::Answer(stored_all(&["chat", "news"])),
            Step::Answer(stored_all(&["chat"])),
        ],
    )
    .await;
    let twine = twine_at(&hub.url()).build().unwrap();
    block(move || {
        let twine = blocking::Twine::from_async(twine).unwrap();
        let message = Message::new("chat", "hello").unwrap();
        assert_eq!(twine.publish("chat", "hello").unwrap().offset.get(), 1);
        assert_eq!(twine.publish_message(&message).unwrap().room.as_str(), "chat");
        assert_eq!(twine.publish_to_rooms(["chat", "news"], "hello").unwrap().len(), 2);
        assert_eq!(twine.publish_batch(&[message]).unwrap().len(), 1);
        assert_eq!(twine.publish("", "hello").unwrap_err().kind(), ErrorKind::InvalidMessage);
    })
    .await;
    assert_eq!(hub.requests().len(), 5);
}

#[tokio::test]
async fn threads_share_it() {
    const N_THREADS: usize = 8;
    let hub = FaultyProxy::scripted(std::iter::repeat_n(stored("chat"), N_THREADS)).await;
    let twine = twine_at(&hub.url()).build().unwrap();
    block(move || {
        let twine = blocking::Twine::from_async(twine).unwrap();
        thread::scope(|scope| {
            for _ in 0..N_THREADS {
                let twine = twine.clone();
                scope.spawn(move || twine.publish("chat", "hello").unwrap());
            }
        });
    })
    .await;
    assert_eq!(hub.requests().len(), N_THREADS);
}

#[tokio::test]
async fn it_may_be_dropped_anywhere() {
    let twine = blocking::Twine::new("http://127.0.0.1:1", "key").unwrap();
    drop(twine);
}
