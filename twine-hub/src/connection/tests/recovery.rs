//! What who comes back is brought, how much of it, and from where: memory, the store, or neither.

use std::sync::atomic::{AtomicUsize, Ordering};

use twine_protocol::{Lost, Offset, RoomName, Subscribed};

use super::*;
use crate::store::observed::Observed;
use crate::store::page::Recovery;
use crate::store::{Opened, Record};

const HOUR: Duration = Duration::from_hours(1);

/// Options with these limits.
fn limits(max_messages: u64, max_age: Duration) -> Options {
    Options { recovery: Recovery { max_messages, max_age }, ..Options::default() }
}

fn keeping(tail_bytes: usize) -> rooms::Options {
    rooms::Options { tail_bytes, ..rooms::Options::default() }
}

const MEMORY: Kind = Kind::Memory { max_bytes: usize::MAX };

impl Client {
    async fn subscribed(&mut self) -> Subscribed {
        match self.next().await {
            Frame::Subscribed(subscribed) => subscribed,
            other => panic!("not subscribed: {other:?}"),
        }
    }

    /// Reads on from `cursor` to `end`, checking that all in between comes once and in order, but for
    /// losses that are told; says how many messages came, and how many were lost.
    async fn follow(&mut self, mut cursor: Position, end: &Position) -> (u64, u64) {
        let (mut came, mut lost) = (0, 0);
        while cursor != *end {
            match self.next().await {
                Frame::Message(message) => {
                    assert_eq!(message.offset, cursor.offset.next());
                    cursor.offset = message.offset;
                    came += 1;
                }
                Frame::Epoch(crossing) => {
                    assert_eq!(crossing.prev, cursor);
                    cursor = Position { epoch: crossing.epoch, offset: Offset::ZERO };
                }
                Frame::Gap(gap) => {
                    assert_eq!((&gap.from, gap.reason), (&cursor, GapReason::Expired));
                    lost += gap.count.unwrap();
                    cursor = gap.to;
                }
                Frame::Ping => {}
                other => panic!("{other:?}"),
            }
        }
        (came, lost)
    }
}

fn start(subscribed: &Subscribed) -> Position {
    Position { epoch: subscribed.epoch.clone(), offset: subscribed.offset }
}

#[tokio::test]
async fn who_missed_more_than_recovery_max_messages_is_told_and_goes_on_after_it() {
    // From memory, and from the store.
    for tail_bytes in [usize::MAX, 0] {
        let bench = Bench::new(MEMORY, &keeping(tail_bytes), &limits(5, HOUR));
        let mut all = Vec::new();
        for n in 1..=10 {
            all.push(bench.publish("chat", &n.to_string()).await);
        }
        let mut client = bench.client().await;
        client.connect().await;
        // The fifth message before the head is still within the limit.
        client.subscribe_after("chat", &all[4]).await;
        let told = client.subscribed().await;
        assert_eq!((start(&told), told.recovered, told.lost), (all[4].clone(), Some(true), None));
        client.follow(all[4].clone(), &all[9]).await;

        client.subscribe_after("chat", &all[1]).await;
        let told = client.subscribed().await;
        assert_eq!((start(&told), told.recovered), (all[4].clone(), Some(false)));
        assert_eq!(told.reason, Some(GapReason::Limit));
        let lost = Lost { from: all[1].clone(), to: all[4].clone(), count: Some(3) };
        assert_eq!(told.lost, Some(lost));
        let next = bench.publish("chat", "11").await;
        assert_eq!(client.follow(start(&told), &next).await, (6, 0));
        bench.end().await;
    }
}

#[tokio::test]
async fn what_is_older_than_recovery_max_age_is_told_and_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let room: RoomName = "chat".parse().unwrap();
    let options = store::Options { kind: kind.clone(), retention: Retention::Forever };
    let mut opened = store::open(&options).unwrap();
    let first = opened.writer.epoch().clone();
    opened.writer.begin().unwrap();
    // Four messages of 1970.
    for n in 1..=4 {
        let offset = Offset::new(n).unwrap();
        let data = RawValue::from_string(n.to_string()).unwrap();
        opened.writer.append(&room, &Record { offset, time: n, id: None, sender: None, data }).unwrap();
    }
    opened.writer.commit().unwrap();
    drop(opened);
    let bench = Bench::new(kind, &rooms::Options::default(), &limits(1_000, HOUR));
    let fresh = bench.publish("chat", "5").await;
    let mut client = bench.client().await;
    client.connect().await;
    let cursor = Position { epoch: first.clone(), offset: Offset::new(1).unwrap() };
    client.subscribe_after("chat", &cursor).await;
    let told = client.subscribed().await;
    assert_eq!((told.recovered, told.reason), (Some(false), Some(GapReason::Limit)));
    let lost = told.lost.clone().unwrap();
    assert_eq!((lost.from, lost.to, lost.count), (cursor, start(&told), Some(3)));
    assert_eq!(client.follow(start(&told), &fresh).await, (1, 0));
    // Who had all of them has missed nothing.
    let cursor = Position { epoch: first, offset: Offset::new(4).unwrap() };
    client.subscribe_after("chat", &cursor).await;
    let told = client.subscribed().await;
    assert_eq!((start(&told), told.recovered), (cursor.clone(), Some(true)));
    assert_eq!(client.follow(cursor, &fresh).await, (1, 0));
    bench.end().await;
}

