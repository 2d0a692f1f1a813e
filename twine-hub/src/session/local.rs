//! The sessions of a hub that is alone: one keeper has them all, and whoever asks has a handle to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::oneshot;
use twine_protocol::SessionId;

use super::keeper::{Command, Keeper, Now};
use super::store::{self, Store};
use super::{CookieHash, Options, Request, Save, Ticket};
use crate::rooms::locked;
use crate::rounds::{Orders, Queue, Rounds};
use crate::store::{Kind, StoreError};
use crate::telemetry::Telemetry;

/// A handle to the keeper; clones share it.
#[derive(Clone)]
pub(crate) struct LocalSessions(Arc<Shared>);

struct Shared {
    /// `None` says only that there are saves. What waits is bounded by those who ask: a connection has
    /// one claim under way, and one end. Nothing of it is ever dropped.
    commands: Orders<Option<Command>>,
    saves: Arc<WaitingSaves>,
}

impl Shared {
    fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> (Self, Keeping) {
        let (commands, saves) = (Orders::new(), Arc::<WaitingSaves>::default());
        let keeper = Keeper::new(store, options, telemetry, Now::read());
        let keeping = Keeping { keeper, waiting: commands.queue(), saves: saves.clone() };
        (Self { commands, saves }, keeping)
    }
}

/// Saves that wait for the keeper, of each attachment the latest: it has everything again.
pub(super) type WaitingSaves = Mutex<BTreeMap<Ticket, Save>>;

/// Commands of one round at most, beside the saves.
const MAX_COMMANDS: usize = 1_024;

impl LocalSessions {
    /// Opens the store for sessions that goes with the one for messages, after that one: its lock
    /// keeps other hubs out. Starts the keeper.
    ///
    /// # Errors
    /// Where the store is not to be had, damaged, or made by a later version.
    pub(super) fn open(kind: &Kind, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
        Self::start(store::open(kind, Now::read().time)?, options, telemetry)
    }

    /// Starts the keeper and its thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    fn start(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
        let waits = store.waits();
        let (mut shared, keeping) = Shared::new(store, options, telemetry);
        let started = shared.commands.start("twine-sessions", waits, keeping);
        started.map_err(|source| StoreError::Thread { source })?;
        Ok(Self(Arc::new(shared)))
    }

    /// A handle, and what has to be run for it.
    #[cfg(test)]
    pub(super) fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> (Self, Keeping) {
        let (shared, keeping) = Shared::new(store, options, telemetry);
        (Self(Arc::new(shared)), keeping)
    }

    pub(super) fn attach(&self, request: Request) {
        self.send(Some(Command::Attach(request)));
    }

    pub(super) fn save(&self, saves: Vec<Save>) {
        let is_first = {
            let mut waiting = locked(&self.0.saves);
            let is_first = waiting.is_empty();
            waiting.extend(saves.into_iter().map(|save| (save.ticket, save)));
            is_first
        };
        if is_first {
            self.send(None);
        }
    }

    pub(super) fn detach(&self, save: Save) {
        self.send(Some(Command::Detach(save)));
    }

    pub(super) fn alive(&self, session: SessionId, ticket: Ticket) {
        self.send(Some(Command::Alive { session, ticket }));
    }

    pub(super) async fn forget(&self, cookie: CookieHash) -> Result<(), Arc<StoreError>> {
        let (done, forgotten) = oneshot::channel();
        self.send(Some(Command::Forget { cookie, done }));
        forgotten.await.unwrap_or_else(|_| Err(Arc::new(self.ended())))
    }

    /// Whether the keeper is there.
    pub(super) fn health(&self) -> Result<(), Arc<StoreError>> {
        if self.0.commands.has_failed() { Err(Arc::new(StoreError::Ended)) } else { Ok(()) }
    }

    /// Saves what waits, refuses what comes, and closes the store.
    pub(super) async fn close(&self) {
        self.0.commands.close();
        let shared = self.0.clone();
        // A keeper that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || shared.commands.join()).await;
    }

    #[cfg(test)]
    pub(super) fn saves(&self) -> &WaitingSaves {
        &self.0.saves
    }

    /// Hands a command over. One that a closed keeper doesn't take is dropped, which answers it.
    fn send(&self, command: Option<Command>) {
        drop(self.0.commands.leave(command));
    }

    fn ended(&self) -> StoreError {
        if self.0.commands.has_failed() { StoreError::Ended } else { StoreError::Closed }
    }
}

/// What the keeper owns, and does in rounds.
pub(crate) struct Keeping {
    keeper: Keeper,
    waiting: Arc<Queue<Option<Command>>>,
    saves: Arc<WaitingSaves>,
}

impl Rounds for Keeping {
    fn due(&self) -> Instant {
        self.keeper.deadline()
    }

    fn round(&mut self) {
        let commands: Vec<_> = std::iter::from_fn(|| self.waiting.pop()).take(MAX_COMMANDS).collect();
        // After the commands were fetched: what was saved before one of them was asked for is done
        // before it. The other way round nothing is wrong, for a save of an attachment that is over has
        // no effect.
        let saves = std::mem::take(&mut *locked(&self.saves));
        let saves = saves.into_values().map(Command::Save);
        self.keeper.round(saves.chain(commands.into_iter().flatten()), Now::read());
    }

    fn end(&mut self) {
        self.keeper.close(Now::read());
    }
}
