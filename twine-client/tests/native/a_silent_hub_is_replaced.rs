use std::time::Duration;

use twine_client::{State, SubscribeOptions};

use crate::scene::{Scene, expect};

#[tokio::test]
async fn a_connection_that_stalls_is_left_after_the_heartbeat() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    let mut states = client.states();
    scene.proxy.stall();
    scene.publish("chat", 1..=3).await;
    // Nothing tells the client, but that it hears nothing: 25 s between pings, and 10 s more.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(36)).await;
    tokio::time::resume();
    assert!(matches!(
        states.next().await,
        Some(State::Reconnecting { .. } | State::Connecting | State::Connected)
    ));
    expect(&mut chat, 1..=3).await;
}