/// The limits count once, when the subscribe is answered; what is lost after that is told as it is.
#[tokio::test]
async fn a_loss_that_is_found_later_comes_as_a_gap_also_after_a_limit() {
    let kind = Kind::Memory { max_bytes: 300 << 10 };
    let bench = Bench::new(kind, &keeping(0), &limits(100, HOUR));
    let first = bench.publish("chat", "1").await;
    bench.publish_many("chat", 149, &"x".repeat(1_000)).await;
    let socket = bench.socket_with(small_buffers);
    let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    client.connect().await;
    client.subscribe_after("chat", &first).await;
    let told = client.subscribed().await;
    assert_eq!((told.offset.get(), told.reason), (50, Some(GapReason::Limit)));
    // It takes no more than its buffers do, while the store has no room for what it has not taken.
    bench.publish_many("chat", 1_000, &"x".repeat(1_000)).await;
    let end = Position { offset: Offset::new(1_150).unwrap(), ..first };
    let (came, lost) = client.follow(start(&told), &end).await;
    assert_eq!(came + lost, 1_100);
    assert!(lost > 0);
    bench.end().await;
}

/// A hundred thousand messages wait for a client that takes none: the hub reads what the socket has
/// room for and a page beyond it, and the rest when the client takes it.
#[tokio::test]
async fn what_waits_for_a_reader_is_never_all_in_memory() {
    const MESSAGES: u64 = 100_000;
    let opened = store::open(&store::Options { kind: MEMORY, retention: Retention::Forever }).unwrap();
    let bytes = Arc::<AtomicUsize>::default();
    let counted = bytes.clone();
    let count = move |records: &[Record]| {
        counted.fetch_add(records.iter().map(Record::size).sum(), Ordering::SeqCst);
    };
    let reader = Box::new(Observed { reader: opened.reader, observe: count });
    let telemetry = Arc::new(Telemetry::default());
    let opened = Opened { writer: opened.writer, reader };
    let rooms = Rooms::start(opened, Retention::Forever, &keeping(0), telemetry.clone()).unwrap();
    let options = Options { shards: 1, heartbeat: HOUR, write_timeout: HOUR, ..limits(MESSAGES, HOUR) };
    let bench = Bench::over(rooms, &MEMORY, &options, telemetry);
    for _ in 0..100 {
        bench.publish_many("chat", MESSAGES / 100, &"x".repeat(100)).await;
    }
    let end = bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().head;
    let socket = bench.socket_with(|hub, client| {
        socket2::SockRef::from(hub).set_send_buffer_size(512 << 10).unwrap();
        socket2::SockRef::from(client).set_recv_buffer_size(512 << 10).unwrap();
    });
    let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    client.connect().await;
    let first = Position { offset: Offset::ZERO, ..end.clone() };
    client.subscribe_after("chat", &first).await;
    let told = client.subscribed().await;
    assert_eq!((told.offset, told.recovered), (Offset::ZERO, Some(true)));
    // Turns of the same shard, and reads of the same thread: it would have gone on by now.
    let mut witness = bench.subscriber("other").await;
    for n in 0..200 {
        let position = bench.publish("other", &n.to_string()).await;
        assert_eq!(witness.data().await, n.to_string());
        let before = Position { offset: Offset::new(position.offset.get() - 1).unwrap(), ..position.clone() };
        witness.subscribe_after("other", &before).await;
        witness.subscribed().await;
        witness.follow(before, &position).await;
    }
    let held = bytes.load(Ordering::SeqCst);
    assert!(held < 4 << 20, "{held} bytes were read for a client that takes none");
    assert_eq!(client.follow(first, &end).await, (MESSAGES, 0));
    drop((client, witness));
    bench.end().await;
}

