//! Connections over real sockets, below HTTP: what each frame is answered, and that no client's
//! doing is another's undoing.

mod recovery;
mod sessions;
mod storm;

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use proptest::prelude::*;
use serde_json::value::RawValue;
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message as Ws;
use tungstenite::protocol::Role;
use twine_protocol::{Epoch, ErrorCode, GapReason, Position, ServerFrame, json};

use super::{Caller, Connections, Handover, Options};
use crate::auth::Permissions;
use crate::rooms::{self, NewMessage, Rooms};
use crate::session::Sessions;
use crate::store::{self, Kind, Retention};
use crate::telemetry::{Code, Telemetry};

type Frame = ServerFrame<twine_protocol::Data>;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Rooms and connections without HTTP around them.
struct Bench {
    rooms: Rooms,
    sessions: Sessions,
    options: Options,
    connections: Connections,
    telemetry: Arc<Telemetry>,
    listener: TcpListener,
}

struct Client(WebSocketStream<tokio::net::TcpStream>);

impl Bench {
    fn new(kind: Kind, rooms: &rooms::Options, options: &Options) -> Self {
        let telemetry = Arc::new(Telemetry::default());
        let store = store::Options { kind, retention: Retention::Forever };
        let rooms = Rooms::open(&store, rooms, telemetry.clone()).unwrap();
        Self::over(rooms, &store.kind, options, telemetry)
    }

    /// Connections over rooms that are open already.
    fn over(rooms: Rooms, sessions: &Kind, options: &Options, telemetry: Arc<Telemetry>) -> Self {
        let sessions =
            Sessions::open(sessions, crate::Config::default().sessions(), telemetry.clone()).unwrap();
        let connections = Connections::start(&rooms, &sessions, None, options, &telemetry).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { rooms, sessions, options: options.clone(), connections, telemetry, listener }
    }

    /// The same with connections of their own, for which this says what they may.
    fn with_permissions(self, permissions: &Permissions) -> Self {
        let Self { rooms, sessions, options, telemetry, .. } = &self;
        let connections = Connections::start(rooms, sessions, Some(permissions), options, telemetry).unwrap();
        Self { connections, ..self }
    }

    fn in_memory(options: &Options) -> Self {
        Self::new(Kind::Memory { max_bytes: usize::MAX }, &rooms::Options::default(), options)
    }

    /// A socket of the hub's, and the client's end of it.
    fn socket(&self) -> tokio::net::TcpStream {
        self.socket_with(|_, _| ())
    }

    /// The same, after `set` has set both ends.
    fn socket_with(&self, set: impl FnOnce(&TcpStream, &TcpStream)) -> tokio::net::TcpStream {
        self.socket_of(Caller { cookie: None, origin: "".into(), address: LOCAL }, set)
    }

    /// The same for somebody in particular.
    fn socket_of(&self, caller: Caller, set: impl FnOnce(&TcpStream, &TcpStream)) -> tokio::net::TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        set(&socket, &client);
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let place = self.connections.reserve().unwrap();
        self.connections.adopt(place, Handover { socket, read: Bytes::new(), caller });
        tokio::net::TcpStream::from_std(client).unwrap()
    }

    async fn client(&self) -> Client {
        Client(WebSocketStream::from_raw_socket(self.socket(), Role::Client, None).await)
    }

    /// A client that has said `connect` and subscribed to a room.
    async fn subscriber(&self, room: &str) -> Client {
        let mut client = self.client().await;
        client.connect().await;
        client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"{room}"}}"#)).await;
        assert!(matches!(client.next().await, Frame::Subscribed(s) if s.recovered.is_none()));
        client
    }

    async fn publish(&self, room: &str, data: &str) -> Position {
        let data = RawValue::from_string(data.to_owned()).unwrap();
        let message = NewMessage { room: room.parse().unwrap(), data, id: None, sender: None };
        let published = self.rooms.publish(vec![message]).await.unwrap().remove(0);
        Position { epoch: published.epoch, offset: published.offset }
    }

    /// Publishes that many messages of the same data at once.
    async fn publish_many(&self, room: &str, n: u64, text: &str) {
        let data = RawValue::from_string(format!("\"{text}\"")).unwrap();
        let message =
            || NewMessage { room: room.parse().unwrap(), data: data.clone(), id: None, sender: None };
        self.rooms.publish((0..n).map(|_| message()).collect()).await.unwrap();
    }

    fn errors(&self, code: ErrorCode) -> u64 {
        self.telemetry.errors.get_or_create(&Code { code: code.as_str() }).get()
    }

    /// Ends the hub and gives what it counted: a message is counted after it is written, so a client
    /// may have it before.
    async fn end(self) -> Arc<Telemetry> {
        self.connections.drain(Duration::from_secs(5)).await;
        self.sessions.close().await;
        self.rooms.close().await;
        self.telemetry
    }
}

