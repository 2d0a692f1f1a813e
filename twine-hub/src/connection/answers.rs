//! What clients are answered: gathered over a turn, and written to each in one piece, unless something else has to be
//! written before.

use bytes::{Bytes, BytesMut};

use super::shard::Shard;
use super::state::{Connection, Key, Phase};

/// Answers that are gathered at most. They do not count among those that wait for their sockets
/// ([`super::socket::MAX_QUEUED`]), where a client that takes none is left alone.
const MAX: usize = 1024;

impl Shard {
    /// Answers a client, at the end of the turn at the latest. Who asks for several things at once gets one write as a rule.
    pub(super) fn answer(&mut self, key: Key, frame: Bytes) {
        let upgrade = self.connection(key).and_then(Connection::take_upgrade);
        self.answers.extend(upgrade.map(|upgrade| (key, upgrade)));
        self.answers.push((key, frame));
        if self.answers.len() >= MAX {
            self.write_answers();
        }
    }

    /// Has the answer to its upgrade, the last given, wait for a client's session where the client has asked for that
    /// already: it can do nothing before, and gets both in one write.
    pub(super) fn hold_upgrade(&mut self, key: Key) {
        if self.connection(key).is_some_and(|connection| connection.phase == Phase::Attaching)
            && let Some((_, upgrade)) = self.answers.pop_if(|(of, _)| *of == key)
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
        let mut answers = std::mem::take(&mut self.answers);
        // Of one client they stay in their order.
        answers.sort_by_key(|(key, _)| *key);
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
        self.answers = answers;
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
    use crate::connection::put_frame;
    use crate::rooms::{self, Rooms};
    use crate::session::{CookieHash, Sessions};
    use crate::store::{self, Kind, Retention};
    use crate::telemetry::Telemetry;

    fn shard(kind: &Kind) -> Shard {
        let telemetry = Arc::new(Telemetry::default());
        let store = store::Options { kind: kind.clone(), retention: Retention::Forever };
        let rooms = Rooms::open(&store, &rooms::Options::default(), telemetry.clone()).unwrap();
        let sessions = Sessions::open(kind, crate::Config::default().sessions(), telemetry.clone()).unwrap();
        let surroundings = Surroundings { rooms, sessions, permissions: None, telemetry };
        Shard::new(surroundings, Options::default()).unwrap()
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
        loop {
            match client.read(&mut buffer) {
                Ok(n) => return String::from_utf8_lossy(&buffer[..n]).into_owned(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            shard.turn(&mut mio::Events::with_capacity(8));
        }
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

        let mut read = [0; 2 * MAX];
        shard.answer(key, Bytes::from_static(b"one "));
        shard.answer(key, Bytes::from_static(b"two"));
        assert_eq!(client.read(&mut read).unwrap_err().kind(), ErrorKind::WouldBlock);
        shard.turn(&mut mio::Events::with_capacity(8));
        let n = client.read(&mut read).unwrap();
        assert_eq!(&read[..n], b"one two");

        (0..MAX).for_each(|_| shard.answer(key, Bytes::from_static(b".")));
        assert_eq!(client.read(&mut read).unwrap(), MAX);
        assert!(shard.answers.is_empty());
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
        let folder = tempfile::tempdir().unwrap();
        let mut shard = shard(&Kind::Sqlite { data_dir: folder.path().to_owned() });
        let mut silent = client(&shard, "upgraded", &[]);
        assert_eq!(first_read(&mut shard, &mut silent), "upgraded");
        let mut wrong = client(&shard, "upgraded", &["{}"]);
        assert!(are_in_order(&first_read(&mut shard, &mut wrong), &["upgraded", "bad_frame"]));
        // The shard is told to stop before it can know the session.
        let mut early = client(&shard, "upgraded", &[CONNECT, SUBSCRIBE]);
        let until = crate::clock::now() + std::time::Duration::from_mins(1);
        shard.inbox().push(Event::Drain { window: std::time::Duration::ZERO, until });
        let read = first_read(&mut shard, &mut early);
        assert!(are_in_order(&read, &["upgraded", "disconnect", "draining"]), "{read}");
        assert!(!read.contains("connected"), "{read}");
    }
}
