//! The sessions of a hub that is alone: one thread keeps them, and whoever asks has a handle to it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use twine_protocol::SessionId;

use super::keeper::{Command, Keeper, Now};
use super::store::{self, Store};
use super::{CookieHash, Options, Request, Save, Ticket};
use crate::clock;
use crate::rooms::locked;
use crate::store::{Kind, StoreError};
use crate::telemetry::Telemetry;
use crate::threads;

/// A handle to the keeper; clones share its thread.
#[derive(Clone)]
pub(crate) struct LocalSessions(Arc<Shared>);

struct Shared {
    /// `None` says only that there are saves. What waits is bounded by those who ask: a connection has
    /// one claim under way, and one end. Nothing of it is ever dropped.
    commands: Mutex<Option<Sender<Option<Command>>>>,
    saves: Arc<WaitingSaves>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Saves that wait for the keeper, of each attachment the latest: it has everything again.
pub(super) type WaitingSaves = Mutex<BTreeMap<Ticket, Save>>;

/// Commands of one round at most, beside the saves.
const MAX_COMMANDS: usize = 1_024;

impl LocalSessions {
    /// Opens the store for sessions that goes with the one for messages, after that one: its lock
    /// keeps other hubs out. Starts the keeper's thread.
    ///
    /// # Errors
    /// Where the store is not to be had, damaged, or made by a later version.
    pub(super) fn open(kind: &Kind, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
        Self::start(store::open(kind, Now::read().time)?, options, telemetry)
    }

    /// Starts the keeper's thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    fn start(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
        let (sessions, mut keeping) = Self::new(store, options, telemetry);
        let thread = threads::spawn("twine-sessions", move || while keeping.round() {})
            .map_err(|source| StoreError::Thread { source })?;
        *locked(&sessions.0.thread) = Some(thread);
        Ok(sessions)
    }

    /// A handle, and what has to be run for it.
    pub(super) fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> (Self, Keeping) {
        let (commands, waiting) = channel();
        let saves = Arc::<WaitingSaves>::default();
        let keeper = Keeper::new(store, options, telemetry, Now::read());
        let keeping = Keeping { keeper, waiting, saves: saves.clone() };
        let commands = Mutex::new(Some(commands));
        (Self(Arc::new(Shared { commands, saves, thread: Mutex::default() })), keeping)
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

    /// Whether the keeper's thread is there.
    pub(super) fn health(&self) -> Result<(), Arc<StoreError>> {
        match &*locked(&self.0.thread) {
            Some(thread) if thread.is_finished() => Err(Arc::new(StoreError::Ended)),
            _ => Ok(()),
        }
    }

    /// Saves what waits, refuses what comes, and closes the store.
    pub(super) async fn close(&self) {
        drop(locked(&self.0.commands).take());
        let thread = locked(&self.0.thread).take();
        // One that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
    }

    #[cfg(test)]
    pub(super) fn saves(&self) -> &WaitingSaves {
        &self.0.saves
    }

    /// Hands a command over. One that a closed keeper doesn't take is dropped, which answers it.
    fn send(&self, command: Option<Command>) {
        if let Some(commands) = &*locked(&self.0.commands) {
            drop(commands.send(command));
        }
    }

    fn ended(&self) -> StoreError {
        match &*locked(&self.0.commands) {
            Some(_) => StoreError::Ended,
            None => StoreError::Closed,
        }
    }
}

/// What the keeper's thread owns, and does in rounds.
pub(crate) struct Keeping {
    keeper: Keeper,
    waiting: Receiver<Option<Command>>,
    saves: Arc<WaitingSaves>,
}

impl Keeping {
    /// Waits until there is something to do, and does it; false where nobody can ask any more.
    pub(crate) fn round(&mut self) -> bool {
        let first = match self.waiting.recv_timeout(clock::until(self.keeper.deadline())) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.keeper.close(Now::read());
                return false;
            }
        };
        let commands: Vec<_> = first.into_iter().chain(self.waiting.try_iter()).take(MAX_COMMANDS).collect();
        // After the commands were fetched: what was saved before one of them was asked for is done
        // before it. The other way round nothing is wrong, for a save of an attachment that is over has
        // no effect.
        let saves = std::mem::take(&mut *locked(&self.saves));
        let saves = saves.into_values().map(Command::Save);
        self.keeper.round(saves.chain(commands.into_iter().flatten()), Now::read());
        true
    }
}
