//! Subscribers, and what they got.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use twine_client::{Client, Event, State, SubscribeOptions, Subscription};

use crate::history::History;
use crate::ledger::{Number, read};

/// Before a client in a hurry, that lost its hub, tries it again, at the latest.
const PAUSE: Duration = Duration::from_millis(100);

/// What readers know of a room's end: the number of its last message, once there is one.
pub(crate) type Last = watch::Receiver<Option<Number>>;

/// How long clients wait for their next attempt when they lost their hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As long as they are told to.
    Patient,
    /// Hardly.
    Hurried,
}

/// How often a client was without a hub, and for how long: until it had one, and until something came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outages {
    pub(crate) n: usize,
    pub(crate) longest_alone: Duration,
    pub(crate) longest: Duration,
    since: Option<Instant>,
}

impl Outages {
    /// Those of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            n: self.n + other.n,
            longest_alone: self.longest_alone.max(other.longest_alone),
            longest: self.longest.max(other.longest),
            since: None,
        }
    }
}

/// A client, and how it fares.
struct Connection {
    client: Client,
    outages: Arc<Mutex<Outages>>,
    /// Ends with it.
    _watch: JoinSet<()>,
}

impl Connection {
    fn start(url: &str, manners: Manners) -> Self {
        let client = Client::builder(url).start().unwrap();
        let outages = Arc::new(Mutex::new(Outages::default()));
        let (mut states, woken, noted) = (client.states(), client.clone(), outages.clone());
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            while let Some(state) = states.next().await {
                {
                    let mut outages = noted.lock().unwrap();
                    match (&state, outages.since) {
                        (State::Reconnecting { .. }, None) => {
                            outages.since = Some(Instant::now());
                            outages.n += 1;
                        }
                        (State::Connected, Some(since)) => {
                            outages.longest_alone = since.elapsed().max(outages.longest_alone);
                        }
                        _ => {}
                    }
                }
                if !matches!(state, State::Reconnecting { .. }) {
                    continue;
                }
                if manners == Manners::Hurried {
                    sleep(PAUSE).await;
                    woken.wake().await;
                }
            }
        });
        Self { client, outages, _watch: watch }
    }

    /// Something has come: where that is after an outage, the outage is over. What was still queued
    /// when a connection was lost comes before there is the next one.
    fn is_served(&self) {
        if self.client.state() == State::Connected {
            let mut outages = self.outages.lock().unwrap();
            if let Some(since) = outages.since.take() {
                outages.longest = since.elapsed().max(outages.longest);
            }
        }
    }
}

/// Takes the next event; the number of a message.
async fn take(
    connection: &Connection,
    subscription: &mut Subscription,
    history: &mut History,
) -> Option<Number> {
    let event = subscription.recv().await;
    connection.is_served();
    match event {
        Some(Ok(Event::Message(message))) => {
            let number = read(&serde_json::from_str::<String>(message.data.get()).unwrap());
            history.message(message.position, number);
            Some(number)
        }
        Some(Ok(Event::Gap(gap))) => {
            history.gap(gap.from, gap.to);
            None
        }
        other => panic!("{} reader of {}: no event but {other:?}", history.reader, history.room),
    }
}

/// A client that subscribes one room at one hub, and stays.
pub(crate) struct Staying {
    connection: Connection,
    subscription: Subscription,
    history: History,
}

impl Staying {
    pub(crate) async fn subscribe(url: &str, room: &'static str, manners: Manners) -> Self {
        let connection = Connection::start(url, manners);
        let subscription = connection.client.subscribe(room, SubscribeOptions::default()).await.unwrap();
        let history = History::new("staying", room, subscription.position().clone());
        Self { connection, subscription, history }
    }

    /// Reads up to the room's last message.
    pub(crate) async fn read(mut self, last: Last) -> (History, Outages) {
        loop {
            let number = take(&self.connection, &mut self.subscription, &mut self.history).await;
            if number.is_some() && number == *last.borrow() {
                let outages = *self.connection.outages.lock().unwrap();
                return (self.history, outages);
            }
        }
    }
}

/// A client after the other, each at the next hub, of which each reads a little of one room and
/// leaves its cursor to the next.
pub(crate) async fn wander(
    urls: Vec<String>,
    room: &'static str,
    mut draw: fastrand::Rng,
    last: Last,
) -> (History, Outages) {
    let mut history: Option<History> = None;
    for url in urls.iter().cycle() {
        let connection = Connection::start(url, Manners::Hurried);
        let after = history.as_ref().map(History::cursor);
        let options = SubscribeOptions { after, ..SubscribeOptions::default() };
        let mut subscription = connection.client.subscribe(room, options).await.unwrap();
        let start = subscription.position().clone();
        let mut so_far = match history {
            None => History::new("wandering", room, start),
            Some(mut so_far) => {
                // A loss is told again by the first event.
                if subscription.recovered() != Some(false) {
                    so_far.again(start);
                }
                so_far
            }
        };
        for _ in 0..draw.usize(1..40) {
            let number = take(&connection, &mut subscription, &mut so_far).await;
            if number.is_some() && number == *last.borrow() {
                // It never stays for long enough to count.
                return (so_far, Outages::default());
            }
        }
        history = Some(so_far);
    }
    unreachable!("there are hubs")
}
