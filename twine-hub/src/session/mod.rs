//! Sessions: what a browser comes back to (PROTOCOL.md, "Sessions").
//!
//! A session is a set of rooms with a cursor each, and outlives the connections that hold it. One
//! thread, the keeper, decides who gets which ([`keeper`]), so that two connections never take up
//! the same one, and writes them to a store of their own ([`store`]): sessions are many, small and
//! short-lived, and must not hold up messages. The connection that holds a session has its cursors
//! in memory and gives them back in batches and when it ends; nothing is written for a message.
//!
//! A session proves nothing by its id. What it belongs to is an [`Identity`], and all of that has to
//! be equal: the cookie (of which a hash is kept), the page's origin, the subject and the scope.

mod keeper;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use twine_protocol::{InstanceId, Position, RoomName, SessionId};
use uuid::Uuid;

use self::keeper::{Command, Keeper, Now, Request};
use self::store::Store;
use crate::clock;
use crate::connection::Key;
use crate::rooms::locked;
use crate::store::{Kind, StoreError};
use crate::telemetry::Telemetry;
use crate::threads;

/// How sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long a session is kept after its connection has ended.
    pub lifetime: Duration,
    /// Sessions in all; the ones detached longest go first.
    pub max_sessions: usize,
    /// Sessions of one cookie; the oldest go first.
    pub max_per_cookie: usize,
    /// Rooms of a session. Its connection keeps to it, for there a client could have it grow; here it
    /// bounds what a session inherits.
    pub max_rooms: usize,
    /// New sessions a minute that one public address may have stored; 0 stands for any number.
    pub max_new_per_minute: u32,
}

/// What a browser's cookie is known by here: a hash, so that whoever reads the store can't show the
/// cookie itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CookieHash([u8; 16]);

impl CookieHash {
    /// The hash of a `twineid`: the first half of its SHA-256.
    pub(crate) fn of(twineid: Uuid) -> Self {
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(Sha256::digest(twineid)) {
            *to = from;
        }
        Self(half)
    }
}

/// Who opened a connection, as its HTTP request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Visitor {
    pub(crate) cookie: CookieHash,
    /// The page's origin; empty for a program that has none.
    pub(crate) origin: Arc<str>,
    /// Where it comes from.
    pub(crate) address: IpAddr,
}

/// Whose a session is. All of it has to be equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) visitor: Visitor,
    /// Whom a token names; fixed for the session's life.
    pub(crate) subject: Option<Box<str>>,
    /// What the client keeps sessions of one origin apart by.
    pub(crate) scope: Box<str>,
}

/// What a connection asks for when it opens.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) identity: Identity,
    /// The session it says it had.
    pub(crate) session: Option<SessionId>,
    /// The client object.
    pub(crate) instance: Option<InstanceId>,
    /// The client object of the page before its reload.
    pub(crate) prev: Option<InstanceId>,
}

/// One attachment of a session to a connection. What is said for an earlier one counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Rooms and the cursors that were acknowledged for them, oldest room first.
pub(crate) type Cursors = Vec<(RoomName, Position)>;

/// What a claim brought.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: SessionId,
    pub(crate) ticket: Ticket,
    pub(crate) how: How,
    /// The session's rooms.
    pub(crate) rooms: Cursors,
    /// The latest cursors of other rooms, from detached sessions of the same cookie, origin and
    /// subject: where a room that this session does not know starts. At most
    /// [`Options::max_rooms`], those of the sessions detached last.
    pub(crate) inherited: Cursors,
}

/// Where a session came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// It is new.
    New,
    /// The one that was named goes on.
    Resumed,
    /// A copy of the one that was named, which another page holds.
    Copied,
    /// A detached one was taken up.
    Adopted,
}

impl How {
    /// Its name in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Resumed => "resumed",
            Self::Copied => "copied",
            Self::Adopted => "adopted",
        }
    }
}

/// What a connection gives back of its session. Whose it is the keeper knows from the claim, and
/// remembers until the first save that has a room was stored.
#[derive(Debug)]
pub(crate) struct Save {
    pub(crate) session: SessionId,
    pub(crate) ticket: Ticket,
    /// All its rooms.
    pub(crate) rooms: Cursors,
}

/// The connections of one shard, as the keeper sees them. Both return at once.
pub(crate) trait Holder: Send + Sync {
    /// The session that connection `key` held with this ticket is no longer its own.
    fn lose(&self, key: Key, ticket: Ticket, why: Lost);

