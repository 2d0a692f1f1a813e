//! Sessions: what a browser comes back to (PROTOCOL.md, "Sessions").
//!
//! A session is a set of rooms with a cursor each, and outlives the connections that hold it. Who gets
//! which is chosen by the same rules everywhere ([`choice`]), and two connections never take up the same
//! one: of a hub that is alone one thread decides, the keeper ([`keeper`]), and writes them to a store of
//! their own ([`store`]); the hubs of a fleet share them in Redis ([`fleet`]). Sessions are many, small
//! and short-lived, and must not hold up messages. The connection that holds a session has its cursors in
//! memory and gives them back in batches and when it ends; nothing is written for a message.
//!
//! A session proves nothing by its id. What it belongs to is an [`Identity`], and all of that has to
//! be equal: the cookie (of which a hash is kept), the page's origin, the subject and the scope.

mod choice;
mod cursors;
mod fleet;
mod keeper;
mod local;
mod newcomers;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use twine_protocol::{InstanceId, SessionId};
use uuid::Uuid;

pub(crate) use self::cursors::Cursors;
use self::fleet::FleetSessions;
#[cfg(test)]
pub(crate) use self::local::Keeping;
use self::local::LocalSessions;
#[cfg(test)]
use self::store::Store;
use crate::broker::redis::Target;
use crate::clock;
use crate::connection::Key;
use crate::store::{Kind, StoreError};
use crate::telemetry::Telemetry;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

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

/// What a connection gives back of its session. Whose it is the claim has said, which is
/// remembered until the first save that has a room was stored.
#[derive(Debug, Clone)]
pub(crate) struct Save {
    pub(crate) session: SessionId,
    pub(crate) ticket: Ticket,
    /// All its rooms.
    pub(crate) rooms: Cursors,
}

/// The connections of one shard, as whoever keeps their sessions sees them. All return at once.
pub(crate) trait Holder: Send + Sync {
    /// The session that connection `key` held with this ticket is no longer its own.
    fn lose(&self, key: Key, ticket: Ticket, why: Lost);

    /// Pings connection `key`, if it still holds this ticket, and calls [`Sessions::alive`] once it
    /// says anything.
    fn probe(&self, key: Key, ticket: Ticket);

    /// Has connection `key` save its session soon, if it still holds this ticket, also where nothing of
    /// it has changed: what is kept of it may be lost, or would be forgotten as unused.
    fn refresh(&self, key: Key, ticket: Ticket);
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

/// A bound that costs sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Cookie,
    Hub,
    Address,
}

impl Bound {
    /// Its name in the metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Hub => "hub",
            Self::Address => "address",
        }
    }
}

/// A handle to all sessions that this hub knows; clones share them.
#[derive(Clone)]
pub(crate) enum Sessions {
    /// The hub is alone, and keeps them itself.
    Local(LocalSessions),
    /// The hub is one of several, which share them.
    Fleet(FleetSessions),
}

/// Called once with what a claim brought.
pub(crate) type OnAttached = Box<dyn FnOnce(Option<Attached>) + Send>;

impl Sessions {
    /// Opens the store for sessions that goes with the one for messages, after that one: its lock
    /// keeps other hubs out.
    ///
    /// # Errors
    /// Where the store is not to be had, damaged, or made by a later version.
    pub(crate) fn open(kind: &Kind, options: Options, telemetry: Arc<Telemetry>) -> Result<Self, StoreError> {
        LocalSessions::open(kind, options, telemetry).map(Self::Local)
    }

    /// Shares the sessions of a fleet, in its Redis, on the present runtime. While that is away there are
    /// none, and connections that open do without.
    ///
    /// # Errors
    /// Where TLS can't be set up.
    pub(crate) fn join(
        redis: &Target,
        options: Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        FleetSessions::join(redis, options, telemetry).map(Self::Fleet)
    }

    /// Those of a hub that is alone, and what has to be run for them.
    #[cfg(test)]
    pub(crate) fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>) -> (Self, Keeping) {
        let (local, keeping) = LocalSessions::new(store, options, telemetry);
        (Self::Local(local), keeping)
    }

    /// Claims a session for connection `key` of `holder`. `done` is called once, on any thread, before
    /// this returns or perhaps seconds later, with `None` where the connection has to do without one. Where the
    /// connection has ended by then, [`Sessions::detach`] must be called all the same.
    pub(crate) fn attach(&self, claim: Claim, holder: Arc<dyn Holder>, key: Key, done: OnAttached) {
        let request = Request { claim, holder, key, done: Done::new(done) };
        match self {
            Self::Local(local) => local.attach(request),
            Self::Fleet(fleet) => fleet.attach(request),
        }
    }

    /// Saves what these connections have acknowledged, soon.
    pub(crate) fn save(&self, saves: Vec<Save>) {
        match self {
            Self::Local(local) => local.save(saves),
            Self::Fleet(fleet) => fleet.save(saves),
        }
    }

    /// Saves it for the last time: its connection has ended.
    pub(crate) fn detach(&self, save: Save) {
        match self {
            Self::Local(local) => local.detach(save),
            Self::Fleet(fleet) => fleet.detach(save),
        }
    }

    /// Answers [`Holder::probe`].
    pub(crate) fn alive(&self, session: SessionId, ticket: Ticket) {
        match self {
            Self::Local(local) => local.alive(session, ticket),
            Self::Fleet(fleet) => fleet.alive(&session, ticket),
        }
    }

    /// Removes all sessions of a cookie; the connections that hold one lose it.
    ///
    /// # Errors
    /// Where the store fails: then they may still be there.
    pub(crate) async fn forget(&self, cookie: CookieHash) -> Result<(), Arc<StoreError>> {
        match self {
            Self::Local(local) => local.forget(cookie).await,
            Self::Fleet(fleet) => fleet.forget(cookie).await,
        }
    }

    /// Whether whatever decides about them is there. Where a fleet's Redis is away, its broker says so.
    pub(crate) fn health(&self) -> Result<(), Arc<StoreError>> {
        match self {
            Self::Local(local) => local.health(),
            Self::Fleet(fleet) => fleet.health(),
        }
    }

    /// Saves what waits, refuses what comes, and closes the store.
    pub(crate) async fn close(&self) {
        match self {
            Self::Local(local) => local.close().await,
            Self::Fleet(fleet) => fleet.close().await,
        }
    }
}

/// A claim and who makes it.
struct Request {
    claim: Claim,
    holder: Arc<dyn Holder>,
    key: Key,
    done: Done,
}

/// Who waits for the answer to a claim, and gets one in any case.
struct Done(Option<OnAttached>);

impl Done {
    fn new(done: OnAttached) -> Self {
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

/// A new session's id: the time and 80 random bits. An id is no secret, and those that are made together lie together
/// in an index, of which each would else take a page of its own to the disk.
///
/// # Errors
/// Where the system gives no random bits.
fn mint() -> std::io::Result<SessionId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    let id = u128::from(clock::unix_millis()) << 80 | u128::from_ne_bytes(random) >> 48;
    // 32 hexadecimal digits: always an id.
    #[allow(clippy::expect_used)]
    Ok(SessionId::new(&format!("{id:032x}")).expect("short and plain"))
}
