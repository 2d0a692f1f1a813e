//! What clients are answered: gathered over a turn, and written to each in one piece, unless something else has to be
//! written before.

use bytes::{Bytes, BytesMut};

use super::shard::Shard;
use super::state::{Connection, Key, Phase};

/// Bytes of memory that gathered answers take at most, about. They do not count among those that wait for their sockets
/// ([`super::socket::MAX_QUEUED`]), where a client that takes none is left alone.
const MAX: usize = 64 << 10;

/// Answers that are gathered, each with who gets it.
#[derive(Default)]
pub(super) struct Answers {
    all: Vec<(Key, Bytes)>,
    /// What they take.
    bytes: usize,
}

impl Answers {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn push(&mut self, key: Key, frame: Bytes) {
        self.bytes += frame.len() + size_of::<(Key, Bytes)>();
        self.all.push((key, frame));
    }

    /// Takes the last one back, where it is this client's.
    fn pop(&mut self, key: Key) -> Option<Bytes> {
        let (_, frame) = self.all.pop_if(|(of, _)| *of == key)?;
        self.bytes -= frame.len() + size_of::<(Key, Bytes)>();
        Some(frame)
    }

    /// Takes them all, each client's together and in their order.
    fn take(&mut self) -> Vec<(Key, Bytes)> {
        self.bytes = 0;
        let mut all = std::mem::take(&mut self.all);
        all.sort_by_key(|(key, _)| *key);
        all
    }
}

impl Shard {
    /// Answers a client, at the end of the turn at the latest. Who asks for several things at once gets one write as a rule.
    pub(super) fn answer(&mut self, key: Key, frame: Bytes) {
        if let Some(upgrade) = self.connection(key).and_then(Connection::take_upgrade) {
            self.answers.push(key, upgrade);
        }
        self.answers.push(key, frame);
        if self.answers.bytes >= MAX {
            self.write_answers();
        }
    }

    /// Answers a client's upgrade, and takes what it said with that. Where it has asked for its session, the answer
    /// waits for it: the client can do nothing before, and gets both in one write.
    pub(super) fn answer_upgrade(&mut self, key: Key, upgrade: Bytes, said: &mut [u8]) {
        if upgrade.is_empty() {
            return self.feed(key, said);
        }
        self.answer(key, upgrade);
        let n_gathered = self.answers.all.len();
        self.feed(key, said);
        let has_said_no_more = self.answers.all.len() == n_gathered;
        if self.connection(key).is_some_and(|connection| connection.phase == Phase::Attaching)
            && has_said_no_more
            && let Some(upgrade) = self.answers.pop(key)
            && let Some(connection) = self.connection(key)
        {
            connection.input.get_or_insert_default().upgrade = upgrade;
        }
    }