    /// Pings connection `key`, if it still holds this ticket, and calls [`Sessions::alive`] once it
    /// says anything.
    fn probe(&self, key: Key, ticket: Ticket);
}

/// Why a connection loses its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Another connection has taken it over, or has asked for a sign of life in vain: this one is of no
    /// use to anybody and ends.
    TakenOver,
    /// It was forgotten, by log-out or a bound. The connection goes on without one.
    Forgotten,
}

/// A handle to all sessions of this hub; clones share the keeper's thread.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Shared>);

struct Shared {
    /// `None` says only that there are saves. What waits is bounded by those who ask: a connection has
    /// one claim under way, and one end. Nothing of it is ever dropped.
    commands: Mutex<Option<Sender<Option<Command>>>>,
    saves: Arc<WaitingSaves>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Saves that wait for the keeper, of each attachment the latest: it has everything again.
type WaitingSaves = Mutex<BTreeMap<Ticket, Save>>;

/// Commands of one round at most, beside the saves.
const MAX_COMMANDS: usize = 1_024;

impl Sessions {
    /// Opens the store for sessions that goes with the one for messages, after that one: its lock
    /// keeps other hubs out. Starts the keeper's thread.
    ///
    /// # Errors
    /// Where the store is not to be had, damaged, or made by a later version.
    pub(crate) fn open(kind: &Kind, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
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
    pub(crate) fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> (Self, Keeping) {
        let (commands, waiting) = channel();
        let saves = Arc::<WaitingSaves>::default();
        let keeper = Keeper::new(store, options, telemetry, Now::read());
        let keeping = Keeping { keeper, waiting, saves: saves.clone() };
        let commands = Mutex::new(Some(commands));
        (Self(Arc::new(Shared { commands, saves, thread: Mutex::default() })), keeping)
    }

    /// Claims a session for connection `key` of `holder`. `done` is called once, on the keeper's
    /// thread and perhaps seconds later, with `None` where the connection has to do without one. Where
    /// the connection has ended by then, [`Sessions::detach`] must be called all the same.
    pub(crate) fn attach(
        &self,
        claim: Claim,
        holder: Arc<dyn Holder>,
        key: Key,
        done: Box<dyn FnOnce(Option<Attached>) + Send>,
    ) {
        self.send(Some(Command::Attach(Request { claim, holder, key, done: Done::new(done) })));
    }

    /// Saves what these connections have acknowledged, soon.
    pub(crate) fn save(&self, saves: Vec<Save>) {
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

    /// Saves it for the last time: its connection has ended.
    pub(crate) fn detach(&self, save: Save) {
        self.send(Some(Command::Detach(save)));
    }

    /// Answers [`Holder::probe`].
    pub(crate) fn alive(&self, session: SessionId, ticket: Ticket) {
        self.send(Some(Command::Alive { session, ticket }));
    }

    /// Removes all sessions of a cookie; the connections that hold one lose it.
    ///
    /// # Errors
    /// Where the store fails: then they may still be there.
    pub(crate) async fn forget(&self, cookie: CookieHash) -> Result<(), Arc<StoreError>> {
        let (done, forgotten) = oneshot::channel();
        self.send(Some(Command::Forget { cookie, done }));
        forgotten.await.unwrap_or_else(|_| Err(Arc::new(self.ended())))
    }

    /// Whether the keeper's thread is there.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        match &*locked(&self.0.thread) {
            Some(thread) if thread.is_finished() => Err(Arc::new(StoreError::Ended)),
            _ => Ok(()),
        }
    }

    /// Saves what waits, refuses what comes, and closes the store.
    pub(crate) async fn close(&self) {
        drop(locked(&self.0.commands).take());
        let thread = locked(&self.0.thread).take();
        // One that panicked has said so.
        let _ = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
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

/// Who waits for the answer to a claim, and gets one in any case.
struct Done(Option<Box<dyn FnOnce(Option<Attached>) + Send>>);

impl Done {
    fn new(done: Box<dyn FnOnce(Option<Attached>) + Send>) -> Self {
        Self(Some(done))
    }

    fn answer(mut self, attached: Attached) {
        if let Some(done) = self.0.take() {
            done(Some(attached));
        }
    }
}

/// A claim that comes to nothing, whyever, is answered too.
impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(None);
        }
    }
}
