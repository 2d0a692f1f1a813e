//! Backends that publish all the time, each message through whichever hub comes next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use twine_protocol::ErrorCode;
use twine_server_sdk::{Error, ErrorKind, Message, RetryPolicy, Twine};

use crate::hub::KEY;
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
    longest_refusal: Arc<Mutex<Duration>>,
    /// Whether what says no may be the balancer, which does not say why.
    is_balanced: bool,
    is_over: watch::Receiver<bool>,
}

/// A publisher that asks once, and waits for what it is told.
fn once(url: &str) -> Twine {
    let builder = Twine::builder(url, KEY).no_proxy();
    builder.request_timeout(NEVER).deadline(NEVER).retry(RetryPolicy::never()).build().unwrap()
}

impl Load {
    /// To be published through what is at these addresses.
    pub(crate) fn new(urls: &[String], is_balanced: bool, is_over: watch::Receiver<bool>) -> Self {
        Self {
            ledger: Ledger::new(),
            hubs: urls.iter().map(|url| once(url)).collect(),
            n_refused: Arc::new(watch::Sender::new(0)),
            n_weak: Arc::new(AtomicUsize::new(WEAK)),
            longest_refusal: Arc::default(),
            is_balanced,
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

    /// Publishes through one hub until that refuses; each message once.
    pub(crate) async fn until_refused_at(&self, url: &str) {
        let hub = once(url);
        while self.try_once(&hub, ROOMS[0]).await.is_ok() {}
    }

    /// How long a publisher has waited at most to be told no.
    pub(crate) fn longest_refusal(&self) -> Duration {
        *self.longest_refusal.lock().unwrap()
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
            let since = Instant::now();
            match self.hubs[hub].publish_message(&message).await {
                Ok(published) => return self.ledger.acknowledge(number, &published),
                Err(error) => self.note(&error, since),
            }
            sleep(PAUSE).await;
        }
    }

    /// Publishes until it is over; each message once.
    pub(crate) async fn give_up_easily(self, mut draw: fastrand::Rng) {
        while !*self.is_over.borrow() {
            let hub = &self.hubs[draw.usize(..self.hubs.len())];
            if self.try_once(hub, ROOMS[draw.usize(..ROOMS.len())]).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    /// Publishes a new message, and gives it up where that fails.
    async fn try_once(&self, hub: &Twine, room: &'static str) -> Result<(), ()> {
        let number = self.ledger.begin(self.n_weak.fetch_add(1, Ordering::Relaxed), room);
        let since = Instant::now();
        match hub.publish_message(&Message::new(room, &write(number)).unwrap()).await {
            Ok(published) => {
                self.ledger.acknowledge(number, &published);
                Ok(())
            }
            Err(error) => {
                self.ledger.give_up(number, &error);
                self.note(&error, since);
                Err(())
            }
        }
    }

    /// A hub may be gone, or say clearly that it can't; it may not keep silent.
    fn note(&self, error: &Error, since: Instant) {
        let mut longest = self.longest_refusal.lock().unwrap();
        *longest = since.elapsed().max(*longest);
        drop(longest);
        match error.kind() {
            ErrorKind::Connect | ErrorKind::Interrupted => {}
            ErrorKind::Unavailable => {
                let is_clear = match error.code() {
                    Some(ErrorCode::Unavailable | ErrorCode::Draining) => error.retry_after().is_some(),
                    code => code.is_none() && self.is_balanced,
                };
                assert!(
                    is_clear,
                    "{:?}, to come back after {:?}: {error}",
                    error.code(),
                    error.retry_after()
                );
                self.n_refused.send_modify(|n| *n += 1);
            }
            _ => panic!("a publish failed otherwise than it may: {error:?}"),
        }
    }
}
