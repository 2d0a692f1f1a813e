//! A hub whose threads are loops that a test runs by hand, so that each race happens every time.

use std::io::ErrorKind;

use futures_util::FutureExt as _;
use tungstenite::{Error, WebSocket};
use twine_protocol::{Epoch, Subscribed};

use super::*;
use crate::broker::Committer;
use crate::clock::{self, manual};
use crate::connection::Guest;
use crate::connection::by_hand::ShardByHand;
use crate::rooms::Serving;
use crate::rounds::Rounds as _;
use crate::session::{CookieHash, Keeping};

/// A hub without threads.
pub(super) struct ByHand {
    pub(super) rooms: Rooms,
    pub(super) committer: Committer,
    pub(super) serving: Serving,
    pub(super) keeping: Keeping,
    pub(super) shard: ShardByHand,
    pub(super) telemetry: Arc<Telemetry>,
    listener: TcpListener,
    folder: tempfile::TempDir,
}

impl ByHand {
    pub(super) fn new(tail_bytes: usize) -> Self {
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
    pub(super) fn publish(&mut self, data: &str) -> Position {
        self.publish_all(&[data.to_owned()])
    }

    /// Commits messages and tells where the first is.
    pub(super) fn publish_all(&mut self, all: &[String]) -> Position {
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
    pub(super) fn cross(&mut self) -> Epoch {
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
    pub(super) fn work(&mut self) {
        self.shard.turn();
        self.keeping.round();
        self.committer.round();
        self.serving.step();
    }

    /// A socket of the hub's, and the other end of it.
    fn sockets(&self) -> (TcpStream, TcpStream) {
        let other = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, other)
    }

    /// A client that has said this already when its shard first hears of it.
    pub(super) fn visit(&self, browser: Option<u128>, says: &[&str]) -> Visitor {
        let (socket, client) = self.sockets();
        client.set_nonblocking(true).unwrap();
        let cookie = browser.map(|n| CookieHash::of(uuid::Uuid::from_u128(n)));
        let caller = Caller { cookie, origin: "https://app".into(), address: LOCAL };
        let read: Vec<u8> = says.iter().flat_map(|text| masked(text)).collect();
        self.shard.adopt(Handover { socket, answer: Bytes::new(), read, is_compressed: false, caller });
        Visitor(WebSocket::from_raw_socket(client, Role::Client, None))
    }

    /// The other end of a guest's socket.
    pub(super) fn host(&self, guest: Box<dyn Guest>) -> TcpStream {
        let (socket, other) = self.sockets();
        self.shard.host(guest, socket);
        other
    }

    /// One that subscribes at once, without a session.
    pub(super) fn subscriber(&self, after: Option<&Position>) -> Visitor {
        self.visit(None, &[CONNECT, &subscribe(after)])
    }

    /// One in this browser, which has a session.
    pub(super) fn connected(&mut self, browser: u128) -> Visitor {
        let mut client = self.visit(Some(browser), &[CONNECT]);
        assert!(matches!(client.next(self), Frame::Connected(_)));
        client
    }

    /// One that is subscribed and has all there is.
    pub(super) fn live(&mut self, browser: u128) -> Visitor {
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

pub(super) fn subscribe(after: Option<&Position>) -> String {
    let after = after
        .map(|Position { epoch, offset }| format!(r#","after":{{"epoch":"{epoch}","offset":{offset}}}"#));
    format!(r#"{{"type":"subscribe","id":1,"room":"chat"{}}}"#, after.unwrap_or_default())
}

pub(super) struct Visitor(pub(super) WebSocket<TcpStream>);

impl Visitor {
    pub(super) fn say(&mut self, text: &str) {
        self.0.send(Ws::text(text)).unwrap();
    }

    /// A frame that is on its way already.
    pub(super) fn poll(&mut self) -> Option<Frame> {
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
    pub(super) fn next(&mut self, hub: &mut ByHand) -> Frame {
        loop {
            if let Some(frame) = self.poll() {
                return frame;
            }
            hub.work();
            // Sockets are the system's to carry.
            std::thread::yield_now();
        }
    }

    pub(super) fn subscribed(&mut self, hub: &mut ByHand) -> Subscribed {
        loop {
            match self.next(hub) {
                Frame::Connected(_) => {}
                Frame::Subscribed(subscribed) => return subscribed,
                other => panic!("not subscribed: {other:?}"),
            }
        }
    }

    /// The next frames are these messages, and crossings as `over the offset that the epoch ended at`.
    pub(super) fn gets(&mut self, hub: &mut ByHand, expected: &[&str]) {
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
