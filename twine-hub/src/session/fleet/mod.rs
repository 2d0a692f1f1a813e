//! The sessions of a fleet: shared in Redis, so that a client may come to any hub.
//!
//! Who gets which is chosen as on a hub that is alone ([`choice`](super::choice)), from what was read of the
//! cookie's sessions, and done by a script only if nothing of that has changed ([`shelf`]): of two hubs that
//! decide at once one decides again. So an attachment is one hub's, by its id and ticket, and whoever writes
//! a session says by which: a hub whose attachment was taken over is refused, and its connection ends.
//!
//! ```text
//!  connection ─▶ claims: read, choose, do ─▶ answer            Redis: rows, rooms
//!       └──────▶ owed ─▶ saving, in batches ────────────────▶
//!  other hubs ◀─ letters: lose, probe, alive ─▶ (a channel of each hub)
//! ```
//!
//! A hub has a lease while it lives. What is held by one whose lease has lapsed counts as detached when it
//! was last heard of, for a hub that could renew its own all the time. Letters get lost, and Redis may lose all of it: a session that a connection holds is
//! put back with what it saves next, and every hub has its connections save once it has been cut off.

mod asks;
mod claims;
mod held;
mod letters;
mod owed;
mod row;
mod saving;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twine_protocol::SessionId;

use self::asks::{Asks, Sign};
use self::claims::Turn;
use self::held::{Held, Kept};
use self::letters::Letter;
use self::owed::{Ended, Entry, Owed};
use self::row::{Holding, HubId};
use self::shelf::{Shelf, lease_of};
use super::newcomers::Newcomers;
use super::{Bound, CookieHash, Lost, Options, Request, Save, Ticket};
use crate::broker::redis::{Arrival, Bus, Limits, Link, RedisError, Target};
use crate::rooms::locked;
use crate::seldom::Seldom;
use crate::store::StoreError;
use crate::telemetry::{self, Telemetry};

/// For how long a hub has said that it lives when it says so, and how often it does.
const LEASE: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// How long a session that is held may go unsaved: so it is put back if Redis has lost it, and not taken for
/// one that nobody comes back to.
const REFRESH_AFTER: Duration = Duration::from_mins(15);
/// How often that is looked for, and who waits no more is forgotten.
const CHORES_EVERY: Duration = Duration::from_secs(30);
/// How long Redis may take. Whoever opens a connection waits no longer for a session.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why sessions can't be had now. It passes.
#[derive(Debug, Clone, thiserror::Error)]
enum SessionsError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("other hubs decide about the sessions of one cookie again and again")]
    Restless,
    #[error("the system gives no random bytes for a session")]
    Random,
}

/// A handle to the sessions of a fleet; clones share it.
#[derive(Clone)]
pub(crate) struct FleetSessions(Arc<Shared>);

struct Shared {
    hub: HubId,
    link: Link,
    shelf: Shelf,
    options: Options,
    telemetry: Arc<Telemetry>,
    last_ticket: AtomicU64,
    /// Since when this hub has renewed its lease without a failure.
    steady_since: Mutex<Option<Instant>>,
    held: Mutex<Held>,
    newcomers: Mutex<Newcomers>,
    /// Claims that have their turn after another of their cookie; a cookie is there while a task works.
    claims: Mutex<HashMap<CookieHash, VecDeque<Turn>>>,
    asks: Mutex<Asks>,
    owed: Mutex<Owed>,
    /// Something is owed.
    is_due: Notify,
    /// Counts the rounds in which it was tried to save what is owed.
    rounds: watch::Sender<u64>,
    failures: Seldom,
    is_closed: AtomicBool,
    /// What saves; it ends when all is saved.
    saving: Mutex<Option<JoinHandle<()>>>,
    /// Ends what goes on until the hub ends.
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Connections ask from threads of their own.
    runtime: Handle,
}