#[tokio::test]
async fn a_rewind_across_epochs_has_no_seam_with_what_is_published_meanwhile() {
    const LIVE: u64 = 300;
    for tail_bytes in [usize::MAX, 2_000, 0] {
        let folder = tempfile::tempdir().unwrap();
        let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
        let bench = Bench::new(kind.clone(), &keeping(tail_bytes), &Options::default());
        let mut old = Vec::new();
        for n in 1..=30 {
            old.push(bench.publish("chat", &n.to_string()).await);
        }
        bench.end().await;
        let bench = Bench::new(kind, &keeping(tail_bytes), &Options::default());
        let epoch = bench.publish("chat", "0").await.epoch;
        let end = Position { epoch, offset: Offset::new(1 + LIVE).unwrap() };
        let publishing = async {
            for n in 0..LIVE {
                bench.publish("chat", &n.to_string()).await;
            }
        };
        let reading = async {
            for n in 0..20 {
                let mut client = bench.client().await;
                client.connect().await;
                let after = &old[10 + n];
                let after = format!(r#"{{"epoch":"{}","offset":{}}}"#, after.epoch, after.offset);
                let (ask, recovered) = match n % 4 {
                    0 => (r#""history":20"#.to_owned(), None),
                    // More than the room has.
                    1 => (r#""history":1000"#.to_owned(), None),
                    // The cursor is earlier, and the history is.
                    2 => (format!(r#""history":1,"after":{after}"#), Some(true)),
                    _ => (format!(r#""history":900,"after":{after}"#), Some(true)),
                };
                client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"chat",{ask}}}"#)).await;
                let told = client.subscribed().await;
                assert_eq!(told.recovered, recovered, "{ask}");
                let begin = start(&told);
                match n % 4 {
                    1 | 3 => assert_eq!((&begin.epoch, begin.offset), (&old[0].epoch, Offset::ZERO)),
                    2 => assert_eq!(begin, old[10 + n]),
                    _ => {}
                }
                client.follow(begin, &end).await;
            }
        };
        tokio::join!(publishing, reading);
        bench.end().await;
    }
}

/// A client has had from another shard what this one has not come to send yet.
#[tokio::test]
async fn who_is_ahead_of_a_busy_shard_is_told_no_loss_and_gets_nothing_twice() {
    use std::io::Read as _;
    use std::sync::atomic::AtomicUsize;

    use crate::connection::Place;
    use crate::connection::inbox::Event;
    use crate::connection::shard::{Shard, Surroundings};

    let bench = Bench::in_memory(&Options::default());
    let surroundings = Surroundings {
        rooms: bench.rooms.clone(),
        sessions: bench.sessions.clone(),
        permissions: None,
        telemetry: bench.telemetry.clone(),
    };
    let mut shard = Shard::new(surroundings, Options::default()).unwrap();
    let inbox = shard.inbox();
    let visit = |frames: &[String]| {
        let client = TcpStream::connect(bench.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = bench.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let read: Vec<u8> = frames.iter().flat_map(|frame| masked(frame)).collect();
        let caller = Caller { cookie: None, origin: "".into(), address: LOCAL };
        let place = Place(Arc::new(AtomicUsize::new(1)));
        inbox.push(Event::Adopt(
            place,
            Handover { socket, answer: Bytes::new(), read, is_compressed: false, caller },
        ));
        client
    };
    let mut events = mio::Events::with_capacity(64);
    let mut answer = |client: &mut TcpStream| {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(r#""head""#) {
            shard.turn(&mut events);
            let mut buffer = [0; 1024];
            if let Ok(n) = client.read(&mut buffer) {
                text.extend_from_slice(&buffer[..n]);
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let connect = r#"{"type":"connect"}"#.to_owned();
    let subscribe = r#"{"type":"subscribe","id":1,"room":"c"}"#.to_owned();
    let mut live = visit(&[connect.clone(), subscribe]);
    assert!(answer(&mut live).contains("subscribed"));
    // More than a shard sends in one turn.
    bench.publish_many("c", 200, &"x".repeat(60_000)).await;
    let epoch = bench.epoch("c").await;
    let after =
        format!(r#"{{"type":"subscribe","id":2,"room":"c","after":{{"epoch":"{epoch}","offset":200}}}}"#);
    let mut ahead = visit(&[connect, after]);
    let answer = answer(&mut ahead);
    assert!(answer.contains(r#""offset":200,"head""#) && answer.contains(r#""recovered":true"#), "{answer}");
    bench.end().await;
}
