//! Subscribers, and what they got.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use twine_client::{Client, Event, State, SubscribeOptions, Subscription};
use twine_protocol::Position;

use crate::ledger::{Number, Place, read};
use crate::scenario::Losses;

/// Before a client that lost its hub tries it again, at the latest.
const PAUSE: Duration = Duration::from_millis(100);

/// What one reader got of one room, in the order in which it came.
#[derive(Debug)]
pub(crate) struct Sequence {
    reader: &'static str,
    pub(crate) room: &'static str,
    start: Position,
    places: Vec<Place>,
    n_gaps: usize,
}

/// What readers know of a room's end: the number of its last message, once there is one.
pub(crate) type Last = watch::Receiver<Option<Number>>;

/// A client that does not wait long for its next attempt.
struct Hurried {
    client: Client,
    /// Ends with it.
    _wakes: JoinSet<()>,
}

impl Hurried {
    fn start(url: &str) -> Self {
        let client = Client::builder(url).start().unwrap();
        let (mut states, woken) = (client.states(), client.clone());
        let mut wakes = JoinSet::new();
        wakes.spawn(async move {
            while let Some(state) = states.next().await {
                if matches!(state, State::Reconnecting { .. }) {
                    sleep(PAUSE).await;
                    woken.wake().await;
                }
            }
        });
        Self { client, _wakes: wakes }
    }
}

impl Sequence {
    fn new(reader: &'static str, room: &'static str, subscription: &Subscription) -> Self {
        Self { reader, room, start: subscription.position().clone(), places: Vec::new(), n_gaps: 0 }
    }

    /// Takes the next event; the number of a message.
    async fn take(&mut self, subscription: &mut Subscription) -> Option<Number> {
        match subscription.recv().await {
            Some(Ok(Event::Message(message))) => {
                let number = read(&serde_json::from_str::<String>(message.data.get()).unwrap());
                self.places.push((message.position, number));
                Some(number)
            }
            Some(Ok(Event::Gap(_))) => {
                self.n_gaps += 1;
                None
            }
            other => panic!("{} reader of {}: no event but {other:?}", self.reader, self.room),
        }
    }

    /// Where it goes on.
    fn cursor(&self) -> Position {
        self.places.last().map_or_else(|| self.start.clone(), |(position, _)| position.clone())
    }

    /// It has every message of the room's log after its start, once and in order. So what it was told
    /// to be lost is nowhere, and that may be only where the scenario allows it.
    pub(crate) fn check(&self, log: &[Place], losses: Losses) {
        let Self { reader, room, start, places, n_gaps } = self;
        let from = log.partition_point(|(position, _)| position <= start);
        for (at, (got, stored)) in places.iter().zip(&log[from..]).enumerate() {
            assert_eq!(got, stored, "{reader} reader of {room}, {at} messages after {start}");
        }
        assert_eq!(places.len(), log.len() - from, "{reader} reader of {room}, after {start}");
        assert!(*n_gaps == 0 || losses != Losses::Never, "{reader} reader of {room}: {n_gaps} gaps");
    }
}

/// A client that subscribes one room at one hub, and stays.
pub(crate) struct Staying {
    _client: Hurried,
    subscription: Subscription,
    sequence: Sequence,
}

impl Staying {
    pub(crate) async fn subscribe(url: &str, room: &'static str) -> Self {
        let client = Hurried::start(url);
        let subscription = client.client.subscribe(room, SubscribeOptions::default()).await.unwrap();
        let sequence = Sequence::new("staying", room, &subscription);
        Self { _client: client, subscription, sequence }
    }

    /// Reads up to the room's last message.
    pub(crate) async fn read(mut self, last: Last) -> Sequence {
        loop {
            let number = self.sequence.take(&mut self.subscription).await;
            if number.is_some() && number == *last.borrow() {
                return self.sequence;
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
) -> Sequence {
    let mut sequence: Option<Sequence> = None;
    for url in urls.iter().cycle() {
        let client = Hurried::start(url);
        let after = sequence.as_ref().map(Sequence::cursor);
        let options = SubscribeOptions { after, ..SubscribeOptions::default() };
        let mut subscription = client.client.subscribe(room, options).await.unwrap();
        let mut so_far = sequence.unwrap_or_else(|| Sequence::new("wandering", room, &subscription));
        so_far.n_gaps += usize::from(subscription.recovered() == Some(false));
        for _ in 0..draw.usize(1..40) {
            let number = so_far.take(&mut subscription).await;
            if number.is_some() && number == *last.borrow() {
                return so_far;
            }
        }
        sequence = Some(so_far);
    }
    unreachable!("there are hubs")
}
