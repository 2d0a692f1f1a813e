//! Clients of the native driver, and what they got.

use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use twine_client::{Client, Event, Message, State, SubscribeOptions, Subscription};
use twine_protocol::Position;

use crate::ledger::{Ledger, Number, Place, ROOMS, read};

/// What one reader got of one room, in the order in which it came.
#[derive(Debug)]
pub(crate) struct Sequence {
    reader: &'static str,
    pub(crate) room: &'static str,
    start: Position,
    places: Vec<Place>,
}

/// What readers work with.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) is_up: watch::Receiver<bool>,
    pub(crate) ledger: Ledger,
    pub(crate) progress: Progress,
    /// The numbers of the rooms' last messages, once there are.
    pub(crate) last: watch::Receiver<Option<[Number; ROOMS.len()]>>,
}

/// How far the quick readers have come in each room. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Progress(std::sync::Arc<watch::Sender<Vec<Stage>>>);

/// How far one of them has come.
#[derive(Clone, Default)]
struct Stage {
    at: [Position; ROOMS.len()],
    /// Messages that it has had, of all rooms.
    n: usize,
}

impl Progress {
    fn join(&self) -> usize {
        self.0.send_modify(|all| all.push(Stage::default()));
        self.0.borrow().len() - 1
    }

    fn note(&self, reader: usize, room: usize, position: &Position) {
        self.0.send_modify(|all| {
            let stage = &mut all[reader];
            stage.at[room] = position.clone();
            stage.n += 1;
        });
    }

    /// Waits until each of them has come so far.
    pub(crate) async fn until(&self, heads: &[Position; ROOMS.len()]) {
        let there = |stage: &Stage| stage.at.iter().zip(heads).all(|(at, head)| at >= head);
        self.0.subscribe().wait_for(|all| all.iter().all(there)).await.unwrap();
    }

    /// Waits until each of them has had so many messages.
    pub(crate) async fn until_had(&self, n: usize) {
        self.0.subscribe().wait_for(|all| all.iter().all(|stage| stage.n >= n)).await.unwrap();
    }
}

impl Sequence {
    fn new(reader: &'static str, room: &'static str, start: Position) -> Self {
        Self { reader, room, start, places: Vec::new() }
    }

    fn take(&mut self, message: &Message) -> Number {
        let number = read(&serde_json::from_str::<String>(message.data.get()).unwrap());
        self.places.push((message.position.clone(), number));
        number
    }

    /// Where it goes on.
    fn cursor(&self) -> Position {
        self.places.last().map_or_else(|| self.start.clone(), |(position, _)| position.clone())
    }

    /// It has every message of the room's log after its start, once and in order.
    pub(crate) fn check(&self, log: &[Place]) {
        let Self { reader, room, start, places } = self;
        let from = log.partition_point(|(position, _)| position <= start);
        for (at, (got, stored)) in places.iter().zip(&log[from..]).enumerate() {
            assert_eq!(got, stored, "{reader} reader of {room}, {at} messages after {start}");
        }
        assert_eq!(places.len(), log.len() - from, "{reader} reader of {room}, after {start}");
    }
}

/// A client that does not wait for its next attempt where the hub is up.
struct Hurried {
    client: Client,
    /// Ends with it.
    _wakes: JoinSet<()>,
}

impl Surroundings {
    fn client(&self, url: &str) -> Hurried {
        let client = Client::builder(url).start().unwrap();
        let (mut states, mut is_up, woken) = (client.states(), self.is_up.clone(), client.clone());
        let mut wakes = JoinSet::new();
        wakes.spawn(async move {
            while let Some(state) = states.next().await {
                if matches!(state, State::Reconnecting { .. }) {
                    is_up.wait_for(|up| *up).await.unwrap();
                    woken.wake().await;
                }
            }
        });
        Hurried { client, _wakes: wakes }
    }

    fn is_last(&self, room: usize, number: Number) -> bool {
        self.last.borrow().is_some_and(|last| last[room] == number)
    }
}

fn index_of(room: &str) -> usize {
    ROOMS.iter().position(|name| *name == room).unwrap()
}

