use twine_client::SubscribeOptions;
use twine_client::native::QUEUE_MAX;

use crate::scene::{Scene, next};

const N_MESSAGES: usize = 500;
const SIZE: usize = 16 << 10;

#[tokio::test]
async fn what_is_not_read_stays_in_the_hub_and_comes_later() {
    let scene = Scene::start().await;
    let slow = scene.client().await;
    let mut unread = slow.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    // Comes to the hub by another way, and is not counted.
    let fast = twine_client::Client::builder(&scene.hub.url()).connect().await.unwrap();
    let mut read = fast.subscribe("chat", SubscribeOptions::default()).await.unwrap();

    let text = |number: usize| format!("{number:05}{}", "x".repeat(SIZE));
    for number in 0..N_MESSAGES {
        scene.backend.publish("chat", &text(number)).await.unwrap();
        // Where one reader has the message, the other could have had it.
        assert_eq!(next(&mut read).await.data.get()[1..6], format!("{number:05}"));
    }
    // The queue, and as much again for the kernel's buffers and those of the connection.
    let most = 2 * QUEUE_MAX * SIZE;
    assert!(N_MESSAGES * SIZE > 3 * most, "the test would prove nothing");
    let forwarded = scene.proxy.forwarded();
    assert!(forwarded < most as u64, "{forwarded} bytes were taken for a reader that does not read");

    // The client still hears its app.
    let other = slow.subscribe("chat", SubscribeOptions::default()).await;
    assert!(other.is_err());
    for number in 0..N_MESSAGES {
        assert_eq!(next(&mut unread).await.data.get()[1..6], format!("{number:05}"));
    }
}

#[tokio::test]
async fn a_reader_that_is_dropped_holds_up_nobody() {
    let scene = Scene::start().await;
    let client = scene.client().await;
    let unread = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    scene.publish("chat", 0..200).await;
    drop(unread);
    let mut news = client.subscribe("news", SubscribeOptions::default()).await.unwrap();
    scene.publish("news", [1]).await;
    assert_eq!(next(&mut news).await.data.get(), "1");
}
