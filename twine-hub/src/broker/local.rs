//! The broker of one process: what the hub asks of its committer.

use std::sync::Arc;

use tokio::sync::oneshot;
use twine_protocol::{Epoch, Position, RoomName};

use super::backlog::Pending;
use super::committer::{Command, Committer, Health, Publish};
use super::{PublishError, Publishing};
use crate::clock;
use crate::rooms::{Delivery, NewMessage, Opened, Options, Reading, Watcher};
use crate::rounds::Orders;
use crate::store::{Retention, StoreError, Writer};
use crate::telemetry::Telemetry;

/// A handle to the committer.
pub(crate) struct LocalBroker {
    commands: Orders<Command>,
    health: Health,
    /// For the heads of rooms that are not in memory: the thread that writes has better to do.
    reading: Arc<Reading>,
    epoch: Epoch,
}

impl LocalBroker {
    /// Starts the committer and its thread.
    ///
    /// # Errors
    /// Where the system gives none.
    pub(crate) fn start(
        writer: Box<dyn Writer>,
        delivery: Delivery,
        reading: Arc<Reading>,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        let waits = writer.waits();
        let (mut broker, committer) = Self::new(writer, delivery, reading, retention, options, telemetry);
        let started = broker.commands.start("twine-committer", waits, committer);
        started.map_err(|source| StoreError::Thread { source })?;
        Ok(broker)
    }

    /// A handle, and what has to be run for it.
    pub(crate) fn new(
        writer: Box<dyn Writer>,
        delivery: Delivery,
        reading: Arc<Reading>,
        retention: Retention,
        options: &Options,
        telemetry: Arc<Telemetry>,
    ) -> (Self, Committer) {
        let commands = Orders::new();
        let (health, epoch) = (Health::default(), writer.epoch().clone());
        let committer =
            Committer::new(commands.queue(), writer, delivery, retention, options, telemetry, health.clone());
        let broker = Self { commands, health, reading, epoch };
        (broker, committer)
    }

    /// Commits the messages, all or none, and delivers them.
    pub(super) fn publish(&self, messages: Vec<NewMessage>, pending: Pending) -> Publishing {
        let (answer, answered) = oneshot::channel();
        let publish = Publish { messages, arrived: clock::now(), pending, answer };
        match self.commands.leave(Command::Publish(publish)) {
            Ok(()) => Publishing::answered_by(answered),
            Err(_) => Publishing::refused(self.ended()),
        }
    }

    /// Takes the room into memory and watches it there.
    pub(crate) fn open_and_watch(&self, name: RoomName, watcher: Watcher, opened: Opened) {
        if let Err(Command::Open { opened, .. }) =
            self.commands.leave(Command::Open { name, watcher, opened })
        {
            opened(Err(Arc::new(StoreError::Closed)));
        }
    }

    /// Lets the room leave memory, if nothing holds it there.
    pub(crate) fn release(&self, name: RoomName) {
        // A broker that is closed has no rooms to release.
        drop(self.commands.leave(Command::Release { name }));
    }

    /// The head of a room that is not in memory.
    pub(crate) async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        let epoch = self.epoch.clone();
        let offset = self.reading.head(name.clone(), epoch.clone()).await?;
        Ok(Position { epoch, offset })
    }

    /// Why nothing is taken any more: by intention, or because the committer panicked.
    fn ended(&self) -> PublishError {
        if self.commands.has_failed() {
            return PublishError::Store(Arc::new(StoreError::Ended));
        }
        PublishError::Draining
    }

    /// Whether the last attempt to write succeeded.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        if self.commands.has_failed() {
            return Err(Arc::new(StoreError::Ended));
        }
        self.health.get()
    }

    /// Commits what waits, refuses what comes, ends the committer. Blocks.
    pub(crate) fn close(&self) {
        self.commands.close();
        self.commands.join();
    }
}
