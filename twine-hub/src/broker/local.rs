//! The broker of one process: what the hub asks of its committer's thread.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use twine_protocol::{Epoch, Position, RoomName};

use super::backlog::Pending;
use super::committer::{Command, Committer, Health, Publish};
use super::{PublishError, Publishing};
use crate::clock;
use crate::rooms::{Delivery, NewMessage, Opened, Options, Reading, Watcher, locked};
use crate::store::{Retention, StoreError, Writer};
use crate::telemetry::Telemetry;
use crate::threads;

/// A handle to the committer's thread.
pub(crate) struct LocalBroker {
    commands: Mutex<Option<Sender<Command>>>,
    health: Health,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// For the heads of rooms that are not in memory: the thread that writes has better to do.
    reading: Arc<Reading>,
    epoch: Epoch,
}

impl LocalBroker {
    /// Starts the committer's thread.
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
        let (broker, mut committer) = Self::new(writer, delivery, reading, retention, options, telemetry);
        let thread = threads::spawn("twine-committer", move || while committer.round() {})
            .map_err(|source| StoreError::Thread { source })?;
        *locked(&broker.thread) = Some(thread);
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
        let (commands, waiting) = channel();
        let (health, epoch) = (Health::default(), writer.epoch().clone());
        let committer =
            Committer::new(waiting, writer, delivery, retention, options, telemetry, health.clone());
        let broker =
            Self { commands: Mutex::new(Some(commands)), health, thread: Mutex::default(), reading, epoch };
        (broker, committer)
    }

    /// Commits the messages, all or none, and delivers them.
    pub(super) fn publish(&self, messages: Vec<NewMessage>, pending: Pending) -> Publishing {
        let (answer, answered) = oneshot::channel();
        let publish = Publish { messages, arrived: clock::now(), pending, answer };
        if self.send(Command::Publish(publish)).is_some() {
            return Publishing::refused(self.ended());
        }
        Publishing::answered_by(answered)
    }

    /// Takes the room into memory and watches it there.
    pub(crate) fn open_and_watch(&self, name: RoomName, watcher: Watcher, opened: Opened) {
        if let Some(Command::Open { opened, .. }) = self.send(Command::Open { name, watcher, opened }) {
            opened(Err(Arc::new(StoreError::Closed)));
        }
    }

    /// Lets the room leave memory, if nothing holds it there.
    pub(crate) fn release(&self, name: RoomName) {
        // A broker that is closed has no rooms to release.
        drop(self.send(Command::Release { name }));
    }

    /// The head of a room that is not in memory.
    pub(crate) async fn head(&self, name: &RoomName) -> Result<Position, Arc<StoreError>> {
        let epoch = self.epoch.clone();
        let offset = self.reading.head(name.clone(), epoch.clone()).await?;
        Ok(Position { epoch, offset })
    }

    /// Hands a command over, or back when the broker is closed.
    fn send(&self, command: Command) -> Option<Command> {
        match &*locked(&self.commands) {
            Some(commands) => commands.send(command).err().map(|refused| refused.0),
            None => Some(command),
        }
    }

    /// Why nothing is taken any more: by intention, or because the thread panicked.
    fn ended(&self) -> PublishError {
        match &*locked(&self.commands) {
            Some(_) => PublishError::Store(Arc::new(StoreError::Ended)),
            None => PublishError::Draining,
        }
    }

    /// Whether the last attempt to write succeeded.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        if locked(&self.thread).as_ref().is_some_and(JoinHandle::is_finished) {
            return Err(Arc::new(StoreError::Ended));
        }
        self.health.get()
    }

    /// Commits what waits, refuses what comes, ends the thread.
    pub(crate) fn close(&self) {
        drop(locked(&self.commands).take());
        let thread = locked(&self.thread).take();
        // One that panicked has said so.
        let _ = thread.map(JoinHandle::join);
    }
}