    /// Writes all answers: before anything else is written to a client, and before it goes.
    pub(super) fn write_answers(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        let mut answers = self.answers.take();
        for of_one in answers.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((key, first)) = of_one.first() else { continue };
            if self.connection(*key).is_none() {
                continue;
            }
            let mut frames = first.clone();
            if of_one.len() > 1 {
                let mut all = BytesMut::with_capacity(of_one.iter().map(|(_, frame)| frame.len()).sum());
                for (_, frame) in of_one {
                    all.extend_from_slice(frame);
                }
                frames = all.freeze();
            }
            if let Some(socket) = self.sockets.get_mut(key.slot)
                && socket.answer(frames).is_err()
            {
                self.broken.push(*key);
            }
        }
        answers.clear();
        // For its memory.
        self.answers.all = answers;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _};
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Arc;

    use super::super::shard::Surroundings;
    use super::super::{Caller, Event, Handover, Options, Place};
    use super::*;
    use crate::clock::{self, manual};
    use crate::connection::put_frame;
    use crate::rooms::{self, Rooms};
    use crate::rounds::Rounds as _;
    use crate::session::{self, CookieHash, Keeping, Sessions};
    use crate::store::{self, Kind, Retention};
    use crate::telemetry::Telemetry;

    fn shard(kind: &Kind) -> Shard {
        let telemetry = Arc::new(Telemetry::default());
        let sessions = Sessions::open(kind, crate::Config::default().sessions(), telemetry.clone()).unwrap();
        shard_with(sessions, telemetry, kind)
    }

    fn shard_with(sessions: Sessions, telemetry: Arc<Telemetry>, kind: &Kind) -> Shard {
        let store = store::Options { kind: kind.clone(), retention: Retention::Forever };
        let rooms = Rooms::open(&store, &rooms::Options::default(), telemetry.clone()).unwrap();
        let surroundings = Surroundings { rooms, sessions, permissions: None, telemetry };
        Shard::new(surroundings, Options::default()).unwrap()
    }

    /// A shard whose sessions come when they are told to.
    fn shard_without_keeper() -> (Shard, Keeping) {
        let telemetry = Arc::new(Telemetry::default());
        let store = session::store::open(&MEMORY, 0).unwrap();
        let (sessions, keeping) =
            Sessions::new(store, crate::Config::default().sessions(), telemetry.clone());
        (shard_with(sessions, telemetry, &MEMORY), keeping)
    }

    fn at(now: std::time::Instant) {
        manual::set(Some(manual::Set { now, unix_millis: 0 }));
    }

    /// A client that has said so much, and gets `answer` first; its shard has not heard of it.
    fn client(shard: &Shard, answer: &'static str, said: &[&str]) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let cookie = Some(CookieHash::of(uuid::Uuid::from_u128(7)));
        let caller = Caller { cookie, origin: "".into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let mut read = Vec::new();
        for text in said {
            put_frame(&mut read, text);
        }
        let handover =
            Handover { socket, answer: answer.as_bytes().into(), read, is_compressed: false, caller };
        shard.inbox().push(Event::Adopt(Place(Arc::default()), handover));
        client
    }

    /// What the first read gives; the shard has its turns until there is something.
    fn first_read(shard: &mut Shard, client: &mut TcpStream) -> String {
        let mut buffer = [0; 4096];
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_mins(1) {
            match client.read(&mut buffer) {
                Ok(n) => return String::from_utf8_lossy(&buffer[..n]).into_owned(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            shard.turn(&mut mio::Events::with_capacity(8));
        }
        panic!("nothing came")
    }

    /// Whether these stand in a text, in their order.
    fn are_in_order(text: &str, parts: &[&str]) -> bool {
        let mut rest = text;
        parts.iter().all(|part| {
            let found = rest.find(part);
            rest = found.and_then(|at| rest.get(at + part.len()..)).unwrap_or_default();
            found.is_some()
        })
    }

    const MEMORY: Kind = Kind::Memory { max_bytes: usize::MAX };

    #[tokio::test]
    async fn answers_wait_for_the_end_of_the_turn_and_no_more_than_so_many() {
        let mut shard = shard(&MEMORY);
        let mut client = client(&shard, "", &[]);
        shard.turn(&mut mio::Events::with_capacity(8));
        let key = shard.keys().next().unwrap();

        let mut read = [0; 100];
        shard.answer(key, Bytes::from_static(b"one "));
        shard.answer(key, Bytes::from_static(b"two"));
        assert_eq!(client.read(&mut read).unwrap_err().kind(), ErrorKind::WouldBlock);
        shard.turn(&mut mio::Events::with_capacity(8));
        let n = client.read(&mut read).unwrap();
        assert_eq!(&read[..n], b"one two");

        let kilobyte = Bytes::from_static(&[b'.'; 1024]);
        for _ in 0..62 {
            shard.answer(key, kilobyte.clone());
        }
        assert!(shard.answers.is_empty(), "each takes a little more than its bytes");
        let small = MAX / size_of::<(Key, Bytes)>();
        for _ in 0..small {
            shard.answer(key, Bytes::from_static(b"."));
        }
        assert!(shard.answers.all.len() < small);
    }

    const CONNECT: &str = r#"{"type":"connect"}"#;
    const SUBSCRIBE: &str = r#"{"type":"subscribe","id":1,"room":"chat"}"#;

    #[tokio::test]
    async fn an_upgrade_is_answered_together_with_what_was_said_early() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [MEMORY, Kind::Sqlite { data_dir: folder.path().to_owned() }] {
            let mut shard = shard(&kind);
            let mut client = client(&shard, "upgraded", &[CONNECT]);
            let read = first_read(&mut shard, &mut client);
            assert!(are_in_order(&read, &["upgraded", "connected"]), "{kind:?}: {read}");
        }
        let mut shard = shard(&MEMORY);
        let mut client = client(&shard, "upgraded", &[CONNECT, SUBSCRIBE]);
        let read = first_read(&mut shard, &mut client);
        assert!(are_in_order(&read, &["upgraded", "connected", "subscribed"]), "{read}");
    }

    #[tokio::test]
    async fn an_upgrade_is_answered_at_once_where_nothing_was_said_and_before_whatever_becomes_of_the_rest() {
        let (mut shard, _keeping) = shard_without_keeper();
        let mut silent = client(&shard, "upgraded", &[]);
        assert_eq!(first_read(&mut shard, &mut silent), "upgraded");
        let mut wrong = client(&shard, "upgraded", &["{}"]);
        assert!(are_in_order(&first_read(&mut shard, &mut wrong), &["upgraded", "bad_frame"]));
        // The shard is told to stop before it knows the session.
        let mut early = client(&shard, "upgraded", &[CONNECT, SUBSCRIBE]);
        let until = clock::now() + std::time::Duration::from_mins(1);
        shard.inbox().push(Event::Drain { window: std::time::Duration::ZERO, until });
        let read = first_read(&mut shard, &mut early);
        assert!(are_in_order(&read, &["upgraded", "disconnect", "draining"]), "{read}");
        assert!(!read.contains("connected"), "{read}");
    }

    #[tokio::test]
    async fn an_upgrade_is_answered_where_no_session_comes_in_time() {
        let (mut shard, mut keeping) = shard_without_keeper();
        let start = clock::now();
        at(start);
        let mut client = client(&shard, "upgraded", &[CONNECT]);
        shard.turn(&mut mio::Events::with_capacity(8));
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        at(start + std::time::Duration::from_secs(7));
        let read = first_read(&mut shard, &mut client);
        assert!(are_in_order(&read, &["upgraded", "connected"]), "{read}");
        assert!(!read.contains("session"), "{read}");
        // The one that comes too late changes nothing, and is given back.
        keeping.round();
        assert_eq!(shard.telemetry.sessions.get(), 1);
        shard.turn(&mut mio::Events::with_capacity(8));
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        keeping.round();
        assert_eq!(shard.telemetry.sessions.get(), 0);
        manual::set(None);
    }
}