impl FleetSessions {
    /// Begins to connect, on connections of its own: sessions must not hold up messages.
    ///
    /// # Errors
    /// Where TLS can't be set up.
    pub(super) fn join(
        redis: &Target,
        options: Options,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, StoreError> {
        let limits = Limits { deadline: DEADLINE, ..Limits::default() };
        let (link, bus) = Link::start(redis, limits).map_err(|source| StoreError::Fleet(Box::new(source)))?;
        // What nothing is heard of is kept for its lifetime; what is held is heard of in time.
        let ttl = options.lifetime + 2 * REFRESH_AFTER;
        let shared = Arc::new(Shared {
            hub: HubId::new(),
            shelf: Shelf::new(link.clone(), ttl, options.max_sessions),
            link,
            newcomers: Mutex::new(Newcomers::new(options.max_new_per_minute)),
            options,
            telemetry,
            last_ticket: AtomicU64::new(0),
            steady_since: Mutex::default(),
            held: Mutex::default(),
            claims: Mutex::default(),
            asks: Mutex::default(),
            owed: Mutex::default(),
            is_due: Notify::new(),
            rounds: watch::Sender::new(0),
            failures: Seldom::default(),
            is_closed: AtomicBool::new(false),
            saving: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        tracing::debug!(hub = ?shared.hub, "this hub's name among those that share sessions");
        *locked(&shared.saving) = Some(tokio::spawn(shared.clone().keep_saving()));
        shared.go_on(|shared| async move { shared.keep_lease().await });
        shared.go_on(|shared| async move { shared.keep_tidy().await });
        shared.go_on(|shared| async move { shared.hear(bus).await });
        Ok(Self(shared))
    }

    pub(super) fn attach(&self, request: Request) {
        // Dropping a request answers it.
        if !self.0.is_closed.load(Ordering::Acquire) {
            self.0.queue(Turn::first(request));
        }
    }

    pub(super) fn save(&self, saves: Vec<Save>) {
        let now = Instant::now();
        let mut held = locked(&self.0.held);
        let mut owed = locked(&self.0.owed);
        for Save { session, ticket, rooms } in saves {
            let Some(attachment) = held.current(&session, ticket) else { continue };
            attachment.saved = now;
            if attachment.kept == Kept::Shared || !rooms.is_empty() {
                owed.put(Entry { about: attachment.about.clone(), ticket, rooms, ended: None });
            }
        }
        drop((held, owed));
        self.0.is_due.notify_one();
    }

    pub(super) fn detach(&self, Save { session, ticket, rooms }: Save) {
        let Some(attachment) = locked(&self.0.held).remove_current(&session, ticket) else { return };
        self.0.count_held();
        let kept = attachment.kept;
        if kept == Kept::Shared || !rooms.is_empty() {
            let ended = Some(Ended { kept });
            locked(&self.0.owed).put(Entry { about: attachment.about.clone(), ticket, rooms, ended });
            self.0.is_due.notify_one();
        }
        self.0.tell_of(&session, attachment.asked_by, Sign::Gone);
    }

    pub(super) fn alive(&self, session: &SessionId, ticket: Ticket) {
        let asked_by = match locked(&self.0.held).current(session, ticket) {
            Some(attachment) => std::mem::take(&mut attachment.asked_by),
            None => return,
        };
        self.0.tell_of(session, asked_by, Sign::Alive);
    }

    pub(super) async fn forget(&self, cookie: CookieHash) -> Result<(), Arc<StoreError>> {
        let rows = self.0.shelf.forget(cookie).await;
        let rows = rows.map_err(|error| Arc::new(StoreError::Fleet(Box::new(error))))?;
        locked(&self.0.owed).forget(cookie);
        let here: Vec<_> = {
            let held = locked(&self.0.held);
            let here = held.here(cookie);
            here.map(|attachment| (attachment.about.session.id.clone(), attachment.ticket)).collect()
        };
        for (id, ticket) in here {
            self.0.lose(&id, ticket, Lost::Forgotten);
        }
        for row in rows {
            if let Some(held_by) = &row.held_by {
                self.0.tell_lost(&row.about.session.id, held_by, Lost::Forgotten);
            }
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        let shared = &self.0;
        shared.is_closed.store(true, Ordering::Release);
        shared.stop.cancel();
        shared.tasks.close();
        let saving = locked(&shared.saving).take();
        if let Some(saving) = saving {
            // One that panicked has said so.
            drop(saving.await);
        }
        let n = locked(&shared.owed).len();
        if n > 0 {
            tracing::error!(n, "sessions could not be saved: their browsers go on from an earlier place");
        }
        // Where it can't be said, the lease lapses.
        drop(shared.shelf.end(&shared.hub).await);
        // Claims under way fail then.
        shared.link.close().await;
        shared.tasks.wait().await;
    }
}

impl Shared {
    /// Starts something that goes on until the hub ends.
    fn go_on<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, run: impl FnOnce(Arc<Self>) -> F) {
        let (stop, running) = (self.stop.clone(), run(self.clone()));
        self.spawn(async move {
            stop.run_until_cancelled(running).await;
        });
    }

    /// Starts something that ends by itself.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn_on(task, &self.runtime));
    }

    /// Says again and again that this hub lives.
    async fn keep_lease(&self) {
        loop {
            let renewed = self.shelf.renew(&self.hub, LEASE).await;
            {
                let mut steady_since = locked(&self.steady_since);
                *steady_since = renewed.is_ok().then(|| steady_since.unwrap_or_else(Instant::now));
            }
            if let Err(error) = renewed {
                self.say(&error.into());
            }
            tokio::time::sleep(RENEW_EVERY).await;
        }
    }

    /// Has what is held saved now and then, and forgets who waits no more.
    async fn keep_tidy(&self) {
        loop {
            tokio::time::sleep(CHORES_EVERY).await;
            self.refresh(REFRESH_AFTER);
            locked(&self.asks).tidy();
        }
    }

    /// Has those sessions saved of which nothing was said for so long.
    fn refresh(&self, after: Duration) {
        let now = Instant::now();
        for attachment in locked(&self.held).all_mut() {
            if attachment.kept == Kept::Shared && now.duration_since(attachment.saved) >= after {
                attachment.saved = now;
                attachment.holder.refresh(attachment.key, attachment.ticket);
            }
        }
    }

    /// Reads this hub's letters.
    async fn hear(self: &Arc<Self>, mut bus: Bus) {
        // Where it is not in force in time, it comes later.
        drop(self.link.watch_channel(&lease_of(&self.hub)).await);
        while let Some(arrival) = bus.arrival().await {
            match arrival {
                Arrival::Pushed(pushed) => {
                    if let Some(letter) = Letter::read(&pushed.payload) {
                        self.take(letter);
                    } else {
                        tracing::debug!("a letter of another hub can't be read");
                    }
                }
                // This hub was cut off: letters may be lost, and what was in Redis as well.
                Arrival::Interrupted => {
                    *locked(&self.steady_since) = None;
                    self.refresh(Duration::ZERO);
                }
            }
        }
    }

    fn take(self: &Arc<Self>, letter: Letter) {
        match letter {
            Letter::Lose { session, ticket, why } => {
                self.lose(&session, ticket, why);
            }
            Letter::Probe { session, ticket, from } => {
                let mut held = locked(&self.held);
                if let Some(attachment) = held.current(&session, ticket) {
                    if !attachment.asked_by.contains(&from) {
                        attachment.asked_by.push(from);
                    }
                    attachment.holder.probe(attachment.key, ticket);
                } else {
                    // Who is just being answered is there.
                    let is_expected = held.expects(&session, ticket);
                    drop(held);
                    let sign = if is_expected { Sign::Alive } else { Sign::Gone };
                    self.tell_others(&session, vec![from], sign);
                }
            }
            Letter::Alive { session } => locked(&self.asks).say(&session, Sign::Alive),
            Letter::Gone { session } => locked(&self.asks).say(&session, Sign::Gone),
        }
    }

    /// Sends a letter. One that can't be sent is lost.
    fn post(self: &Arc<Self>, to: HubId, letter: Letter) {
        let shared = self.clone();
        self.spawn(async move {
            if let Err(error) = letter.post(&shared.link, &to).await {
                tracing::debug!(%error, ?to, "another hub could not be told of a session");
            }
        });
    }

    /// Tells whoever waits for a sign of a session: claims here, and other hubs.
    fn tell_of(self: &Arc<Self>, session: &SessionId, asked_by: Vec<HubId>, sign: Sign) {
        locked(&self.asks).say(session, sign);
        self.tell_others(session, asked_by, sign);
    }

    /// Tells other hubs. What is gone is so once what it leaves is there for them.
    fn tell_others(self: &Arc<Self>, session: &SessionId, hubs: Vec<HubId>, sign: Sign) {
        if hubs.is_empty() {
            return;
        }
        let (shared, session) = (self.clone(), session.clone());
        self.spawn(async move {
            let letter = match sign {
                Sign::Alive => Letter::Alive { session },
                Sign::Gone => {
                    shared.saved(Owed::is_settled).await;
                    Letter::Gone { session }
                }
            };
            for hub in hubs {
                shared.post(hub, letter.clone());
            }
        });
    }

    /// Tells the holder of a session, wherever it is, that it is so no more.
    fn tell_lost(self: &Arc<Self>, session: &SessionId, held_by: &Holding, why: Lost) {
        if held_by.hub != self.hub {
            let letter = Letter::Lose { session: session.clone(), ticket: held_by.ticket, why };
            return self.post(held_by.hub.clone(), letter);
        }
        self.lose(session, held_by.ticket, why);
    }

    /// Ends an attachment of this hub, if it is in force, and tells its connection.
    fn lose(self: &Arc<Self>, session: &SessionId, ticket: Ticket, why: Lost) {
        let attachment = {
            let mut held = locked(&self.held);
            held.lose_expected(session, ticket);
            held.remove_current(session, ticket)
        };
        if let Some(attachment) = attachment {
            attachment.lose(why);
            self.tell_of(session, attachment.asked_by, Sign::Gone);
        }
        self.count_held();
    }

    fn holding(&self, ticket: Ticket) -> Holding {
        Holding { hub: self.hub.clone(), ticket }
    }

    fn next_ticket(&self) -> Ticket {
        Ticket(self.last_ticket.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn count_held(&self) {
        let n = locked(&self.held).len();
        self.telemetry.sessions.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    fn count_dropped(&self, bound: Bound, n: u64) {
        let label = telemetry::Bound { bound: bound.as_str() };
        self.telemetry.sessions_dropped.get_or_create(&label).inc_by(n);
    }

    /// An operator hears of it from the broker too.
    fn say(&self, error: &SessionsError) {
        self.failures.say(|unsaid| {
            tracing::warn!(%error, unsaid, "sessions are neither kept nor found for now");
        });
    }
}
