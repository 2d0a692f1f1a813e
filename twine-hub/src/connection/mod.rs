//! WebSocket connections: shards, each a thread that owns its connections and writes to them.
//!
//! A connection is handed over by `http` once its upgrade is granted, and belongs to one shard
//! until it ends. A shard ([`shard`]) is an event loop without locks or tasks: it reads frames
//! ([`input`], [`conversation`]), keeps a cursor for each subscription ([`subscription`]) and, when a room has
//! more, writes the same bytes to every socket that is up to date ([`fanout`]). A socket that takes
//! no more keeps its cursor and is brought up to date from the log once it takes more: nothing is
//! queued for it but the rest of the frame it was taking. It also reads and writes the sockets of publishers, as
//! its guests ([`guest`]).
//!
//! What one connection can hold in memory: the rest of one message or of the answers of one turn, [`socket::MAX_QUEUED`] bytes of
//! more answers, a frame of its own that has not arrived whole, or what it said with its handshake, and its session's
//! cursors ([`session`]).

mod answers;
#[cfg(test)]
pub(crate) mod by_hand;
mod conversation;
mod deadline;
mod drain;
mod ending;
mod fanout;
mod guest;
mod inbox;
mod input;
mod knock;
mod session;
mod shard;
mod socket;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod websocket;
mod wheel;

use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::auth::Permissions;
use crate::clock;
use crate::rooms::{Rooms, locked};
use crate::session::{CookieHash, Sessions};
use crate::store::page::Recovery;
use crate::telemetry::Telemetry;
use crate::threads;
pub(crate) use guest::Guest;
use guest::Visit;
use inbox::{Event, Inbox};
use knock::Knock;
pub(crate) use knock::Knocks;
use shard::{Shard, Surroundings};
pub(crate) use state::Key;
pub(crate) use websocket::put_frame;

/// What a connection may do and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Threads that own connections; 0 stands for one a core.
    pub shards: usize,
    /// Connections of this hub at most.
    pub max_connections: usize,
    /// Connections that may wait for their sessions or for the store, before new ones are told to
    /// come later.
    pub max_waiting: usize,
    /// How long a client has for its `connect` frame.
    pub connect_timeout: Duration,
    /// Time between two pings. A client that is silent for two of them is gone.
    pub heartbeat: Duration,
    /// The largest frame a client may send, in bytes.
    pub max_frame: usize,
    /// Rooms that one connection may be subscribed to.
    pub max_rooms: usize,
    /// Messages that `history` may ask for; more are cut to this.
    pub max_history: u32,
    /// How much of what it missed a subscription gets that comes with a cursor.
    pub recovery: Recovery,
    /// How long a socket may take no byte before its connection is closed.
    pub write_timeout: Duration,
    /// Rooms that a session holds; the oldest go first.
    pub max_session_rooms: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 0,
            max_connections: 100_000,
            max_waiting: 10_000,
            connect_timeout: Duration::from_secs(10),
            heartbeat: Duration::from_secs(25),
            max_frame: 64 << 10,
            max_rooms: 1_000,
            max_history: 1_000,
            recovery: Recovery { max_messages: 100_000, max_age: Duration::from_hours(24) },
            write_timeout: Duration::from_secs(30),
            max_session_rooms: 256,
        }
    }
}

/// A socket whose HTTP upgrade is answered with 101.
pub(crate) struct Handover {
    /// The socket, in non-blocking mode.
    pub(crate) socket: TcpStream,
    /// The answer to the upgrade, where it is not written yet: goes out first, and with the first frames where the
    /// client has said something already.
    pub(crate) answer: Bytes,
    /// What was read past the HTTP request, or said in it: frames.
    pub(crate) read: Vec<u8>,
    /// Whether messages may be compressed, in both directions.
    pub(crate) is_compressed: bool,
    /// Who opened it.
    pub(crate) caller: Caller,
}

/// Who opened a connection, as its HTTP request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// What its sessions hang on; `None` where the browser sent no cookie.
    pub(crate) cookie: Option<CookieHash>,
    /// The page's origin; empty for a program that has none.
    pub(crate) origin: Arc<str>,
    /// The other end's address.
    pub(crate) address: IpAddr,
}