fn message(event: Option<Result<Event, twine_client::Error>>) -> Message {
    match event {
        Some(Ok(Event::Message(message))) => message,
        other => panic!("no message but {other:?}"),
    }
}

/// A client that subscribes all rooms, and stays.
pub(crate) struct Staying {
    reader: &'static str,
    surroundings: Surroundings,
    progress: usize,
    client: Hurried,
    subscriptions: Vec<Subscription>,
}

impl Staying {
    pub(crate) async fn subscribe(reader: &'static str, url: &str, surroundings: Surroundings) -> Self {
        let client = surroundings.client(url);
        let mut subscriptions = Vec::new();
        for room in ROOMS {
            subscriptions.push(client.client.subscribe(room, SubscribeOptions::default()).await.unwrap());
        }
        let progress = surroundings.progress.join();
        Self { reader, surroundings, progress, client, subscriptions }
    }

    /// Reads each room up to its last message.
    pub(crate) async fn read(self) -> Vec<Sequence> {
        let Self { reader, surroundings, progress, client: _client, subscriptions } = self;
        let sequence = |(room, subscription): (_, &Subscription)| {
            Sequence::new(reader, room, subscription.position().clone())
        };
        let mut sequences: Vec<_> = ROOMS.into_iter().zip(&subscriptions).map(sequence).collect();
        let mut events = select_all(subscriptions);
        let mut n_left = ROOMS.len();
        while n_left > 0 {
            let message = message(events.next().await);
            let room = index_of(message.room.as_str());
            let number = sequences[room].take(&message);
            surroundings.progress.note(progress, room, &message.position);
            n_left -= usize::from(surroundings.is_last(room, number));
        }
        sequences
    }
}

/// A client that subscribes one room, and reads one message while the hub acknowledges several, until
/// the end is in sight.
pub(crate) struct Slow {
    surroundings: Surroundings,
    client: Hurried,
    subscription: Subscription,
}

impl Slow {
    const PACE: usize = 10;

    pub(crate) async fn subscribe(url: &str, room: &str, surroundings: Surroundings) -> Self {
        let client = surroundings.client(url);
        let subscription = client.client.subscribe(room, SubscribeOptions::default()).await.unwrap();
        Self { surroundings, client, subscription }
    }

    /// Reads up to the last message.
    pub(crate) async fn read(self) -> Vec<Sequence> {
        let Self { surroundings, client: _client, mut subscription } = self;
        let room = index_of(subscription.room().as_str());
        let mut sequence = Sequence::new("slow", ROOMS[room], subscription.position().clone());
        let mut last = surroundings.last.clone();
        loop {
            let number = sequence.take(&message(subscription.recv().await));
            if surroundings.is_last(room, number) {
                return vec![sequence];
            }
            tokio::select! {
                () = surroundings.ledger.until_more(Self::PACE) => {}
                over = last.wait_for(Option::is_some) => drop(over.unwrap()),
            }
        }
    }
}

/// A client after the other, each of which reads a little of one room, and leaves its cursor to the
/// next.
pub(crate) async fn come_and_go(
    url: String,
    room: &'static str,
    mut draw: fastrand::Rng,
    surroundings: Surroundings,
) -> Vec<Sequence> {
    let mut sequence: Option<Sequence> = None;
    loop {
        let client = surroundings.client(&url);
        let after = sequence.as_ref().map(Sequence::cursor);
        let options = SubscribeOptions { after, ..SubscribeOptions::default() };
        let mut subscription = client.client.subscribe(room, options).await.unwrap();
        let start = subscription.position();
        let mut so_far = sequence.unwrap_or_else(|| Sequence::new("coming and going", room, start.clone()));
        assert_eq!(*start, so_far.cursor());
        assert_ne!(subscription.recovered(), Some(false));
        for _ in 0..draw.usize(1..60) {
            let number = so_far.take(&message(subscription.recv().await));
            if surroundings.is_last(index_of(room), number) {
                return vec![so_far];
            }
        }
        if draw.bool() {
            client.client.disconnect().await;
        }
        sequence = Some(so_far);
    }
}
