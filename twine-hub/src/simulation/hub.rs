//! The hub: its own parts, each without its thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use twine_protocol::api::Published;

use super::machine::{Mortal, Shared, Witness};
use crate::broker::{Committer, PublishError};
use crate::clock;
use crate::connection::by_hand::ShardByHand;
use crate::connection::{self, Handover};
use crate::rooms::{self, NewMessage, Rooms, Serving, locked};
use crate::rounds::Rounds as _;
use crate::session::{self, Keeping, Sessions};
use crate::store::{self, Kind, Opened, Retention};
use crate::telemetry::Telemetry;

/// How a hub is set up.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) retention: Retention,
    pub(super) rooms: rooms::Options,
    pub(super) connections: connection::Options,
    pub(super) sessions: session::Options,
}

/// A publish under way.
pub(super) type Publishing = Pin<Box<dyn Future<Output = Result<Vec<Published>, PublishError>>>>;

pub(super) struct Hub {
    rooms: Rooms,
    committer: Committer,
    serving: Serving,
    keeping: Keeping,
    shards: Vec<ShardByHand>,
    retention: Retention,
}

impl Hub {
    /// Starts a hub on what is on the machine's disk, which must be all that was ever committed.
    pub(super) fn start(machine: &Shared, settings: &Settings) -> Self {
        let kind = Kind::Sqlite { data_dir: locked(machine).folder().to_owned() };
        let options = store::Options { kind: kind.clone(), retention: settings.retention };
        let Opened { writer, mut reader } = store::open(&options).unwrap();
        let mut held = locked(machine);
        held.present().is_what(&mut *reader);
        held.present().begins(writer.epoch());
        drop(held);
        let telemetry = Arc::new(Telemetry::default());
        let writer = Box::new(Witness::new(writer, machine.clone()));
        let (rooms, committer, serving) =
            Rooms::by_hand(Opened { writer, reader }, settings.retention, &settings.rooms, telemetry.clone());
        let store = session::store::open(&kind, clock::unix_millis()).unwrap();
        let store = Box::new(Mortal::new(store, machine.clone()));
        let (sessions, keeping) = Sessions::new(store, settings.sessions.clone(), telemetry.clone());
        let shard = || ShardByHand::new(&rooms, &sessions, settings.connections.clone(), telemetry.clone());
        let shards = (0..settings.connections.shards).map(|_| shard()).collect();
        Self { rooms, committer, serving, keeping, shards, retention: settings.retention }
    }

    /// All rooms go on in a new epoch, while they are watched.
    pub(super) fn cross(&mut self, machine: &Shared) {
        let kind = Kind::Sqlite { data_dir: locked(machine).folder().to_owned() };
        let options = store::Options { kind, retention: self.retention };
        self.committer.reopen(|| {
            let writer = store::open(&options).unwrap().writer;
            locked(machine).present().begins(writer.epoch());
            Box::new(Witness::new(writer, machine.clone()))
        });
    }

    pub(super) fn publish(&self, messages: Vec<NewMessage>) -> Publishing {
        let rooms = self.rooms.clone();
        Box::pin(async move { rooms.publish(messages).await })
    }

    pub(super) fn n_shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn adopt(&self, shard: usize, handover: Handover) {
        self.shards[shard].adopt(handover);
    }

    /// A round of the committer.
    pub(super) fn commit(&mut self) {
        self.committer.round();
    }

    /// Answers one read of the store, if one waits.
    pub(super) fn read(&mut self) {
        self.serving.step();
    }

    /// A round of the keeper of sessions.
    pub(super) fn keep(&mut self) {
        self.keeping.round();
    }

    /// A turn of a shard.
    pub(super) fn turn(&mut self, shard: usize) {
        self.shards[shard].turn();
    }

    /// A turn of each shard.
    pub(super) fn turn_all(&mut self) {
        self.shards.iter_mut().for_each(ShardByHand::turn);
    }
}
