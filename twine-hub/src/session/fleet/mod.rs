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
//!  other hubs ◀─ letters: lose, probe, answer ─▶ (a channel of each hub)
//! ```
//!
//! A hub has a lease while it lives. What is held by one whose lease has lapsed counts as detached when it
//! was last heard of, for a hub that could renew its own all the time. Letters get lost, and Redis may lose
//! all of it or go back to an earlier state: a session that a connection holds is put back with what it saves
//! next, of two attachments the later one counts, and every hub has its connections save once it has been
//! cut off from any server. A log-out is told to all hubs on the channels of the buckets.

mod asks;
mod claims;
mod held;
mod letters;
mod owed;
mod row;
mod saving;
mod shelf;
mod talk;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use twine_protocol::SessionId;

use self::asks::{Asks, Sign};
use self::held::{Attachment, Held, Kept};
use self::owed::{Ended, Entry, Owed};
use self::row::{Holding, HubId};
use self::shelf::Shelf;
use self::turns::Turn;
use super::newcomers::Newcomers;
use super::{Bound, CookieHash, Cursors, Lost, Options, Request, Save, Ticket};
use crate::broker::redis::{Limits, Link, RedisError, Target};
use crate::rooms::locked;
use crate::seldom::Seldom;
use crate::store::StoreError;
use crate::telemetry::{self, Telemetry};

/// How long a session that is held may go unsaved, at most a quarter of its lifetime: so it is put back if
/// Redis has lost it, and not taken for one that nobody comes back to.
const REFRESH_AFTER: Duration = Duration::from_mins(15);
/// How often that is looked for, and who waits no more is forgotten.
const CHORES_EVERY: Duration = Duration::from_secs(30);
/// How long Redis may take for a command.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why sessions can't be had now. It passes.
#[derive(Debug, Clone, thiserror::Error)]
enum SessionsError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("other hubs decide about the sessions of one cookie again and again")]
    Restless,
    #[error("what connections have given back of the sessions of one cookie can't be saved in time")]
    Unsaved,
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
    last_save: AtomicU64,
    /// [`REFRESH_AFTER`], or less.
    refresh_after: Duration,
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
        let refresh_after = REFRESH_AFTER.min(options.lifetime / 4);
        let shared = Arc::new(Shared {
            hub: HubId::new(),
            shelf: Shelf::new(link.clone(), options.lifetime, refresh_after, options.max_sessions),
            refresh_after,
            link,
            newcomers: Mutex::new(Newcomers::new(options.max_new_per_minute)),
            options,
            telemetry,
            last_ticket: AtomicU64::new(0),
            last_save: AtomicU64::new(0),
            steady_since: Mutex::default(),
            held: Mutex::default(),
            claims: Mutex::default(),
            asks: Mutex::default(),
            owed: Mutex::default(),
            is_due: Notify::new(),
            rounds: watch::Sender::new(0),
            failures: Seldom::default(),
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
        if !self.0.stop.is_cancelled() {
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
                owed.put(self.0.entry(attachment, rooms, None));
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
            let entry = self.0.entry(&attachment, rooms, Some(Ended { kept }));
            locked(&self.0.owed).put(entry);
            self.0.is_due.notify_one();
        }
        self.0.tell_of(attachment, Sign::Gone);
    }

    pub(super) fn alive(&self, session: &SessionId, ticket: Ticket) {
        let (cookie, asked_by) = match locked(&self.0.held).current(session, ticket) {
            Some(attachment) => (attachment.about.session.cookie, std::mem::take(&mut attachment.asked_by)),
            None => return,
        };
        let asked = (session.clone(), self.0.holding(ticket));
        locked(&self.0.asks).say(&asked, Sign::Alive);
        self.0.tell_others(asked, cookie, asked_by, Sign::Alive);
    }

    pub(super) async fn forget(&self, cookie: CookieHash) -> Result<(), Arc<StoreError>> {
        let forgotten = self.0.shelf.forget(cookie).await;
        forgotten.map_err(|error| Arc::new(StoreError::Fleet(Box::new(error))))?;
        // As it hears from itself a moment later.
        self.0.hear_forgotten(cookie);
        Ok(())
    }

    /// Whether what saves is there.
    pub(super) fn health(&self) -> Result<(), Arc<StoreError>> {
        match &*locked(&self.0.saving) {
            Some(saving) if saving.is_finished() => Err(Arc::new(StoreError::Ended)),
            _ => Ok(()),
        }
    }

    pub(super) async fn close(&self) {
        let shared = &self.0;
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

    /// Has what is held saved now and then, and forgets who waits no more.
    async fn keep_tidy(&self) {
        loop {
            tokio::time::sleep(CHORES_EVERY.min(self.refresh_after)).await;
            self.refresh(self.refresh_after);
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

    /// Ends an attachment of this hub, if it is in force, and tells its connection.
    fn lose(self: &Arc<Self>, session: &SessionId, ticket: Ticket, why: Lost) {
        let attachment = {
            let mut held = locked(&self.held);
            held.lose_expected(session, ticket);
            held.remove_current(session, ticket)
        };
        if let Some(attachment) = attachment {
            attachment.lose(why);
            self.tell_of(attachment, Sign::Gone);
        }
        self.count_held();
    }

    /// What is to be saved of an attachment.
    fn entry(&self, attachment: &Attachment, rooms: Cursors, ended: Option<Ended>) -> Entry {
        let Attachment { about, ticket, generation, .. } = attachment;
        let number = self.last_save.fetch_add(1, Ordering::Relaxed) + 1;
        Entry { about: about.clone(), ticket: *ticket, generation: *generation, rooms, number, ended }
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
