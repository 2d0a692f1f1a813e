//! What clients are answered: gathered over a turn, and written to each in one piece, unless something else has to be
//! written before.

use bytes::{Bytes, BytesMut};

use super::shard::Shard;
use super::state::Key;

/// Answers that are gathered at most. They do not count among those that wait for their sockets
/// ([`super::socket::MAX_QUEUED`]), where a client that takes none is left alone.
const MAX: usize = 64;

impl Shard {
    /// Answers a client, at the end of the turn at the latest. Who asks for several things at once gets one write as a rule.
    pub(super) fn answer(&mut self, key: Key, frame: Bytes) {
        self.answers.push((key, frame));
        if self.answers.len() >= MAX {
            self.write_answers();
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
    use crate::rooms::{self, Rooms};
    use crate::session::Sessions;
    use crate::store::{self, Kind, Retention};
    use crate::telemetry::Telemetry;

    #[tokio::test]
    async fn answers_wait_for_the_end_of_the_turn_and_no_more_than_so_many() {
        let (kind, telemetry) = (Kind::Memory { max_bytes: usize::MAX }, Arc::new(Telemetry::default()));
        let store = store::Options { kind: kind.clone(), retention: Retention::Forever };
        let rooms = Rooms::open(&store, &rooms::Options::default(), telemetry.clone()).unwrap();
        let sessions = Sessions::open(&kind, crate::Config::default().sessions(), telemetry.clone()).unwrap();
        let surroundings = Surroundings { rooms, sessions, permissions: None, telemetry };
        let mut shard = Shard::new(surroundings, Options::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let caller = Caller { cookie: None, origin: "".into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let handover = Handover { socket, read: Bytes::new(), is_compressed: false, caller };
        shard.inbox().push(Event::Adopt(Place(Arc::default()), handover));
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
}
