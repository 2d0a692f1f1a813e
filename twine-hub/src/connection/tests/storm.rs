//! Many who come back at once, and a hub that is busy with them.

use std::sync::mpsc::channel;

use futures_util::future::join_all;
use twine_protocol::Offset;

use super::*;
use crate::store::observed::Observed;
use crate::store::{Opened, Record};

impl Client {
    /// Says `connect`; false where the client is told to come later.
    async fn is_let_in(&mut self) -> bool {
        self.say(r#"{"type":"connect"}"#).await;
        match self.next().await {
            Frame::Connected(_) => true,
            Frame::Disconnect(told) => {
                assert_eq!(told.code, ErrorCode::Full);
                assert!(told.retry < 3_000, "{} ms", told.retry);
                assert_eq!(self.closed().await, 1013);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    /// Subscribes after `start` and takes all up to `end`.
    async fn is_brought(&mut self, start: &Position, end: &Position) {
        self.subscribe_after("chat", start).await;
        assert!(matches!(self.next().await, Frame::Subscribed(told) if told.recovered == Some(true)));
        self.takes(start, end).await;
    }

    async fn takes(&mut self, start: &Position, end: &Position) {
        for offset in start.offset.get() + 1..=end.offset.get() {
            assert!(matches!(self.next().await, Frame::Message(message) if message.offset.get() == offset));
        }
    }
}

/// While others wait for the store, who comes new is told to come later; who is there is served as
/// ever. When the store answers, all get what they missed.
#[tokio::test]
async fn who_comes_to_a_busy_hub_comes_later_and_all_are_current_in_the_end() {
    let kind = Kind::Memory { max_bytes: usize::MAX };
    let Opened { writer, reader } =
        store::open(&store::Options { kind: kind.clone(), retention: Retention::Forever }).unwrap();
    let (reads, read) = channel();
    let (gate, closed) = channel::<()>();
    let wait = move |_: &[Record]| {
        // The test listens to the first only.
        let _ = reads.send(());
        // Nothing is ever sent: this ends when the gate is dropped.
        let _ = closed.recv();
    };
    let opened = Opened { writer, reader: Box::new(Observed { reader, observe: wait }) };
    let telemetry = Arc::new(Telemetry::default());
    let nothing_in_memory = rooms::Options { tail_bytes: 0, ..rooms::Options::default() };
    let rooms = Rooms::start(opened, Retention::Forever, &nothing_in_memory, telemetry.clone()).unwrap();
    let bench = Bench::over(rooms, &kind, &Options { max_waiting: 1, ..Options::default() }, telemetry);
    bench.publish_many("chat", 100, "missed").await;
    let end = bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().head;
    let start = Position { offset: Offset::ZERO, ..end.clone() };
    // Publishers are answered before memory is trimmed; until then reads would not come to the store.
    while bench.telemetry.rooms.get() > 0 {
        tokio::task::yield_now().await;
    }

    let mut there = bench.client().await;
    there.connect().await;
    let mut first = bench.client().await;
    assert!(first.is_let_in().await);
    first.subscribe_after("chat", &start).await;
    read.recv().unwrap();
    let mut sent_away = 0;
    for _ in 0..30 {
        let mut late = bench.client().await;
        sent_away += u64::from(!late.is_let_in().await);
    }
    assert_eq!(sent_away, 30);
    there.say(r#"{"type":"subscribe","id":1,"room":"chat"}"#).await;
    assert!(matches!(there.next().await, Frame::Subscribed(told) if told.offset == end.offset));

    drop(gate);
    assert!(matches!(first.next().await, Frame::Subscribed(told) if told.recovered == Some(true)));
    first.takes(&start, &end).await;
    // All at once, and without the wait that they are asked for.
    let (bench, start, end) = (&bench, &start, &end);
    let come_back = |_| async move {
        let mut times = 0;
        loop {
            let mut client = bench.client().await;
            if client.is_let_in().await {
                client.is_brought(start, end).await;
                return (client, times);
            }
            times += 1;
        }
    };
    let back = join_all((0..30).map(come_back)).await;
    sent_away += back.iter().map(|(_, times)| times).sum::<u64>();
    bench.publish("chat", r#""live""#).await;
    for (mut client, _) in back {
        assert_eq!(client.data().await, r#""live""#);
    }
    assert_eq!(there.data().await, r#""live""#);
    assert_eq!((bench.errors(ErrorCode::Full), bench.telemetry.waiting.get()), (sent_away, 0));
}
