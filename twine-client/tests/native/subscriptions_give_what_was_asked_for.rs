use twine_client::core::Error as CallError;
use twine_client::protocol::ErrorCode;
use twine_client::{Client, Error, State, SubscribeOptions};
use twine_hub::Hub;

use crate::scene::{Scene, expect, next};

#[tokio::test]
async fn a_message_comes_with_all_that_the_hub_knows_of_it() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    let published = scene.backend.publish("chat", &serde_json::json!({"text": "hello ✓"})).await.unwrap();
    let message = next(&mut chat).await;
    assert_eq!(message.room.as_str(), "chat");
    assert_eq!(message.position.epoch, chat.position().epoch);
    assert_eq!(message.position.offset, published.offset);
    assert_eq!(message.data.get(), r#"{"text":"hello ✓"}"#);
    assert!(message.id.is_some(), "the SDK names its messages");
    assert!(message.time > 1_700_000_000_000);
    assert!(!message.recovered);
}

#[tokio::test]
async fn history_and_positions_decide_where_it_starts() {
    let scene = Scene::start().await;
    scene.publish("chat", 1..=5).await;
    let client = scene.client().await;

    let options = SubscribeOptions { history: Some(2), ..SubscribeOptions::default() };
    let mut chat = client.subscribe("chat", options).await.unwrap();
    let fourth = next(&mut chat).await;
    assert!(fourth.recovered);
    expect(&mut chat, [5]).await;
    drop(chat);

    let options = SubscribeOptions { after: Some(fourth.position), ..SubscribeOptions::default() };
    let mut chat = client.subscribe("chat", options).await.unwrap();
    assert_eq!(chat.recovered(), Some(true));
    expect(&mut chat, [5]).await;
    drop(chat);

    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", [6]).await;
    expect(&mut chat, [6]).await;
}

#[tokio::test]
async fn rooms_of_one_client_do_not_mix() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let mut a = client.subscribe("a", SubscribeOptions::default()).await.unwrap();
    let mut b = client.subscribe("b", SubscribeOptions::default()).await.unwrap();
    for number in 0..20 {
        scene.publish(if number % 2 == 0 { "a" } else { "b" }, [number]).await;
    }
    expect(&mut b, (1..20).step_by(2)).await;
    expect(&mut a, (0..20).step_by(2)).await;
}

#[tokio::test]
async fn an_unsubscribed_room_ends_and_may_be_subscribed_again() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let mut first = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    let twice = client.subscribe("chat", SubscribeOptions::default()).await;
    assert!(matches!(twice, Err(Error::AlreadySubscribed { .. })));
    client.unsubscribe("chat").await.unwrap();
    scene.publish("chat", [1]).await;
    assert!(first.recv().await.is_none());
    let mut second = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", [2]).await;
    expect(&mut second, [2]).await;
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let hub = Hub::builder().ephemeral().configure(|config| config.max_rooms_per_connection = 1);
    let scene = Scene::with(hub.start().await.unwrap());
    let client = scene.client().await;
    assert!(matches!(client.subscribe("", SubscribeOptions::default()).await, Err(Error::Room(_))));
    let _chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    let refused = client.subscribe("news", SubscribeOptions::default()).await;
    let Err(Error::Call(CallError::Refused { code, room, .. })) = refused else { panic!("{refused:?}") };
    assert_eq!((code, room.unwrap().as_str()), (ErrorCode::TooManyRooms, "news"));
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_told_or_waited_for() {
    let scene = Scene::start().await;
    scene.proxy.lead_nowhere();
    let error = Client::builder(&scene.proxy.url()).connect().await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.is_retryable(), "{error}");

    let client = Client::builder(&scene.proxy.url()).start().unwrap();
    let mut states = client.states();
    while !matches!(states.next().await, Some(State::Reconnecting { .. })) {}
    let subscribing = tokio::spawn(async move {
        let chat = client.subscribe("chat", SubscribeOptions::default()).await;
        (client, chat)
    });
    scene.proxy.lead_to(scene.hub.address());
    let (_client, chat) = subscribing.await.unwrap();
    scene.publish("chat", [1]).await;
    expect(&mut chat.unwrap(), [1]).await;
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let scene = Scene::start().await;
    scene.proxy.lead_nowhere();
    let client = Client::builder(&scene.proxy.url()).start().unwrap();
    tokio::select! {
        biased;
        chat = client.subscribe("chat", SubscribeOptions::default()) => panic!("there is no hub: {chat:?}"),
        () = tokio::task::yield_now() => {}
    }
    let again = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe("chat", SubscribeOptions::default()).await }
    });
    scene.proxy.lead_to(scene.hub.address());
    let mut chat = again.await.unwrap().unwrap();
    scene.publish("chat", [1]).await;
    expect(&mut chat, [1]).await;
}
