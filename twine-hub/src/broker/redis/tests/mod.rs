//! Against real servers.

mod faults;
mod layouts;
mod scripts;
pub(crate) mod server;
mod throughput;

use std::time::{Duration, Instant};

use twine_protocol::{Epoch, MessageId, Offset, Position, RoomName};

use self::server::PATIENCE;
use super::*;

/// A hub's end of Redis.
struct Hub {
    link: Link,
    bus: Bus,
    limits: RoomLimits,
}

impl Hub {
    fn at(url: &str) -> Self {
        // Commands of a test that should succeed must not fail because the machine is busy.
        Self::with(url, Limits { deadline: PATIENCE, connect: PATIENCE, ..Limits::default() })
    }

    /// One that gives up soon, for servers that don't answer.
    fn hasty(url: &str) -> Self {
        let (connect, deadline) = (Duration::from_millis(500), Duration::from_millis(500));
        Self::with(url, Limits { connect, deadline, ..Limits::default() })
    }

    fn with(url: &str, limits: Limits) -> Self {
        let (link, bus) = Link::start(&Target::parse(url).unwrap(), limits).unwrap();
        Self { link, bus, limits: RoomLimits::default() }
    }

    async fn publish(&self, room: &RoomName, id: &str) -> Result<Published, RedisError> {
        let id = MessageId::new(id).unwrap();
        self.link.publish(room, &id, Some("me"), &format!("\"{id}\""), None, &self.limits).await
    }

    /// Publishes what has to get a place.
    async fn assign(&self, room: &RoomName, id: &str) -> Offset {
        match self.publish(room, id).await.unwrap() {
            Published::Assigned { position, .. } => position.offset,
            other => panic!("{other:?}"),
        }
    }

    async fn commit(&self, room: &RoomName, epoch: &Epoch, offsets: &[u64]) -> Committed {
        let offsets: Vec<_> = offsets.iter().map(|&offset| Offset::new(offset).unwrap()).collect();
        self.link.commit(room, epoch, &offsets, &self.limits).await.unwrap()
    }

    /// Begins an epoch of a room that has to be rotated.
    async fn rotate(&self, room: &RoomName, epoch: &str) -> Epoch {
        let epoch = Epoch::new(epoch).unwrap();
        let Looked::Rotate(rotate) = self.link.look(room).await.unwrap() else { panic!("not to be rotated") };
        assert_eq!(self.link.install(room, &rotate.server, &epoch, 0).await.unwrap(), Installed::Yes);
        epoch
    }

    /// What the bus says next of messages: offsets and ids.
    async fn next_messages(&mut self) -> Vec<(u64, String)> {
        loop {
            match self.next().await {
                BusEvent::Said { chunk: Chunk::Messages { records, .. }, .. } => {
                    return records
                        .iter()
                        .map(|record| (record.offset.get(), record.id.as_ref().unwrap().as_str().to_owned()))
                        .collect();
                }
                BusEvent::Said { chunk: Chunk::Epoch(_), .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn next(&mut self) -> BusEvent {
        tokio::time::timeout(PATIENCE, self.bus.next()).await.expect("nothing on the bus").unwrap()
    }

    /// Waits for the news that messages may have been missed.
    async fn next_interruption(&mut self) {
        while !matches!(self.next().await, BusEvent::Interrupted) {}
    }
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

/// Tries until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < give_up, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn position(epoch: &Epoch, offset: u64) -> Position {
    Position { epoch: epoch.clone(), offset: Offset::new(offset).unwrap() }
}
