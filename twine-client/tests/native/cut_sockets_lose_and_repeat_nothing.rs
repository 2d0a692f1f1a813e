use twine_client::{State, SubscribeOptions};

use crate::scene::{Scene, expect, next};

#[tokio::test]
async fn what_is_published_around_cuts_arrives_once_and_in_order() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    for round in 0..3 {
        // Before, while and after the socket is cut.
        scene.publish("chat", round * 20..round * 20 + 10).await;
        scene.proxy.cut();
        scene.publish("chat", round * 20 + 10..round * 20 + 20).await;
        scene.publish("news", [round]).await;
        expect(&mut chat, round * 20..round * 20 + 10).await;
        expect(&mut chat, round * 20 + 10..round * 20 + 20).await;
        expect(&mut news, [round]).await;
    }
    // A marker: nothing came between.
    scene.publish("chat", [1_000]).await;
    assert_eq!(next(&mut chat).await.data.get(), "1000");
}

#[tokio::test]
async fn more_rooms_than_an_address_has_room_for_all_come_back() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let names: Vec<_> = (0..30).map(|n| format!("{n}-{}", "ü".repeat(60))).collect();
    let mut rooms = Vec::new();
    for name in &names {
        rooms.push(client.subscribe(name, SubscribeOptions::default()).await.unwrap());
    }
    scene.proxy.cut();
    for (name, room) in names.iter().zip(&mut rooms) {
        scene.publish(name, [1]).await;
        expect(room, [1]).await;
    }
}

#[tokio::test]
async fn what_was_missed_is_marked_and_what_is_live_is_not() {
    let mut scene = Scene::start().await;
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    // It must not be back before there is something to miss.
    scene.proxy.lead_nowhere();
    scene.proxy.cut();
    scene.proxy.until_open(0).await;
    scene.publish("chat", [1]).await;
    scene.proxy.lead_to(scene.hub.address());
    assert!(next(&mut chat).await.recovered);
    scene.publish("chat", [2]).await;
    assert!(!next(&mut chat).await.recovered);
}

#[tokio::test]
async fn the_states_tell_of_the_drop_and_the_return() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    assert_eq!(client.state(), State::Connected);
    let mut states = client.states();
    scene.proxy.cut();
    // Fast changes are seen as their last: what is certain is that there was one, and that it is back.
    while states.next().await.unwrap() != State::Connected {}
}
