use twine_client::{State, SubscribeOptions};
use twine_hub::Hub;

use crate::scene::{Scene, backend, expect, next};

#[tokio::test]
async fn what_is_published_while_the_client_is_away_arrives_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let hub = || {
        Hub::builder().configure(|config| {
            config.listen = "127.0.0.1:0".parse().unwrap();
            config.data_dir = folder.path().to_owned();
        })
    };
    let mut scene = Scene::with(hub().start().await.unwrap());
    let client = scene.client().await;
    let mut chat = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", 1..=3).await;
    expect(&mut chat, 1..=2).await;
    let third = next(&mut chat).await;

    for round in 1..=2_u32 {
        let mut states = client.states();
        scene.hub.shutdown().await;
        while !matches!(states.next().await.unwrap(), State::Reconnecting { .. } | State::Connecting) {}
        scene.hub = hub().start().await.unwrap();
        scene.backend = backend(&scene.hub);
        // The client can't be back yet: its way leads to the hub that is gone.
        scene.publish("chat", round * 10..round * 10 + 5).await;
        scene.proxy.lead_to(scene.hub.address());
        let first = next(&mut chat).await;
        assert_eq!(first.data.get(), (round * 10).to_string());
        assert!(first.recovered);
        assert!(first.position > third.position);
        assert_ne!(first.position.epoch, third.position.epoch);
        expect(&mut chat, round * 10 + 1..round * 10 + 5).await;
        scene.publish("chat", [1_000]).await;
        assert!(!next(&mut chat).await.recovered);
    }
}