/// Short, for what waits on it, and so shorter than a busy machine may stand still: what then ends
/// too early proves nothing, and is tried again, so many times.
const SHORT_HEARTBEAT: Duration = Duration::from_millis(300);
const ATTEMPTS: usize = 5;

/// So small that little can be on its way.
fn small_buffers(hub: &TcpStream, client: &TcpStream) {
    socket2::SockRef::from(hub).set_send_buffer_size(4096).unwrap();
    socket2::SockRef::from(client).set_recv_buffer_size(4096).unwrap();
}

/// A text frame as a client sends it, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame
}

impl Client {
    async fn say(&mut self, text: &str) {
        self.0.send(Ws::text(text)).await.unwrap();
    }

    async fn connect(&mut self) {
        self.say(r#"{"type":"connect"}"#).await;
        assert!(matches!(self.next().await, Frame::Connected(c) if !c.resumed && c.rooms.is_empty()));
    }

    async fn subscribe_after(&mut self, room: &str, after: &Position) {
        let Position { epoch, offset } = after;
        let after = format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#);
        self.say(&format!(r#"{{"type":"subscribe","id":1,"room":"{room}","after":{after}}}"#)).await;
    }

    /// The next frame of the protocol.
    async fn next(&mut self) -> Frame {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Ws::Text(text) => return json::decode_server(&text).unwrap(),
                Ws::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The data of the next frame, which is a message.
    async fn data(&mut self) -> String {
        match self.next().await {
            Frame::Message(message) => message.data.get().to_owned(),
            other => panic!("no message: {other:?}"),
        }
    }

    async fn error(&mut self) -> (Option<u64>, &'static str) {
        match self.next().await {
            Frame::Error(error) => (error.id, error.code.as_str()),
            other => panic!("no error: {other:?}"),
        }
    }

    /// The code that the connection ends with.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.0.next().await {
                Some(Ok(Ws::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_message_reaches_every_subscriber_of_its_room_and_nobody_else() {
    let bench = Bench::in_memory(&Options { shards: 2, ..Options::default() });
    let mut chat = Vec::new();
    for _ in 0..5 {
        chat.push(bench.subscriber("chat").await);
    }
    let mut other = bench.subscriber("other").await;
    for n in 0..3 {
        bench.publish("chat", &n.to_string()).await;
    }
    bench.publish("other", r#""marker""#).await;
    for client in &mut chat {
        for n in 0..3 {
            assert_eq!(client.data().await, n.to_string());
        }
    }
    assert_eq!(other.data().await, r#""marker""#);
    assert_eq!(bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().subscribers, 5);
    assert_eq!(bench.end().await.delivered.get(), 16);
}

#[tokio::test]
async fn what_breaks_the_protocol_is_answered_by_its_code_and_nobody_else_notices() {
    let bench = Bench::in_memory(&Options { max_frame: 1000, ..Options::default() });
    let mut witness = bench.subscriber("chat").await;
    let long = format!(r#"{{"type":"connect","scope":"{}"}}"#, "x".repeat(1000));
    let connect = r#"{"type":"connect"}"#;
    for (frames, error, close) in [
        (vec!["{"], "bad_frame", 4400),
        (vec!["[]"], "bad_frame", 4400),
        (vec![r#"{"type":"subscribe","id":1,"room":"chat"}"#], "bad_frame", 4400),
        (vec![r#"{"type":"ping"}"#], "bad_frame", 4400),
        (vec![connect, connect], "bad_frame", 4400),
        (vec![connect, r#"{"id":1}"#], "bad_frame", 4400),
        (vec![connect, r#"{"type":"subscribe","room":"chat"}"#], "bad_frame", 4400),
        (vec![connect, r#"{"type":"subscribe","id":-1,"room":"chat"}"#], "bad_frame", 4400),
        (vec![&long], "frame_too_big", 1009),
    ] {
        let mut client = bench.client().await;
        for frame in &frames {
            client.say(frame).await;
        }
        for _ in 1..frames.len() {
            assert!(matches!(client.next().await, Frame::Connected(_)));
        }
        assert_eq!(client.error().await, (None, error), "{frames:?}");
        assert_eq!(client.closed().await, close, "{frames:?}");
    }
    let mut client = bench.client().await;
    client.connect().await;
    client.0.send(Ws::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.error().await, (None, "bad_frame"));
    assert_eq!(client.closed().await, 4400);
    bench.publish("chat", "1").await;
    assert_eq!(witness.data().await, "1");
    bench.end().await;
}

#[tokio::test]
async fn a_request_that_can_not_be_met_is_refused_by_its_id_and_the_connection_goes_on() {
    let bench = Bench::in_memory(&Options { max_rooms: 3, ..Options::default() });
    let mut client = bench.subscriber("chat").await;
    client.say(r#"{"type":"publish","id":5}"#).await;
    assert_eq!(client.error().await, (Some(5), "unknown_frame"));
    client.say(r#"{"type":"subscribe","id":6,"room":""}"#).await;
    assert_eq!(client.error().await, (Some(6), "bad_room"));
    client.say(&format!(r#"{{"type":"subscribe","id":7,"room":"{}"}}"#, "x".repeat(256))).await;
    assert_eq!(client.error().await, (Some(7), "bad_room"));
    client.say(r#"{"type":"unsubscribe","id":8,"room":"never"}"#).await;
    assert_eq!(client.error().await, (Some(8), "not_subscribed"));
    for n in 0..10_000 {
        client.say(&format!(r#"{{"type":"subscribe","id":{},"room":"room {n}"}}"#, 100 + n)).await;
        match client.next().await {
            Frame::Subscribed(s) => assert!(n < 2 && s.id == 100 + n),
            Frame::Error(e) => {
                assert!(n >= 2 && e.id == Some(100 + n) && e.code.as_str() == "too_many_rooms");
            }
            other => panic!("{other:?}"),
        }
    }
    bench.publish("chat", "1").await;
    assert_eq!(client.data().await, "1");
    bench.end().await;
}

#[tokio::test]
async fn subscribing_again_answers_the_present_cursor_and_unsubscribing_ends_delivery() {
    let bench = Bench::in_memory(&Options::default());
    let mut client = bench.subscriber("chat").await;
    let position = bench.publish("chat", "1").await;
    assert_eq!(client.data().await, "1");
    client.say(r#"{"type":"subscribe","id":2,"room":"chat"}"#).await;
    let Frame::Subscribed(again) = client.next().await else { panic!("not subscribed") };
    assert_eq!((again.id, again.offset, again.recovered), (2, position.offset, None));
    bench.publish("chat", "2").await;
    assert_eq!(client.data().await, "2");
    client.say(r#"{"type":"unsubscribe","id":3,"room":"chat"}"#).await;
    assert!(matches!(client.next().await, Frame::Unsubscribed(u) if u.id == 3));
    bench.publish("chat", "3").await;
    client.say(r#"{"type":"unsubscribe","id":4,"room":"chat"}"#).await;
    assert_eq!(client.error().await, (Some(4), "not_subscribed"));
    assert_eq!(bench.telemetry.subscriptions.get(), 0);
    bench.end().await;
}

#[tokio::test]
async fn who_never_says_connect_is_closed() {
    let bench =
        Bench::in_memory(&Options { connect_timeout: Duration::from_millis(300), ..Options::default() });
    let mut silent = bench.client().await;
    assert_eq!(silent.error().await, (None, "connect_timeout"));
    assert_eq!(silent.closed().await, 4408);
    bench.end().await;
}

#[tokio::test]
async fn who_falls_silent_is_asked_and_then_closed() {
    let bench = Bench::in_memory(&Options { heartbeat: SHORT_HEARTBEAT, ..Options::default() });
    let mut asked = None;
    for _ in 0..ATTEMPTS {
        let mut client = bench.client().await;
        client.connect().await;
        match client.next().await {
            Frame::Ping => asked = Some(client),
            // Both were due at once.
            Frame::Error(error) if error.code == ErrorCode::HeartbeatTimeout => continue,
            other => panic!("{other:?}"),
        }
        break;
    }
    let mut client = asked.expect("a ping");
    client.say(r#"{"type":"pong"}"#).await;
    loop {
        match client.next().await {
            Frame::Ping => {}
            Frame::Error(error) => break assert_eq!(error.code.as_str(), "heartbeat_timeout"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.closed().await, 1012);
    bench.end().await;
}

#[tokio::test]
async fn a_cursor_goes_on_where_it_was_from_memory_and_from_the_store() {
    for tail_bytes in [usize::MAX, 0] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
        let mut first = bench.publish("chat", "1").await;
        for n in 2..=500 {
            bench.publish("chat", &n.to_string()).await;
        }
        let mut client = bench.client().await;
        client.connect().await;
        client.subscribe_after("chat", &first).await;
        let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
        assert_eq!((subscribed.offset, subscribed.recovered), (first.offset, Some(true)));
        assert_eq!(subscribed.head.offset.get(), 500);
        bench.publish("chat", "501").await;
        for n in 2..=501 {
            assert_eq!(client.data().await, n.to_string());
        }
        // From elsewhere: told so, and from here on nothing is missed.
        first.epoch = twine_protocol::Epoch::new("zzz").unwrap();
        client.subscribe_after("chat", &first).await;
        let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
        assert_eq!((subscribed.recovered, subscribed.reason), (Some(false), Some(GapReason::Unknown)));
        assert_eq!(subscribed.offset.get(), 501);
        bench.publish("chat", "502").await;
        assert_eq!(client.data().await, "502");
        bench.end().await;
    }
}

#[tokio::test]
async fn history_starts_that_many_messages_before_the_head() {
    for tail_bytes in [usize::MAX, 0] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
        for n in 1..=30 {
            bench.publish("chat", &n.to_string()).await;
        }
        let mut client = bench.client().await;
        client.connect().await;
        for (history, first) in [(5, 26), (1000, 1)] {
            client.say(&format!(r#"{{"type":"subscribe","id":1,"room":"chat","history":{history}}}"#)).await;
            let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
            assert_eq!((subscribed.offset.get(), subscribed.recovered), (first - 1, None));
            for n in first..=30 {
                assert_eq!(client.data().await, n.to_string());
            }
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn over_a_restart_the_cursor_crosses_into_the_new_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let bench = Bench::new(kind.clone(), &rooms::Options::default(), &Options::default());
    let first = bench.publish("chat", "1").await;
    let last = bench.publish("chat", "2").await;
    bench.end().await;
    let bench = Bench::new(kind, &rooms::Options::default(), &Options::default());
    bench.publish("chat", "3").await;
    let mut client = bench.client().await;
    client.connect().await;
    client.subscribe_after("chat", &first).await;
    let Frame::Subscribed(subscribed) = client.next().await else { panic!("not subscribed") };
    assert_eq!((subscribed.offset, subscribed.recovered), (first.offset, Some(true)));
    assert_eq!(client.data().await, "2");
    let Frame::Epoch(crossing) = client.next().await else { panic!("no crossing") };
    assert_eq!((crossing.prev, &crossing.epoch), (last, &subscribed.head.epoch));
    assert_eq!(client.data().await, "3");
    bench.publish("chat", "4").await;
    assert_eq!(client.data().await, "4");
    assert_eq!(bench.end().await.delivered.get(), 3, "a crossing is no message");
}

#[tokio::test]
async fn a_reader_that_stops_holds_nobody_up_and_misses_nothing() {
    for tail_bytes in [usize::MAX, 1 << 20] {
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let bench = Bench::new(
            Kind::Memory { max_bytes: usize::MAX },
            &options,
            &Options { shards: 1, ..Options::default() },
        );
        let mut slow = bench.subscriber("chat").await;
        let mut quick = bench.subscriber("chat").await;
        let filler = "x".repeat(60_000);
        // More than the sockets' buffers hold.
        for n in 0..400 {
            bench.publish("chat", &format!(r#""{n} {filler}""#)).await;
            assert!(quick.data().await.starts_with(&format!("\"{n} ")));
        }
        for n in 0..400 {
            assert!(slow.data().await.starts_with(&format!("\"{n} ")), "message {n}");
        }
        bench.publish("chat", "1").await;
        assert_eq!((slow.data().await, quick.data().await), ("1".into(), "1".into()));
        bench.end().await;
    }
}

#[tokio::test]
async fn a_reader_that_stays_stuck_is_closed() {
    let options = Options { write_timeout: Duration::from_millis(300), ..Options::default() };
    let bench = Bench::in_memory(&options);
    let mut stuck = bench.subscriber("chat").await;
    let filler = "x".repeat(60_000);
    for _ in 0..400 {
        bench.publish("chat", &format!("\"{filler}\"")).await;
    }
    while bench.telemetry.connections.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.errors(ErrorCode::TooSlow), 1);
    // What was on its way is still read, and then the connection is at its end.
    while let Some(Ok(_)) = stuck.0.next().await {}
    bench.end().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_is_not_taken_for_silent() {
    let bench = Bench::in_memory(&Options { heartbeat: SHORT_HEARTBEAT, ..Options::default() });
    // More than a reader with such buffers takes in many heartbeats.
    let position = bench.publish("chat", "0").await;
    bench.publish_many("chat", 2_000, &"x".repeat(4_000)).await;
    for _ in 0..ATTEMPTS {
        if reads_for_four_heartbeats_without_a_word(&bench, &position).await {
            return drop(bench.end().await);
        }
    }
    panic!("a reader that is slow was taken for silent");
}

async fn reads_for_four_heartbeats_without_a_word(bench: &Bench, after: &Position) -> bool {
    let socket = bench.socket_with(small_buffers);
    let mut slow = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    slow.connect().await;
    slow.subscribe_after("chat", after).await;
    let (mut heartbeats, mut offset) = (0, after.offset.get());
    while heartbeats < 4 {
        match slow.next().await {
            Frame::Subscribed(_) => {}
            Frame::Message(message) => {
                offset += 1;
                assert_eq!(message.offset.get(), offset);
            }
            Frame::Ping => heartbeats += 1,
            Frame::Error(error) if error.code == ErrorCode::HeartbeatTimeout => return false,
            other => panic!("after message {offset}: {other:?}"),
        }
    }
    true
}

#[tokio::test]
async fn a_client_that_asks_without_reading_waits_for_its_answers_and_gets_them_all() {
    const PINGS: usize = 1_500;
    let bench = Bench::in_memory(&Options::default());
    let socket = bench.socket_with(small_buffers);
    let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
    for _ in 0..PINGS {
        client.0.feed(Ws::Ping(Bytes::from_static(&[b'x'; 100]))).await.unwrap();
    }
    client.0.flush().await.unwrap();
    for _ in 0..PINGS {
        assert!(matches!(client.0.next().await, Some(Ok(Ws::Pong(_)))));
    }
    bench.end().await;
}

#[tokio::test]
async fn draining_sends_every_client_away_and_counts_them_out() {
    let bench = Bench::in_memory(&Options::default());
    let mut client = bench.subscriber("chat").await;
    let (telemetry, connections) = (bench.telemetry.clone(), bench.connections.clone());
    let drained = tokio::spawn(async move { connections.drain(Duration::from_secs(5)).await });
    assert!(matches!(client.next().await, Frame::Disconnect(d) if d.code.as_str() == "draining"));
    assert_eq!(client.closed().await, 1012);
    drop(client);
    drained.await.unwrap();
    assert_eq!(telemetry.connections.get(), 0);
    bench.end().await;
}

#[tokio::test]
async fn bytes_that_are_no_connect_frame_do_not_put_its_time_off() {
    let bench =
        Bench::in_memory(&Options { connect_timeout: Duration::from_millis(300), ..Options::default() });
    let mut client = bench.client().await;
    loop {
        client.0.send(Ws::Ping(Bytes::new())).await.unwrap();
        match client.0.next().await.unwrap().unwrap() {
            Ws::Pong(_) => {}
            Ws::Text(text) => break assert!(text.contains("connect_timeout"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_recovers_and_is_left_holds_no_other_room_up() {
    let options = rooms::Options { tail_bytes: 0, ..rooms::Options::default() };
    let memory = Kind::Memory { max_bytes: usize::MAX };
    let bench = Bench::new(memory, &options, &Options { shards: 1, ..Options::default() });
    let first = bench.publish("long", "0").await;
    for _ in 0..20 {
        bench.publish_many("long", 500, &"x".repeat(1000)).await;
    }
    for left_by in [
        r#"{"type":"unsubscribe","id":3,"room":"long"}"#,
        r#"{"type":"subscribe","id":3,"room":"long","history":1}"#,
    ] {
        let mut client = bench.client().await;
        client.connect().await;
        client.subscribe_after("long", &first).await;
        assert!(matches!(client.next().await, Frame::Subscribed(_)));
        client.say(r#"{"type":"subscribe","id":2,"room":"short"}"#).await;
        client.say(left_by).await;
        let mut answered = 0;
        while answered < 2 {
            match client.next().await {
                Frame::Subscribed(_) | Frame::Unsubscribed(_) => answered += 1,
                Frame::Message(message) => assert_eq!(message.room.as_str(), "long"),
                other => panic!("{other:?}"),
            }
        }
        bench.publish("short", "1").await;
        while !matches!(client.next().await, Frame::Message(message) if message.room.as_str() == "short") {}
    }
    bench.end().await;
}

#[tokio::test]
async fn an_end_behind_more_input_than_a_turn_reads_is_noticed() {
    use std::io::Write as _;
    // One shard takes them in turn: when the second is answered, the first has been taken.
    let options = Options { heartbeat: Duration::from_secs(3600), shards: 1, ..Options::default() };
    let bench = Bench::in_memory(&options);
    let mut client = TcpStream::connect(bench.listener.local_addr().unwrap()).unwrap();
    let (socket, _) = bench.listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    let mut input = masked(r#"{"type":"connect"}"#);
    while input.len() < 300 << 10 {
        input.extend(masked(r#"{"type":"pong"}"#));
    }
    client.write_all(&input).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // Handed over with everything in the socket already: the poll tells of it once.
    let place = bench.connections.reserve().unwrap();
    let caller = Caller { cookie: None, origin: "".into(), address: LOCAL };
    bench.connections.adopt(place, Handover { socket, read: Bytes::new(), caller });
    let mut again = bench.client().await;
    again.connect().await;
    while bench.telemetry.connections.get() > 1 {
        tokio::task::yield_now().await;
    }
    bench.end().await;
}

#[tokio::test]
async fn a_full_hub_has_no_place_until_one_is_free() {
    let bench = Bench::in_memory(&Options { max_connections: 1, ..Options::default() });
    let place = bench.connections.reserve().unwrap();
    assert!(bench.connections.reserve().is_none());
    drop(place);
    assert!(bench.connections.reserve().is_some());
    bench.end().await;
}

#[tokio::test]
async fn a_room_that_nobody_uses_leaves_memory() {
    let options = rooms::Options { tail_bytes: 0, ..rooms::Options::default() };
    let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
    let client = bench.subscriber("chat").await;
    bench.publish("chat", "1").await;
    assert_eq!(bench.telemetry.rooms.get(), 1);
    drop(client);
    while bench.telemetry.rooms.get() > 0 {
        tokio::task::yield_now().await;
    }
    let again = bench.rooms.info(&"chat".parse().unwrap()).await.unwrap();
    assert_eq!(again.head.offset.get(), 1, "its head is still known");
    bench.publish("chat", "2").await;
    assert_eq!(bench.rooms.info(&"chat".parse().unwrap()).await.unwrap().head.offset.get(), 2);
    bench.end().await;
}

/// What a client of the model does, or is done to it.
#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        client: usize,
        room: usize,
        how: How,
    },
    Unsubscribe {
        client: usize,
        room: usize,
    },
    Publish {
        room: usize,
        n: u64,
        bytes: usize,
    },
    /// Reads so many frames; until then the client takes nothing but what its buffers do.
    Read {
        client: usize,
        frames: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum How {
    Plain,
    AfterCursor,
    History(u32),
    Both(u32),
}

/// A client that checks all it is told.
struct Checked {
    client: Client,
    /// By room: the cursor, while subscribed.
    cursors: [Option<u64>; ROOMS],
    /// Where a room was left.
    left: [u64; ROOMS],
    asked: u64,
    answered: u64,
    epoch: Option<Epoch>,
}

const ROOMS: usize = 3;

impl Checked {
    async fn step(&mut self) {
        let room = |name: &twine_protocol::RoomName| name.as_str().parse::<usize>().unwrap();
        match self.client.next().await {
            Frame::Subscribed(s) => {
                assert_ne!(s.recovered, Some(false));
                self.answered += 1;
                self.epoch = Some(s.epoch);
                self.cursors[room(&s.room)] = Some(s.offset.get());
            }
            Frame::Unsubscribed(u) => {
                self.answered += 1;
                let cursor = &mut self.cursors[room(&u.room)];
                self.left[room(&u.room)] = cursor.take().unwrap_or_default();
            }
            // It was overtaken, or there was nothing to leave.
            Frame::Error(error) => {
                assert_eq!(error.code, ErrorCode::NotSubscribed);
                self.answered += 1;
            }
            Frame::Message(message) => {
                let cursor =
                    self.cursors[room(&message.room)].as_mut().expect("no message of a room that was left");
                assert_eq!(message.offset.get(), *cursor + 1, "in order, none left out, none twice");
                *cursor += 1;
            }
            Frame::Ping => {}
            other => panic!("{other:?}"),
        }
    }

    async fn say(&mut self, text: &str) {
        self.asked += 1;
        self.client.say(text).await;
    }
}

fn model_steps() -> impl Strategy<Value = Vec<Step>> {
    let how = prop_oneof![
        Just(How::Plain),
        Just(How::AfterCursor),
        (1u32..30).prop_map(How::History),
        (1u32..30).prop_map(How::Both),
    ];
    let step = prop_oneof![
        3 => (0..3usize, 0..ROOMS, how).prop_map(|(client, room, how)| Step::Subscribe { client, room, how }),
        1 => (0..3usize, 0..ROOMS).prop_map(|(client, room)| Step::Unsubscribe { client, room }),
        3 => (0..ROOMS, 1u64..20, prop_oneof![Just(10usize), Just(20_000)])
            .prop_map(|(room, n, bytes)| Step::Publish { room, n, bytes }),
        2 => (0..3usize, 1usize..40).prop_map(|(client, frames)| Step::Read { client, frames }),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is subscribed, left, asked for again and not read for a while: what each client is
    /// told of a room follows on from what it was told before, and in the end it has everything.
    #[test]
    fn cursors_are_dense_whatever_clients_do(steps in model_steps(), tail_bytes in prop_oneof![Just(0usize), Just(100_000), Just(1 << 30)]) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run_model(steps, tail_bytes));
    }
}

async fn run_model(steps: Vec<Step>, tail_bytes: usize) {
    use std::fmt::Write as _;

    let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
    let bench = Bench::new(Kind::Memory { max_bytes: usize::MAX }, &options, &Options::default());
    let mut clients = Vec::new();
    for _ in 0..3 {
        // A window of a few messages, so that not reading soon blocks the hub's side.
        let socket = bench.socket_with(|hub, client| {
            socket2::SockRef::from(hub).set_send_buffer_size(32 << 10).unwrap();
            socket2::SockRef::from(client).set_recv_buffer_size(32 << 10).unwrap();
        });
        let mut client = Client(WebSocketStream::from_raw_socket(socket, Role::Client, None).await);
        client.connect().await;
        clients.push(Checked {
            client,
            cursors: [None; ROOMS],
            left: [0; ROOMS],
            asked: 0,
            answered: 0,
            epoch: None,
        });
    }
    let mut heads = [0; ROOMS];
    for step in steps {
        match step {
            Step::Subscribe { client, room, how } => {
                let checked = &mut clients[client];
                let cursor = checked.cursors[room].unwrap_or(checked.left[room]);
                let (after, history) = match how {
                    How::Plain => (false, None),
                    How::AfterCursor => (true, None),
                    How::History(n) => (false, Some(n)),
                    How::Both(n) => (true, Some(n)),
                };
                let mut text = format!(r#"{{"type":"subscribe","id":1,"room":"{room}""#);
                if let Some(epoch) = checked.epoch.as_ref().filter(|_| after) {
                    write!(text, r#","after":{{"epoch":"{epoch}","offset":{cursor}}}"#).unwrap();
                }
                if let Some(n) = history {
                    write!(text, r#","history":{n}"#).unwrap();
                }
                checked.say(&(text + "}")).await;
            }
            Step::Unsubscribe { client, room } => {
                clients[client].say(&format!(r#"{{"type":"unsubscribe","id":1,"room":"{room}"}}"#)).await;
            }
            Step::Publish { room, n, bytes } => {
                bench.publish_many(&room.to_string(), n, &"x".repeat(bytes)).await;
                heads[room] += n;
            }
            Step::Read { client, frames } => {
                let checked = &mut clients[client];
                for _ in 0..frames {
                    // Only what is sure to come.
                    let behind =
                        (0..ROOMS).any(|room| checked.cursors[room].is_some_and(|at| at < heads[room]));
                    if checked.answered < checked.asked || behind {
                        checked.step().await;
                    }
                }
            }
        }
    }
    for checked in &mut clients {
        while checked.answered < checked.asked
            || (0..ROOMS).any(|room| checked.cursors[room].is_some_and(|at| at < heads[room]))
        {
            checked.step().await;
        }
    }
    // Who hangs up is not waited for.
    drop(clients);
    bench.end().await;
}
