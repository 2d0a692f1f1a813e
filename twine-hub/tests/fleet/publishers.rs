//! Backends that publish all the time, each message through whichever hub comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use twine_protocol::ErrorCode;
use twine_server_sdk::{Error, ErrorKind, Message, RetryPolicy, Twine};

use crate::hub::Hub;
use crate::ledger::{Ledger, ROOMS, write};

/// So late that only a hub that hangs has not answered by then: it is to give up long before.
const NEVER: Duration = Duration::from_mins(1);
/// Before a publisher that was refused tries the next hub.
const PAUSE: Duration = Duration::from_millis(20);
/// The first number of a publisher that gives each message up after one attempt; each of these is
/// its own publisher, for what was given up may arrive after what came later.
const WEAK: usize = 1_000;

/// What publishers share. Clones share it.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) ledger: Ledger,
    hubs: Arc<[Twine]>,
    n_refused: Arc<watch::Sender<usize>>,
    n_weak: Arc<AtomicUsize>,
    is_over: watch::Receiver<bool>,
}

impl Load {
    /// To be published through these hubs.
    pub(crate) fn new<'a>(hubs: impl Iterator<Item = &'a Hub>, is_over: watch::Receiver<bool>) -> Self {
        let once = |hub: &Hub| {
            hub.twine().request_timeout(NEVER).deadline(NEVER).retry(RetryPolicy::never()).build().unwrap()
        };
        Self {
            ledger: Ledger::new(),
            hubs: hubs.map(once).collect(),
            n_refused: Arc::new(watch::Sender::new(0)),
            n_weak: Arc::new(AtomicUsize::new(WEAK)),
            is_over,
        }
    }

    /// Waits until a hub has refused so many more publishes than are now.
    pub(crate) async fn until_refused(&self, n: usize) {
        let mut refused = self.n_refused.subscribe();
        let wanted = *refused.borrow() + n;
        refused.wait_for(|n| *n >= wanted).await.unwrap();
    }

    /// How often a hub has refused a publish.
    pub(crate) fn refused(&self) -> usize {
        *self.n_refused.borrow()
    }

    /// Publishes until it is over; each message as often as it takes, under one id.
    pub(crate) async fn insist(self, by: usize, mut draw: fastrand::Rng) {
        while !*self.is_over.borrow() {
            self.publish(by, ROOMS[draw.usize(..ROOMS.len())], draw.usize(..)).await;
        }
    }

    /// Publishes one message to a room until it is acknowledged, by one hub after the other.
    pub(crate) async fn publish(&self, by: usize, room: &'static str, first_hub: usize) {
        let number = self.ledger.begin(by, room);
        self.finish(number, room, first_hub).await;
    }

    /// Publishes a message that has a number already.
    pub(crate) async fn finish(&self, number: usize, room: &'static str, first_hub: usize) {
        let message = Message::new(room, &write(number)).unwrap();
        for attempt in 0.. {
            let hub = first_hub.wrapping_add(attempt) % self.hubs.len();
            match self.hubs[hub].publish_message(&message).await {
                Ok(published) => return self.ledger.acknowledge(number, &published),
                Err(error) => self.note(&error),
            }
            sleep(PAUSE).await;
        }
    }

    /// Publishes until it is over; each message once.
    pub(crate) async fn give_up_easily(self, mut draw: fastrand::Rng) {
        while !*self.is_over.borrow() {
            let room = ROOMS[draw.usize(..ROOMS.len())];
            let number = self.ledger.begin(self.n_weak.fetch_add(1, Ordering::Relaxed), room);
            let hub = &self.hubs[draw.usize(..self.hubs.len())];
            match hub.publish_message(&Message::new(room, &write(number)).unwrap()).await {
                Ok(published) => self.ledger.acknowledge(number, &published),
                Err(error) => {
                    self.ledger.give_up(number, &error);
                    self.note(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A hub may be gone, or say clearly that it can't; it may not keep silent.
    fn note(&self, error: &Error) {
        match error.kind() {
            ErrorKind::Connect | ErrorKind::Interrupted => {}
            ErrorKind::Unavailable => {
                let code = error.code();
                let is_clear = matches!(code, Some(ErrorCode::Unavailable | ErrorCode::Draining));
                assert!(is_clear, "{code:?}: {error}");
                self.n_refused.send_modify(|n| *n += 1);
            }
            _ => panic!("a publish failed otherwise than it may: {error:?}"),
        }
    }
}
