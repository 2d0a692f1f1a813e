use twine_client::{ClosedReason, Error, State, SubscribeOptions};

use crate::scene::Scene;

#[tokio::test]
async fn disconnecting_ends_subscriptions_and_refuses_calls() {
    let mut scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    client.disconnect().await;
    scene.proxy.until_open(0).await;
    assert!(chat.recv().await.is_none());
    assert_eq!(client.state(), State::Closed(ClosedReason::Disconnected));
    let late = client.subscribe("chat", SubscribeOptions::default()).await;
    assert!(matches!(late, Err(Error::Closed(ClosedReason::Disconnected))), "{late:?}");
    client.disconnect().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_does_not_keep_it_from_ending() {
    let mut scene = Scene::start().await;
    let client = scene.client().await;
    let _unread = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", 0..200).await;
    client.disconnect().await;
    scene.proxy.until_open(0).await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_connection() {
    let mut scene = Scene::start().await;
    let client = scene.client().await;
    let clone = client.clone();
    drop(client);
    assert_eq!(clone.state(), State::Connected);
    drop(clone);
    scene.proxy.until_open(0).await;
}

#[tokio::test]
async fn a_close_code_that_would_come_again_ends_it_with_the_hubs_reason() {
    let mut scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    // A frame over the hub's limit: 1009.
    let options = SubscribeOptions { token: Some("t".repeat(100 << 10)), ..SubscribeOptions::default() };
    let refused = client.subscribe("news", options).await;
    assert!(matches!(refused, Err(Error::Closed(ClosedReason::Refused { code: 1009, .. }))), "{refused:?}");
    let ended = chat.recv().await;
    assert!(matches!(ended, Some(Err(Error::Closed(ClosedReason::Refused { code: 1009, .. })))), "{ended:?}");
    assert!(chat.recv().await.is_none());
    assert!(matches!(client.state(), State::Closed(ClosedReason::Refused { code: 1009, .. })));
    scene.proxy.until_open(0).await;
}
