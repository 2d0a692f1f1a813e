//! Who gets which session, decided by one owner without a socket or a clock.
//!
//! Commands go in, in rounds, together with the time; each round is one transaction of the store. A
//! claim is answered after the commit, so that nobody holds a session that a crash gives to another.
//! [`choice`](super::choice) has the rules; this module keeps the books on who holds what.
//!
//! ```text
//!                claim: resume, adopt
//!          ┌───────────────────────────────┐
//!          ▼                               │
//!  ┌────────────┐  detach, silence   ┌───────────┐  24 h, bounds, forget
//!  │  attached  ├───────────────────▶│  detached ├───────────────────────▶ gone
//!  └────────────┘                    └───────────┘
//!   takeover: attached to another connection of the same page
//! ```
//!
//! A session without rooms is *fresh*: it is kept beside its attachment only, and gone with it.
//!
//! Where the store fails, a whole round does, as if it had never been: nobody gets a session in it or
//! loses one. Its claims are answered without; its saves, and the ends of connections, are owed, for
//! those who sent them do not send them twice. What is owed is saved before the next round, and as
//! soon as one of it can't be, each by itself: a row that fails for ever costs nobody else anything.

mod claims;
#[cfg(test)]
pub(super) mod desk;
#[cfg(test)]
mod faults;
mod held;
#[cfg(test)]
mod model;
mod saves;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twine_protocol::SessionId;

use self::held::{Attachment, Fresh, Held};
use self::waiting::{ClaimId, Waiting};
use super::choice::Patience;
use super::newcomers::Newcomers;
use super::store::Store;
use super::{Attached, Bound, CookieHash, Done, Holder, Lost, Options, Request, Save, Ticket};
use crate::clock;
use crate::connection::Key;
use crate::seldom::Seldom;
use crate::store::StoreError;
use crate::telemetry::{self, Telemetry};

/// How often sessions are looked for whose time has come, and how many are removed in one round.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
const EXPIRE_BATCH: usize = 500;
/// How often a store that failed is tried, where nobody asks for anything.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What the keeper is asked.
pub(super) enum Command {
    Attach(Request),
    Save(Save),
    Detach(Save),
    Alive { session: SessionId, ticket: Ticket },
    Forget { cookie: CookieHash, done: Forgotten },
}

/// Told when a cookie's sessions are gone.
pub(super) type Forgotten = oneshot::Sender<Result<(), Arc<StoreError>>>;

/// A moment, by both clocks: what is stored goes by the wall's, what is waited for must not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds since 1970-01-01 UTC.
    pub(super) time: u64,
    pub(super) instant: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { time: clock::unix_millis(), instant: clock::now() }
    }
}

/// All sessions of this hub.
pub(super) struct Keeper {
    store: Box<dyn Store>,
    options: Options,
    telemetry: Arc<Telemetry>,
    held: Held,
    waiting: Waiting,
    newcomers: Newcomers,
    last_ticket: u64,
    next_chores: Instant,
    /// The last that attachments had saved in rounds that failed. An attachment whose connection has
    /// ended stays in force until that is done.
    owed: BTreeMap<Ticket, Command>,
    /// The one that was tried last by itself: others have their turn first.
    last_tried: Ticket,
    next_try: Instant,
    failures: Seldom,
    round: Round,
}

/// What one round does beside the store.
#[derive(Default)]
struct Round {
    effects: Vec<Effect>,
    /// Claims that have nothing to wait for any more.
    ready: VecDeque<Request>,
    /// Saves that were made, in their order.
    saves: Vec<Command>,
    /// Addresses that have had a new session stored.
    admitted: Vec<IpAddr>,
    /// Sessions that bounds have cost.
    dropped: Vec<Bound>,
}

/// What is told to others once the round has been committed.
enum Effect {
    Answer { done: Done, attached: Attached },
    Lose { holder: Arc<dyn Holder>, key: Key, ticket: Ticket, why: Lost },
    Probe { holder: Arc<dyn Holder>, key: Key, ticket: Ticket },
    Forgotten { done: Forgotten },
}

