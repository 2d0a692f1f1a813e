//! Readers that stop for a while, over sockets that hold little: what they don't take stays in the log.

use std::time::Duration;

use tokio::time::timeout;
use twine_client::{Client, Event, SubscribeOptions, Subscription};
use twine_server_sdk::{Message, Twine};

use crate::hub::Hub;
use crate::network::Network;

/// Bytes of a message.
const SIZE: usize = 16 << 10;
/// Messages of a batch, which stays below what a request may have.
const BATCH: usize = 32;
/// So late that only what hangs is not done by then, on whatever machine.
const PATIENCE: Duration = Duration::from_mins(10);

fn text(number: usize) -> String {
    format!("{number:05}{}", "x".repeat(SIZE))
}

/// The next message, which must be the one of this number.
async fn expect(subscription: &mut Subscription, number: usize) {
    match subscription.recv().await {
        Some(Ok(Event::Message(message))) => {
            let got = &message.data.get()[1..6];
            assert_eq!(got, format!("{number:05}"), "at {}", message.position);
        }
        other => panic!("no message {number} but {other:?}"),
    }
}

async fn publish(twine: &Twine, first: usize) {
    let batch: Vec<_> =
        (first..first + BATCH).map(|number| Message::new("chat", &text(number)).unwrap()).collect();
    twine.publish_batch(&batch).await.unwrap();
}

/// A client of the room, which is not read.
async fn stopped(url: &str) -> (Client, Subscription) {
    let client = Client::builder(url).start().unwrap();
    let subscription = client.subscribe("chat", SubscribeOptions::default()).await.unwrap();
    (client, subscription)
}

#[tokio::test]
async fn readers_that_stop_cost_little_memory_hold_nobody_up_and_are_caught_up_from_the_log() {
    const N_STOPPED: usize = 8;
    const N_MESSAGES: usize = 1_024;
    /// What the hub keeps for all readers together, recent messages, and for each of them: the rest of a
    /// message, answers and a frame of theirs that are under way, at their limits.
    const TAIL: u64 = 1 << 20;
    const A_CONNECTION: u64 = 3 * (64 << 10);
    /// What else a hub may need to take and store as much: batches under way, the database's pages.
    const WORK: u64 = 32 << 20;

    timeout(PATIENCE, async {
        let mut hub = Hub::new(&["--tail-bytes", "1MiB"]);
        hub.start().await;
        let network = Network::steady(hub.address());
        let twine = hub.twine().build().unwrap();
        let mut readers = Vec::new();
        for _ in 0..N_STOPPED {
            readers.push(stopped(&network.url()).await);
        }
        let (_quick, mut quick) = stopped(&hub.url()).await;

        let before = hub.peak_memory();
        for first in (0..N_MESSAGES).step_by(BATCH) {
            publish(&twine, first).await;
            // With the others held up, it would not come.
            for number in first..first + BATCH {
                expect(&mut quick, number).await;
            }
        }
        let grown = hub.peak_memory() - before;
        let allowed = TAIL + WORK + N_STOPPED as u64 * A_CONNECTION;
        let backlog = (N_STOPPED * N_MESSAGES * SIZE) as u64;
        assert!(allowed < backlog / 3, "this tells nothing");
        assert!(grown < allowed, "the hub has grown by {grown} bytes, for {backlog} that were not read");

        for (_, reader) in &mut readers {
            for number in 0..N_MESSAGES {
                expect(reader, number).await;
            }
        }
        hub.end();
    })
    .await
    .expect("it comes to an end");
}

#[tokio::test]
async fn a_reader_that_stays_stuck_is_cut_and_goes_on_from_its_cursor() {
    const N_MESSAGES: usize = 1_024;
    timeout(PATIENCE, async {
        let mut hub = Hub::new(&["--write-timeout", "500ms"]);
        hub.start().await;
        let network = Network::steady(hub.address());
        let twine = hub.twine().build().unwrap();
        let (_client, mut stuck) = stopped(&network.url()).await;
        for first in (0..N_MESSAGES).step_by(BATCH) {
            publish(&twine, first).await;
        }
        // It is the hub that ends this: the reader does nothing.
        while hub.metric("twine_errors_total{code=\"too_slow\"}").await == 0 {}
        while hub.metric("twine_connections").await > 0 {}
        for number in 0..N_MESSAGES {
            expect(&mut stuck, number).await;
        }
        publish(&twine, N_MESSAGES).await;
        expect(&mut stuck, N_MESSAGES).await;
        hub.end();
    })
    .await
    .expect("it comes to an end");
}
