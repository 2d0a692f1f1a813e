//! Backends that publish all the time, one request after the other.

use std::time::Duration;

use tokio::sync::watch;
use twine_server_sdk::{Message, RetryPolicy, TwineBuilder};

use crate::ledger::{Ledger, Number, ROOMS, write};
use crate::readers::Progress;

/// What a publisher waits for is an answer or a broken connection: a request that it left to itself
/// could be stored after the next one.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// Messages that the quick readers may be behind. Those whose network is cut all the time take less than a hub
/// can; without a bound they would fall further behind with each kill, and the test would take ever longer.
const LEAD: usize = 300;

/// What publishers are told of the hub, of the readers, and of the end.
#[derive(Clone)]
pub(crate) struct Signals {
    pub(crate) is_up: watch::Receiver<bool>,
    pub(crate) is_over: watch::Receiver<bool>,
    pub(crate) progress: Progress,
}

impl Signals {
    /// Waits for the readers where they are far behind.
    async fn until_followed(&self, ledger: &Ledger) {
        self.progress.until_had(ledger.n_acknowledged().saturating_sub(LEAD)).await;
    }
}

/// Publishes until it is over; each message as often as it takes, under one id.
pub(crate) async fn insist(
    by: usize,
    twine: TwineBuilder,
    ledger: Ledger,
    mut draw: fastrand::Rng,
    signals: Signals,
) {
    let quickly = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(50)).unwrap();
    let twine = twine.request_timeout(NEVER).deadline(NEVER).retry(quickly).build().unwrap();
    while !*signals.is_over.borrow() {
        signals.until_followed(&ledger).await;
        let (numbers, messages) = some_messages(by, &ledger, &mut draw);
        let published = match &messages[..] {
            [message] => vec![twine.publish_message(message).await.unwrap()],
            messages => twine.publish_batch(messages).await.unwrap(),
        };
        for (number, published) in numbers.into_iter().zip(&published) {
            ledger.acknowledge(number, published);
        }
    }
}

/// Publishes until it is over; each message once.
pub(crate) async fn give_up_easily(
    by: usize,
    twine: TwineBuilder,
    ledger: Ledger,
    mut draw: fastrand::Rng,
    mut signals: Signals,
) {
    let twine = twine.request_timeout(NEVER).deadline(NEVER).retry(RetryPolicy::never()).build().unwrap();
    while !*signals.is_over.borrow() {
        signals.until_followed(&ledger).await;
        let (numbers, messages) = some_messages(by, &ledger, &mut draw);
        match twine.publish_batch(&messages).await {
            Ok(published) => {
                for (number, published) in numbers.into_iter().zip(&published) {
                    assert!(!published.duplicate, "message {number} was published once");
                    ledger.acknowledge(number, published);
                }
            }
            Err(error) => {
                for number in numbers {
                    ledger.give_up(number, &error);
                }
                // The next start of the hub: until then each would fail the same way.
                tokio::select! {
                    changed = signals.is_up.changed() => changed.unwrap(),
                    over = signals.is_over.changed() => over.unwrap(),
                }
            }
        }
    }
}

fn some_messages(by: usize, ledger: &Ledger, draw: &mut fastrand::Rng) -> (Vec<Number>, Vec<Message>) {
    let n = if draw.u8(..) < 64 { draw.usize(2..8) } else { 1 };
    let new = |_| {
        let room = ROOMS[draw.usize(..ROOMS.len())];
        let number = ledger.begin(by, room);
        (number, Message::new(room, &write(number)).unwrap())
    };
    (0..n).map(new).unzip()
}
