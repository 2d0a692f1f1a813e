//! When sessions are written: not for each message, and not too seldom.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use tempfile::TempDir;
use twine_protocol::RoomName;

use super::*;
use crate::clock::manual;
use crate::connection::by_hand::ShardByHand;
use crate::rounds::Rounds as _;
use crate::session::{self, CookieHash, Keeping, Sessions};

const START: u64 = 1_700_000_000_000;
const STEP: Duration = Duration::from_millis(100);

/// A connection, its shard and the keeper, whose time is the test's.
struct ByHand {
    now: Instant,
    shard: ShardByHand,
    keeping: Keeping,
    client: TcpStream,
    heard: String,
}

impl ByHand {
    fn pass(&mut self, time: Duration) {
        self.now += time;
        manual::set(Some(manual::Set { now: self.now, unix_millis: START }));
    }

    fn turn(&mut self) {
        self.shard.turn();
        self.keeping.round();
    }

    fn say(&mut self, text: &str) {
        self.client.write_all(&masked(text)).unwrap();
    }

    /// Goes on until the client has heard this, and forgets all that it has heard.
    fn until(&mut self, word: &str) {
        while !self.heard.contains(word) {
            self.turn();
            let mut buffer = [0; 4096];
            if let Ok(n) = self.client.read(&mut buffer) {
                self.heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        }
        self.heard.clear();
    }

    /// Acknowledges a message; the hub has heard it when this returns.
    fn acknowledge(&mut self, Position { epoch, offset }: &Position) {
        self.say(&format!(r#"{{"type":"pong","cursors":{{"c":{{"epoch":"{epoch}","offset":{offset}}}}}}}"#));
        self.say(r#"{"type":"unsubscribe","id":9,"room":"none"}"#);
        self.until("not_subscribed");
    }
}

/// What a hub that is killed now finds of its sessions.
fn killed(folder: &TempDir, cookie: CookieHash) -> Vec<(RoomName, Position)> {
    let copy = tempfile::tempdir().unwrap();
    for name in ["sessions.db", "sessions.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let kind = Kind::Sqlite { data_dir: copy.path().to_owned() };
    let mut store = session::store::open(&kind, START).unwrap();
    store.begin().unwrap();
    let sessions = store.of_cookie(cookie).unwrap();
    store.rooms(&sessions[0].id).unwrap().unwrap()
}

#[tokio::test]
async fn acknowledgements_are_saved_every_five_seconds_and_not_each() {
    let folder = tempfile::tempdir().unwrap();
    let kind = Kind::Sqlite { data_dir: folder.path().to_owned() };
    let bench = Bench::in_memory(&Options::default());
    let mut positions = Vec::new();
    for n in 0..=100 {
        positions.push(bench.publish("c", &n.to_string()).await);
    }
    let now = Instant::now();
    manual::set(Some(manual::Set { now, unix_millis: START }));
    let store = session::store::open(&kind, START).unwrap();
    let telemetry = bench.telemetry.clone();
    let (sessions, keeping) = Sessions::new(store, crate::Config::default().sessions(), telemetry.clone());
    let shard = ShardByHand::new(&bench.rooms, &sessions, Options::default(), telemetry);
    let client = TcpStream::connect(bench.listener.local_addr().unwrap()).unwrap();
    let (socket, _) = bench.listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    client.set_nonblocking(true).unwrap();
    let cookie = CookieHash::of(uuid::Uuid::from_u128(1));
    let caller = Caller { cookie: Some(cookie), origin: "".into(), address: LOCAL };
    shard.adopt(Handover { socket, answer: Bytes::new(), read: Vec::new(), is_compressed: false, caller });
    let mut hub = ByHand { now, shard, keeping, client, heard: String::new() };
    hub.say(r#"{"type":"connect"}"#);
    hub.until("connected");
    let Position { epoch, offset } = &positions[0];
    let after = format!(r#"{{"epoch":"{epoch}","offset":{offset}}}"#);
    hub.say(&format!(r#"{{"type":"subscribe","id":1,"room":"c","after":{after}}}"#));
    hub.until("subscribed");
    hub.acknowledge(&positions[0]);
    hub.turn();
    let room: RoomName = "c".parse().unwrap();
    assert_eq!(killed(&folder, cookie), [(room.clone(), positions[0].clone())], "at once: it is new");

    let other = rusqlite::Connection::open(folder.path().join("sessions.db")).unwrap();
    let version = || other.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let (mut last, mut commits) = (version(), 0);
    for position in &positions[1..] {
        hub.pass(STEP);
        hub.acknowledge(position);
        hub.turn();
        let now = version();
        commits += usize::from(now != last);
        last = now;
    }
    assert_eq!(commits, 2, "in ten seconds");
    hub.pass(Duration::from_secs(5));
    hub.turn();
    hub.turn();
    assert_eq!(killed(&folder, cookie), [(room, positions[100].clone())]);
    manual::set(None);
    drop(hub);
    bench.end().await;
}