impl Keeper {
    pub(super) fn new(store: Box<dyn Store>, options: Options, telemetry: Arc<Telemetry>, now: Now) -> Self {
        Self {
            store,
            newcomers: Newcomers::new(options.max_new_per_minute),
            options,
            telemetry,
            held: Held::default(),
            waiting: Waiting::default(),
            last_ticket: 0,
            next_chores: now.instant,
            owed: BTreeMap::new(),
            last_tried: Ticket(0),
            next_try: now.instant,
            failures: Seldom::default(),
            round: Round::default(),
        }
    }

    /// When [`Keeper::round`] has something to do, also without commands.
    pub(super) fn deadline(&self) -> Instant {
        let next_try = (!self.owed.is_empty()).then_some(self.next_try);
        [self.waiting.deadline(), next_try].into_iter().flatten().fold(self.next_chores, Instant::min)
    }

    /// Does what it is asked and what is due, commits it, and tells everybody.
    pub(super) fn round(&mut self, commands: impl Iterator<Item = Command>, now: Now) {
        let mut commands = commands.fuse();
        let done = self.repay(saves::MAX_BAD, now).and_then(|()| {
            self.store.begin()?;
            for command in commands.by_ref() {
                self.obey_unless_owed(command, now)?;
            }
            self.chores(now)?;
            self.store.commit()
        });
        match done {
            Ok(()) => self.tell(),
            Err(error) => {
                self.failures.say(|unsaid| {
                    tracing::error!(%error, unsaid, "sessions are neither kept nor found for now");
                });
                self.fail(error, commands, now);
                self.next_chores = self.next_try;
                // Dropping a claim answers it.
                while self.waiting.overdue(now.instant).is_some() {}
            }
        }
        self.telemetry.sessions.set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
    }

    /// Tries for the last time to save what is owed: nobody asks for anything any more.
    pub(super) fn close(&mut self, now: Now) {
        if let Err(error) = self.repay(usize::MAX, now) {
            tracing::error!(%error, "the store of sessions fails to the end");
        }
        if !self.owed.is_empty() {
            let n = self.owed.len();
            tracing::error!(n, "sessions could not be saved: their browsers go on from an earlier place");
        }
    }

    fn obey(&mut self, command: Command, now: Now) -> Result<(), StoreError> {
        match command {
            Command::Attach(request) => self.attach(request, Patience::Waits, now)?,
            Command::Save(save) => {
                let saved = self.save(&save, now);
                self.round.saves.push(Command::Save(save));
                saved?;
            }
            Command::Detach(save) => {
                let detached = self.detach(&save, now);
                self.round.saves.push(Command::Detach(save));
                detached?;
            }
            Command::Alive { session, ticket } => self.alive(&session, ticket),
            Command::Forget { cookie, done } => self.forget(cookie, done)?,
        }
        self.attach_ready(now)
    }

    /// What is due without being asked for.
    fn chores(&mut self, now: Now) -> Result<(), StoreError> {
        while let Some(waiter) = self.waiting.overdue(now.instant) {
            for (id, ticket) in waiter.silent {
                if self.held.current(&id, ticket).is_some() {
                    self.release(&id, Some(Lost::TakenOver));
                    self.store.detach(&id, now.time)?;
                }
            }
            // Before those who were waiting for the same sessions, and came later.
            self.round.ready.push_front(waiter.request);
            self.attach_ready(now)?;
        }
        if self.next_chores <= now.instant {
            let removed = self.store.expire(self.cut(now), EXPIRE_BATCH)?;
            // The rest has its turn after those who wait.
            let wait = if removed < EXPIRE_BATCH { EXPIRE_EVERY } else { Duration::ZERO };
            self.next_chores = now.instant + wait;
        }
        Ok(())
    }