/// A handle to all connections of this hub.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    inboxes: Vec<Arc<Inbox>>,
    next: AtomicUsize,
    open: Arc<AtomicUsize>,
    max: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A shard's thread has panicked: a fault of the hub. Restart it.
#[derive(Debug, thiserror::Error)]
#[error("a thread that serves connections has ended; restart the hub")]
pub(crate) struct ShardEnded;

/// Room for one connection; free again once dropped.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// Starts the shards' threads.
    ///
    /// # Errors
    /// Where the system gives no thread or no poll.
    pub(crate) fn start(
        rooms: &Rooms,
        sessions: &Sessions,
        permissions: Option<&Permissions>,
        options: &Options,
        telemetry: &Arc<Telemetry>,
    ) -> std::io::Result<Self> {
        let surroundings = Surroundings {
            rooms: rooms.clone(),
            sessions: sessions.clone(),
            permissions: permissions.cloned(),
            telemetry: telemetry.clone(),
        };
        let shards = match options.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        // Where one can't be started, dropping this ends those before it.
        let mut all = Shared {
            inboxes: Vec::with_capacity(shards),
            next: AtomicUsize::new(0),
            open: Arc::default(),
            max: options.max_connections,
            threads: Mutex::default(),
        };
        for n in 0..shards {
            let shard = Shard::new(surroundings.clone(), options.clone())?;
            all.inboxes.push(shard.inbox());
            let thread = threads::spawn(&format!("twine-shard-{n}"), move || shard.run())?;
            locked(&all.threads).push(thread);
        }
        Ok(Self(Arc::new(all)))
    }

    /// Takes a place for a connection, before its upgrade is answered; `None` when the hub is full.
    pub(crate) fn reserve(&self) -> Option<Place> {
        let before = self.0.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.0.open.clone());
        (before < self.0.max).then_some(place)
    }

    /// Connections that are open, and those whose upgrade is being answered.
    pub(crate) fn n_open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Connections that may be open at once.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// Knocks at every shard's door, to see how late they are.
    pub(crate) fn knock(&self) -> Knocks {
        let knocks = self.0.inboxes.iter().map(|inbox| {
            let knock = Arc::new(Knock::new());
            inbox.push(Event::Knock(knock.clone()));
            knock
        });
        Knocks(knocks.collect())
    }

    /// Gives the socket to a shard, each in turn.
    pub(crate) fn adopt(&self, place: Place, handover: Handover) {
        self.push(Event::Adopt(place, handover));
    }

    /// Has a shard, each in turn, look after a guest's socket, which must not block.
    pub(crate) fn host(&self, guest: Box<dyn Guest>, socket: TcpStream) {
        self.push(Event::Visit(Visit::new(guest, socket)));
    }

    fn push(&self, event: Event) {
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed);
        if let Some(inbox) = self.0.inboxes.get(turn % self.0.inboxes.len().max(1)) {
            inbox.push(event);
        }
    }

    /// Tells the clients to come back elsewhere or later, one after the other over `window`, closes all
    /// within `grace` and ends the threads.
    pub(crate) async fn drain(&self, window: Duration, grace: Duration) {
        // First, for a thread that ends from now on has no fault.
        let threads = std::mem::take(&mut *locked(&self.0.threads));
        self.0.end(window, clock::now() + grace);
        let join = move || threads.into_iter().map(JoinHandle::join).for_each(drop);
        // Those that panicked have said so.
        let _ = tokio::task::spawn_blocking(join).await;
    }

    /// Closes all at once and ends the threads, without waiting for that.
    pub(crate) fn end(&self) {
        self.0.end(Duration::ZERO, clock::now());
    }

    /// Whether every shard's thread is there. The connections of one that is not are closed, and so is
    /// what is given to it.
    pub(crate) fn health(&self) -> Result<(), ShardEnded> {
        let has_ended = locked(&self.0.threads).iter().any(JoinHandle::is_finished);
        if has_ended { Err(ShardEnded) } else { Ok(()) }
    }
}

impl Shared {
    fn end(&self, window: Duration, until: Instant) {
        for inbox in &self.inboxes {
            inbox.push(Event::Drain { window, until });
        }
    }
}

/// Without its handles a shard would live for ever.
impl Drop for Shared {
    fn drop(&mut self) {
        self.end(Duration::ZERO, clock::now());
    }
}
