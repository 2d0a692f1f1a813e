use twine_client::SubscribeOptions;
use twine_client::native::QUEUE_MAX;
use twine_server_sdk::Message;

use crate::scene::{Scene, next};

const N_MESSAGES: usize = 16 * QUEUE_MAX;
const BATCH: usize = 32;
/// Bytes of a message; a batch stays below the hub's limit.
const SIZE: usize = 16 << 10;

fn text(number: usize) -> String {
    format!("{number:05}{}", "x".repeat(SIZE))
}

#[tokio::test]
async fn what_is_not_read_stays_in_the_hub_and_comes_later() {
    let scene = Scene::start().await;
    let slow = scene.client().await;
    let mut unread = slow.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    // Comes to the hub by another way, and is not counted.
    let fast = twine_client::Client::builder(&scene.hub.url()).connect().await.unwrap();
    let mut read = fast.subscribe("chat", SubscribeOptions::default()).await.unwrap();

    for first in (0..N_MESSAGES).step_by(BATCH) {
        let batch: Vec<_> =
            (first..first + BATCH).map(|number| Message::new("chat", &text(number)).unwrap()).collect();
        scene.backend.publish_batch(&batch).await.unwrap();
        // Where one reader has a message, the other could have had it.
        for number in first..first + BATCH {
            assert_eq!(next(&mut read).await.data.get()[1..6], format!("{number:05}"));
        }
    }
    // The queue holds a sixteenth of it; the kernel's buffers on the way hold some megabytes more.
    let (forwarded, half) = (scene.proxy.forwarded(), (N_MESSAGES * SIZE / 2) as u64);
    assert!(forwarded < half, "{forwarded} bytes were taken for a reader that does not read");

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