    /// Sessions that were detached before this have had their time.
    fn cut(&self, now: Now) -> u64 {
        now.time.saturating_sub(clock::millis(self.options.lifetime))
    }

    /// Ends an attachment, and tells the connection where it does not know. Gives back what is not in
    /// the store.
    fn release(&mut self, id: &SessionId, lost: Option<Lost>) -> Option<Box<Fresh>> {
        let mut attachment = self.held.remove(id)?;
        let claims = attachment.take_asked_by();
        self.heard(id, claims);
        let Attachment { ticket, holder, key, fresh, .. } = attachment;
        if let Some(why) = lost {
            self.round.effects.push(Effect::Lose { holder, key, ticket, why });
        }
        fresh
    }

    fn alive(&mut self, session: &SessionId, ticket: Ticket) {
        if let Some(attachment) = self.held.current(session, ticket) {
            let claims = attachment.take_asked_by();
            self.heard(session, claims);
        }
    }

    /// These claims need not wait for this session any more.
    fn heard(&mut self, session: &SessionId, claims: Vec<ClaimId>) {
        let done = claims.into_iter().filter_map(|claim| self.waiting.heard(claim, session));
        self.round.ready.extend(done.map(|waiter| waiter.request));
    }

    fn forget(&mut self, cookie: CookieHash, done: Forgotten) -> Result<(), StoreError> {
        self.round.effects.push(Effect::Forgotten { done });
        for session in self.known(cookie)?.all() {
            self.release(&session.id, Some(Lost::Forgotten));
            self.store.remove(&session.id)?;
        }
        let waiters = self.waiting.of_cookie(cookie);
        self.round.ready.extend(waiters.into_iter().map(|waiter| waiter.request));
        Ok(())
    }

    /// Tells what a round has done, for now it is in the store.
    fn tell(&mut self) {
        let Round { effects, dropped, .. } = std::mem::take(&mut self.round);
        self.held.commit();
        for effect in effects {
            match effect {
                Effect::Answer { done, attached } => {
                    self.telemetry
                        .session_attaches
                        .get_or_create(&telemetry::How { how: attached.how.as_str() })
                        .inc();
                    done.answer(attached);
                }
                Effect::Lose { holder, key, ticket, why } => holder.lose(key, ticket, why),
                Effect::Probe { holder, key, ticket } => holder.probe(key, ticket),
                // Whoever has hung up wants no answer.
                Effect::Forgotten { done } => drop(done.send(Ok(()))),
            }
        }
        // The commit has taken its time.
        self.waiting.start(clock::now());
        for bound in dropped {
            self.telemetry.sessions_dropped.get_or_create(&telemetry::Bound { bound: bound.as_str() }).inc();
        }
    }

    /// Undoes what a round has done, and leaves what it has not come to.
    fn fail(&mut self, error: StoreError, rest: impl Iterator<Item = Command>, now: Now) {
        let error = Arc::new(error);
        self.store.rollback();
        for (claim, session, ticket) in self.held.rollback() {
            self.waiting.wait_again(claim, session, ticket);
        }
        self.next_try = now.instant + RETRY_EVERY;
        let Round { effects, saves, admitted, .. } = std::mem::take(&mut self.round);
        for address in admitted {
            self.newcomers.take_back(address);
        }
        for command in saves.into_iter().chain(rest) {
            match command {
                Command::Save(_) | Command::Detach(_) => self.owe(command),
                Command::Alive { session, ticket } => self.alive(&session, ticket),
                Command::Forget { done, .. } => drop(done.send(Err(error.clone()))),
                Command::Attach(_) => {}
            }
        }
        // Dropping a claim answers it.
        self.round.ready.clear();
        for effect in effects {
            match effect {
                Effect::Answer { .. } | Effect::Lose { .. } => {}
                Effect::Probe { holder, key, ticket } => holder.probe(key, ticket),
                Effect::Forgotten { done } => drop(done.send(Err(error.clone()))),
            }
        }
        self.waiting.start(clock::now());
    }
}
