//! A room goes on in a new epoch while it is watched, at whatever moment.
//!
//! The hub's threads are loops that these tests run by hand, so that each race happens every time. The
//! second epoch is a real one: the database is opened once more.

use std::io::ErrorKind;

use futures_util::FutureExt as _;
use tungstenite::{Error, WebSocket};
use twine_protocol::{Epoch, Subscribed};

use super::*;
use crate::broker::Committer;
use crate::clock::{self, manual};
use crate::connection::by_hand::ShardByHand;
use crate::rooms::Serving;
use crate::rounds::Rounds as _;
use crate::session::{CookieHash, Keeping};

/// A hub without threads.
struct ByHand {
    rooms: Rooms,
    committer: Committer,
    serving: Serving,
    keeping: Keeping,
    shard: ShardByHand,
    telemetry: Arc<Telemetry>,
    listener: TcpListener,
    folder: tempfile::TempDir,
}

impl ByHand {
    fn new(tail_bytes: usize) -> Self {
        // Nobody waits for time.
        manual::set(Some(manual::Set { now: clock::now(), unix_millis: clock::unix_millis() }));
        let folder = tempfile::tempdir().unwrap();
        let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
        let telemetry = Arc::new(Telemetry::default());
        let opened =
            store::open(&store::Options { kind: kind.clone(), retention: Retention::Forever }).unwrap();
        let options = rooms::Options { tail_bytes, ..rooms::Options::default() };
        let (rooms, committer, serving) =
            Rooms::by_hand(opened, Retention::Forever, &options, telemetry.clone());
        let sessions = crate::session::store::open(&kind, clock::unix_millis()).unwrap();
        let (sessions, keeping) =
            Sessions::new(sessions, crate::Config::default().sessions(), telemetry.clone());
        let shard = ShardByHand::new(&rooms, &sessions, Options::default(), telemetry.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { rooms, committer, serving, keeping, shard, telemetry, listener, folder }
    }

    /// Commits a message; no shard sends it yet.
    fn publish(&mut self, data: &str) -> Position {
        self.publish_all(&[data.to_owned()])
    }

    /// Commits messages and tells where the first is.
    fn publish_all(&mut self, all: &[String]) -> Position {
        let message = |data: &String| {
            let data = RawValue::from_string(data.clone()).unwrap();
            NewMessage { room: "chat".parse().unwrap(), data, id: None, sender: None }
        };
        let rooms = self.rooms.clone();
        let mut publishing = Box::pin(rooms.publish(all.iter().map(message).collect()));
        assert!(publishing.as_mut().now_or_never().is_none());
        self.committer.round();
        let published = publishing.now_or_never().unwrap().unwrap().remove(0);
        Position { epoch: published.epoch, offset: published.offset }
    }

    /// The room goes on in another epoch.
    fn cross(&mut self) -> Epoch {
        let kind = Kind::Sqlite { data_dir: self.folder.path().to_owned() };
        let options = store::Options { kind, retention: Retention::Forever };
        let mut epoch = None;
        self.committer.reopen(|| {
            let writer = store::open(&options).unwrap().writer;
            epoch = Some(writer.epoch().clone());
            writer
        });
        epoch.unwrap()
    }

    /// Whatever has to be done for what clients have sent is done.
    fn work(&mut self) {
        self.shard.turn();
        self.keeping.round();
        self.committer.round();
        self.serving.step();
    }

    /// A client that has said this already when its shard first hears of it.
    fn visit(&self, browser: Option<u128>, says: &[&str]) -> Visitor {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let cookie = browser.map(|n| CookieHash::of(uuid::Uuid::from_u128(n)));
        let caller = Caller { cookie, origin: "https://app".into(), address: LOCAL };
        let read: Vec<u8> = says.iter().flat_map(|text| masked(text)).collect();
        self.shard.adopt(Handover { socket, answer: Bytes::new(), read, is_compressed: false, caller });
        Visitor(WebSocket::from_raw_socket(client, Role::Client, None))
    }

    /// One that subscribes at once, without a session.
    fn subscriber(&self, after: Option<&Position>) -> Visitor {
        self.visit(None, &[CONNECT, &subscribe(after)])
    }

    /// One in this browser, which has a session.
    fn connected(&mut self, browser: u128) -> Visitor {
        let mut client = self.visit(Some(browser), &[CONNECT]);
        assert!(matches!(client.next(self), Frame::Connected(_)));
        client
    }

    /// One that is subscribed and has all there is.
    fn live(&mut self, browser: u128) -> Visitor {
        let mut client = self.connected(browser);
        client.say(&subscribe(None));
        client.subscribed(self);
        client
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        manual::set(None);
    }
}

const CONNECT: &str = r#"{"type":"connect"}"#;

fn subscribe(after: Option<&Position>) -> String {
    let after = after
        .map(|Position { epoch, offset }| format!(r#","after":{{"epoch":"{epoch}","offset":{offset}}}"#));
    format!(r#"{{"type":"subscribe","id":1,"room":"chat"{}}}"#, after.unwrap_or_default())
}

struct Visitor(WebSocket<TcpStream>);

impl Visitor {
    fn say(&mut self, text: &str) {
        self.0.send(Ws::text(text)).unwrap();
    }

    /// A frame that is on its way already.
    fn poll(&mut self) -> Option<Frame> {
        match self.0.read() {
            Ok(Ws::Text(text)) => match json::decode_server(&text).unwrap() {
                Frame::Ping => None,
                frame => Some(frame),
            },
            Ok(other) => panic!("{other:?}"),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame, while the hub works.
    fn next(&mut self, hub: &mut ByHand) -> Frame {
        loop {
            if let Some(frame) = self.poll() {
                return frame;
            }
            hub.work();
            // Sockets are the system's to carry.
            std::thread::yield_now();
        }
    }

    fn subscribed(&mut self, hub: &mut ByHand) -> Subscribed {
        loop {
            match self.next(hub) {
                Frame::Connected(_) => {}
                Frame::Subscribed(subscribed) => return subscribed,
                other => panic!("not subscribed: {other:?}"),
            }
        }
    }

    /// The next frames are these messages, and crossings as `over the offset that the epoch ended at`.
    fn gets(&mut self, hub: &mut ByHand, expected: &[&str]) {
        for expected in expected {
            let got = match self.next(hub) {
                Frame::Message(message) => message.data.get().to_owned(),
                Frame::Epoch(crossing) => format!("over {}", crossing.prev.offset),
                other => panic!("{other:?}"),
            };
            assert_eq!(got, *expected);
        }
    }
}

#[test]
fn who_is_live_gets_the_rest_of_the_epoch_the_crossing_and_what_is_new_without_a_seam() {
    for tail_bytes in [usize::MAX, 0] {
        let mut hub = ByHand::new(tail_bytes);
        let mut clients = [hub.live(1), hub.live(2)];
        hub.publish("1");
        for client in &mut clients {
            client.gets(&mut hub, &["1"]);
        }
        // The shard has not come to send it.
        let last = hub.publish("2");
        let epoch = hub.cross();
        let first = hub.publish("3");
        assert_eq!(first, Position { epoch: epoch.clone(), offset: last.offset.min(first.offset) });
        for client in &mut clients {
            client.gets(&mut hub, &["2"]);
            let Frame::Epoch(crossing) = client.next(&mut hub) else { panic!("no crossing") };
            assert_eq!((&crossing.epoch, &crossing.prev), (&epoch, &last));
            client.gets(&mut hub, &["3"]);
        }
        hub.publish("4");
        // Another, and one before anything was published after that.
        hub.cross();
        hub.work();
        hub.cross();
        hub.publish("5");
        for client in &mut clients {
            client.gets(&mut hub, &["4", "over 2", "over 0", "5"]);
        }
    }
}

#[test]
fn who_is_behind_gets_what_it_misses_of_either_epoch() {
    let mut hub = ByHand::new(0);
    let all: Vec<_> = (1..=1_500).map(|n| n.to_string()).collect();
    let first = hub.publish_all(&all);
    let mut client = hub.subscriber(Some(&first));
    // It has one page, of the end that the room had then, and asks for the next.
    let subscribed = client.subscribed(&mut hub);
    assert_eq!((subscribed.head.offset.get(), subscribed.recovered), (1_500, Some(true)));
    hub.cross();
    hub.publish("1501");
    client.gets(&mut hub, &all[1..].iter().map(String::as_str).collect::<Vec<_>>());
    client.gets(&mut hub, &["over 1500", "1501"]);
}

/// How far the hub is with a subscribe when the room crosses: in turns.
#[test]
fn a_subscription_that_begins_at_a_crossing_misses_nothing() {
    for turns in 0..6 {
        let mut hub = ByHand::new(usize::MAX);
        let first = hub.publish("1");
        hub.publish("2");
        let mut fresh = hub.subscriber(None);
        let mut back = hub.subscriber(Some(&first));
        for turn in 0..turns {
            if turn % 2 == 0 {
                hub.shard.turn();
            } else {
                hub.committer.round();
            }
        }
        hub.cross();
        // Before the shard has seen the crossing, somebody comes from one that has.
        let latest = hub.publish("3");
        let mut ahead = hub.subscriber(Some(&latest));
        let subscribed = back.subscribed(&mut hub);
        assert_eq!(
            (&subscribed.epoch, subscribed.offset, subscribed.recovered),
            (&first.epoch, first.offset, Some(true))
        );
        back.gets(&mut hub, &["2", "over 2", "3"]);
        let subscribed = fresh.subscribed(&mut hub);
        if subscribed.epoch == first.epoch {
            assert_eq!(subscribed.offset.get(), 2);
            fresh.gets(&mut hub, &["over 2", "3"]);
        } else {
            assert_eq!((subscribed.epoch, subscribed.offset), (latest.epoch.clone(), latest.offset));
        }
        let subscribed = ahead.subscribed(&mut hub);
        assert_eq!((&subscribed.epoch, subscribed.offset), (&latest.epoch, latest.offset));
        assert_eq!(subscribed.recovered, Some(true), "{turns}");
        hub.publish("4");
        for client in [&mut fresh, &mut back, &mut ahead] {
            client.gets(&mut hub, &["4"]);
        }
    }
}

#[test]
fn a_session_goes_on_in_the_epoch_that_its_page_has_acknowledged() {
    for is_acknowledged in [false, true] {
        let mut hub = ByHand::new(usize::MAX);
        let mut client = hub.live(1);
        let old = hub.publish("1");
        client.gets(&mut hub, &["1"]);
        let acknowledge = |client: &mut Visitor, Position { epoch, offset }: &Position| {
            client.say(&format!(
                r#"{{"type":"pong","cursors":{{"chat":{{"epoch":"{epoch}","offset":{offset}}}}}}}"#
            ));
        };
        acknowledge(&mut client, &old);
        hub.cross();
        let new = hub.publish("2");
        client.gets(&mut hub, &["over 1", "2"]);
        if is_acknowledged {
            acknowledge(&mut client, &new);
        }
        // What was said is heard before what is answered.
        client.say(r#"{"type":"unsubscribe","id":2,"room":"none"}"#);
        assert!(matches!(client.next(&mut hub), Frame::Error(_)));
        drop(client);
        while hub.telemetry.connections.get() > 0 {
            hub.work();
        }
        let mut again = hub.connected(1);
        again.say(&subscribe(None));
        let subscribed = again.subscribed(&mut hub);
        let held = if is_acknowledged { &new } else { &old };
        assert_eq!((&subscribed.epoch, subscribed.offset), (&held.epoch, held.offset));
        hub.publish("3");
        let missed: &[&str] = if is_acknowledged { &["3"] } else { &["over 1", "2", "3"] };
        again.gets(&mut hub, missed);
    }
}

#[test]
fn a_cursor_later_than_the_head_is_unknown_only_once_the_room_was_refreshed() {
    let mut hub = ByHand::new(usize::MAX);
    let first = hub.publish("1");
    let second = Position { offset: first.offset.next(), ..first.clone() };
    for comes in [true, false] {
        let mut client = hub.subscriber(Some(&second));
        // It asks for the room, and for its refresh; that this is done it has not heard.
        hub.shard.hear();
        hub.shard.hear();
        if comes {
            assert_eq!(hub.publish("2"), second);
        }
        let subscribed = client.subscribed(&mut hub);
        assert_eq!((subscribed.recovered, &subscribed.offset), (Some(true), &second.offset));
    }
    let mut client = hub.subscriber(Some(&Position { offset: second.offset.next(), ..second.clone() }));
    let subscribed = client.subscribed(&mut hub);
    assert_eq!((subscribed.recovered, subscribed.reason), (Some(false), Some(GapReason::Unknown)));
    assert_eq!(subscribed.offset, second.offset);
}
