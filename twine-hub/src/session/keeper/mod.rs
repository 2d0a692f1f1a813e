//! Who gets which session, decided by one owner without a socket or a clock.
//!
//! Commands go in, in rounds, together with the time; each round is one transaction of the store. A
//! claim is answered after the commit, so that nobody holds a session that a crash gives to another.
//! [`choice`] has the rules; this module keeps the books on who holds what.
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

mod choice;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod faults;
mod held;
#[cfg(test)]
mod model;
mod newcomers;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use twine_protocol::SessionId;

use self::choice::{Choice, Inheritance, Known};
use self::held::{Attachment, Fresh, Held};
use self::newcomers::Newcomers;
use self::waiting::{ClaimId, Waiter, Waiting};
use super::store::{Session, Store};
use super::{Attached, Claim, CookieHash, Cursors, Done, Holder, How, Identity, Lost, Options, Save, Ticket};
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
/// How many of what is owed are found bad, until the others have to wait for the next round: where the
/// store fails at all of them, nobody should wait for that.
const MAX_BAD: usize = 4;

/// What the keeper is asked.
pub(super) enum Command {
    Attach(Request),
    Save(Save),
    Detach(Save),
    Alive { session: SessionId, ticket: Ticket },
    Forget { cookie: CookieHash, done: Forgotten },
}

/// A claim and who makes it.
pub(super) struct Request {
    pub(super) claim: Claim,
    pub(super) holder: Arc<dyn Holder>,
    pub(super) key: Key,
    pub(super) done: Done,
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

/// The session that a claim gets.
struct Grant {
    session: SessionId,
    fresh: Option<Box<Fresh>>,
    how: How,
    rooms: Cursors,
    inherited: Cursors,
}

/// A bound that costs sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Cookie,
    Hub,
    Address,
}

impl Bound {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cookie => "cookie",
            Self::Hub => "hub",
            Self::Address => "address",
        }
    }
}

/// Whether a claim may wait for others to give a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Waits,
    HasWaited,
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
        let done = self.repay(now).and_then(|()| {
            self.store.begin()?;
            while let Some(command) = commands.next() {
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
        if let Err(error) = self.repay(now) {
            tracing::error!(%error, "the store of sessions fails to the end");
        }
        if !self.owed.is_empty() {
            let n = self.owed.len();
            tracing::error!(n, "sessions could not be saved: their browsers go on from an earlier place");
        }
    }

    /// Saves what is owed, before anything else is done: whoever claims a session must find it.
    ///
    /// # Errors
    /// Where no transaction can be had at all: then there is no use in trying anything else.
    fn repay(&mut self, now: Now) -> Result<(), StoreError> {
        let all = std::mem::take(&mut self.owed);
        if all.is_empty() || self.transact(all.into_values(), now)? {
            return Ok(());
        }
        let mut turns: Vec<Ticket> = self.owed.keys().copied().collect();
        let first = turns.partition_point(|ticket| *ticket <= self.last_tried);
        turns.rotate_left(first);
        let mut n_bad = 0;
        for ticket in turns {
            let Some(command) = self.owed.remove(&ticket) else { continue };
            self.last_tried = ticket;
            n_bad += usize::from(!self.transact(std::iter::once(command), now)?);
            if n_bad == MAX_BAD {
                break;
            }
        }
        Ok(())
    }

    /// Saves these in a transaction of their own, or owes them still. Says whether that went well.
    ///
    /// # Errors
    /// Where no transaction can be had.
    fn transact(&mut self, saves: impl Iterator<Item = Command>, now: Now) -> Result<bool, StoreError> {
        let mut saves = saves.fuse();
        if let Err(error) = self.store.begin() {
            saves.for_each(|save| self.owe(save));
            return Err(error);
        }
        let done = saves.try_for_each(|save| self.obey(save, now)).and_then(|()| self.store.commit());
        let Err(error) = done else {
            self.tell();
            return Ok(true);
        };
        self.failures.say(|unsaid| {
            tracing::error!(%error, unsaid, "a session can't be saved, which is tried again and again");
        });
        self.fail(error, saves, now);
        Ok(false)
    }

    /// Keeps a save for later, unless its attachment is over.
    fn owe(&mut self, command: Command) {
        if let Command::Save(Save { session, ticket, .. }) | Command::Detach(Save { session, ticket, .. }) =
            &command
            && let ticket = *ticket
            && self.held.current(session, ticket).is_some()
        {
            self.owed.insert(ticket, command);
        }
    }

    /// What an attachment saves that has something owed already would fail again, and all others with
    /// it: that is owed from now on.
    fn obey_unless_owed(&mut self, command: Command, now: Now) -> Result<(), StoreError> {
        match &command {
            Command::Save(Save { ticket, .. }) | Command::Detach(Save { ticket, .. })
                if self.owed.contains_key(ticket) =>
            {
                self.owe(command);
                Ok(())
            }
            _ => self.obey(command, now),
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
        now.time.saturating_sub(u64::try_from(self.options.lifetime.as_millis()).unwrap_or(u64::MAX))
    }

    /// Answers a claim, or has it wait for what connections of the same visitor say.
    fn attach(&mut self, request: Request, patience: Patience, now: Now) -> Result<(), StoreError> {
        let claim = &request.claim;
        let (cookie, cut) = (claim.identity.visitor.cookie, self.cut(now));
        let mut known = self.known(cookie)?;
        known.stored.retain(|session| session.detached.is_none_or(|time| time >= cut));
        match choice::choose(claim, &known, patience) {
            Choice::Take(session, how) => {
                let Some(rooms) = self.rooms(&session.id)? else {
                    return self.attach(request, patience, now);
                };
                let inherited = self.inherited(&claim.identity, &session.id, &rooms, &known)?;
                let mut fresh = self.release(&session.id, Some(Lost::TakenOver));
                match &mut fresh {
                    Some(fresh) => fresh.session.instance.clone_from(&claim.instance),
                    None => self.store.attach(&session.id, claim.instance.as_ref())?,
                }
                let session = session.id.clone();
                self.hold(request, Grant { session, fresh, how, rooms, inherited });
            }
            Choice::Copy(session) => match self.rooms(&session.id)? {
                Some(rooms) => self.begin(request, How::Copied, rooms, &known)?,
                None => return self.attach(request, patience, now),
            },
            Choice::Probe(live) => {
                let live = live.into_iter().map(|session| session.id.clone()).collect();
                self.probe(request, live, now);
            }
            Choice::New => self.begin(request, How::New, Cursors::new(), &known)?,
        }
        Ok(())
    }

    /// The rooms of a session; `None` where it is gone, for they could not be read.
    fn rooms(&mut self, id: &SessionId) -> Result<Option<Cursors>, StoreError> {
        if self.held.is_fresh(id) {
            return Ok(Some(Cursors::new()));
        }
        let rooms = self.store.rooms(id)?;
        if rooms.is_none() {
            self.release(id, Some(Lost::Forgotten));
        }
        Ok(rooms)
    }

    /// Where rooms start that are not among the session's own. Whoever has many sessions must not have
    /// them all read for each claim: those detached last are, until as many rooms were read as one
    /// session may have.
    fn inherited(
        &mut self,
        identity: &Identity,
        session: &SessionId,
        own: &Cursors,
        known: &Known,
    ) -> Result<Cursors, StoreError> {
        let mut inheritance = Inheritance::new(own);
        let mut n_read = 0;
        for other in choice::bequeathing(identity, session, &known.stored) {
            if n_read >= self.options.max_rooms {
                break;
            }
            let rooms = self.store.rooms(&other.id)?.unwrap_or_default();
            n_read += rooms.len();
            inheritance.add(rooms);
        }
        Ok(inheritance.into_cursors(self.options.max_rooms))
    }

    /// Answers the claims for which there is nothing more to wait for.
    fn attach_ready(&mut self, now: Now) -> Result<(), StoreError> {
        while let Some(request) = self.round.ready.pop_front() {
            self.attach(request, Patience::HasWaited, now)?;
        }
        Ok(())
    }

    fn known(&mut self, cookie: CookieHash) -> Result<Known, StoreError> {
        let stored = self.store.of_cookie(cookie)?;
        Ok(Known { stored, fresh: self.held.fresh_of(cookie).cloned().collect() })
    }

    /// Gives a claim a session of its own, with these rooms to begin with.
    fn begin(&mut self, request: Request, how: How, rooms: Cursors, known: &Known) -> Result<(), StoreError> {
        let id = match mint() {
            Ok(id) => id,
            Err(error) => {
                self.failures.say(|unsaid| tracing::error!(%error, unsaid, "no random bytes for a session"));
                return Ok(());
            }
        };
        let Claim { identity: Identity { visitor, subject, scope }, instance, .. } = request.claim.clone();
        let fresh: Vec<_> = self.held.fresh_of(visitor.cookie).map(|fresh| fresh.id.clone()).collect();
        if let Some(oldest) = fresh.first().filter(|_| fresh.len() >= self.options.max_per_cookie) {
            self.release(oldest, Some(Lost::Forgotten));
            self.round.dropped.push(Bound::Cookie);
        }
        let session = Session {
            id: id.clone(),
            cookie: visitor.cookie,
            origin: visitor.origin,
            subject,
            scope,
            instance,
            detached: None,
        };
        let inherited = self.inherited(&request.claim.identity, &id, &rooms, known)?;
        let fresh = Fresh { session, newcomer: Some(visitor.address) };
        let fresh = Some(Box::new(fresh));
        self.hold(request, Grant { session: id, fresh, how, rooms, inherited });
        Ok(())
    }

    /// Attaches a session to the connection that claimed one.
    fn hold(&mut self, request: Request, grant: Grant) {
        let Request { holder, key, done, .. } = request;
        let Grant { session, fresh, how, rooms, inherited } = grant;
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.held.insert(session.clone(), Attachment { ticket, holder, key, asked_by: Vec::new(), fresh });
        let attached = Attached { session, ticket, how, rooms, inherited };
        self.round.effects.push(Effect::Answer { done, attached });
    }

    /// Ends an attachment, and tells the connection where it does not know. Gives back what is not in
    /// the store.
    fn release(&mut self, id: &SessionId, lost: Option<Lost>) -> Option<Box<Fresh>> {
        let Attachment { ticket, holder, key, asked_by, fresh } = self.held.remove(id)?;
        self.heard(id, asked_by);
        if let Some(why) = lost {
            self.round.effects.push(Effect::Lose { holder, key, ticket, why });
        }
        fresh
    }

    /// Asks the connections of these sessions for a sign of life.
    fn probe(&mut self, request: Request, live: Vec<SessionId>, now: Now) {
        let claim = self.waiting.next_id();
        let mut silent = Vec::with_capacity(live.len());
        for id in live {
            if let Some(attachment) = self.held.get_mut(&id) {
                attachment.asked_by.push(claim);
                let Attachment { ticket, key, .. } = *attachment;
                let holder = attachment.holder.clone();
                self.round.effects.push(Effect::Probe { holder, key, ticket });
                silent.push((id, ticket));
            }
        }
        self.waiting.push(Waiter { request, silent }, now.instant);
    }

    fn alive(&mut self, session: &SessionId, ticket: Ticket) {
        if let Some(attachment) = self.held.current(session, ticket) {
            let claims = std::mem::take(&mut attachment.asked_by);
            self.heard(session, claims);
        }
    }

    /// These claims need not wait for this session any more.
    fn heard(&mut self, session: &SessionId, claims: Vec<ClaimId>) {
        let done = claims.into_iter().filter_map(|claim| self.waiting.heard(claim, session));
        self.round.ready.extend(done.map(|waiter| waiter.request));
    }

    fn save(&mut self, save: &Save, now: Now) -> Result<(), StoreError> {
        let Save { session: id, ticket, rooms } = save;
        let Some(attachment) = self.held.current(id, *ticket) else { return Ok(()) };
        match attachment.fresh.clone() {
            Some(_) if rooms.is_empty() => Ok(()),
            Some(fresh) => {
                // One that is refused stays fresh: it is tried again whenever its connection has
                // something to save, and at its end.
                if self.store_new(&fresh.session, rooms, fresh.newcomer, now)?.is_ok() {
                    self.held.set_stored(id);
                }
                Ok(())
            }
            None if rooms.is_empty() => {
                match self.store.take(id)? {
                    Some(session) => {
                        self.held.set_fresh(id, Box::new(Fresh { session, newcomer: None }));
                    }
                    // It could not be read.
                    None => drop(self.release(id, Some(Lost::Forgotten))),
                }
                Ok(())
            }
            None => self.store.save(id, rooms),
        }
    }

    fn detach(&mut self, save: &Save, now: Now) -> Result<(), StoreError> {
        let Save { session: id, ticket, rooms } = save;
        if self.held.current(id, *ticket).is_none() {
            return Ok(());
        }
        let fresh = self.release(id, None);
        match fresh {
            Some(_) if rooms.is_empty() => Ok(()),
            Some(fresh) => {
                let session = Session { detached: Some(now.time), ..fresh.session };
                let stored = self.store_new(&session, rooms, fresh.newcomer, now)?;
                self.round.dropped.extend(stored.err());
                Ok(())
            }
            None if rooms.is_empty() => self.store.remove(id),
            None => {
                self.store.save(id, rooms)?;
                self.store.detach(id, now.time)
            }
        }
    }

    /// Puts a session into the store where the bounds allow it, and others out for that.
    fn store_new(
        &mut self,
        session: &Session,
        rooms: &Cursors,
        newcomer: Option<IpAddr>,
        now: Now,
    ) -> Result<Result<(), Bound>, StoreError> {
        if let Some(address) = newcomer {
            if !self.newcomers.admit(address, now.instant) {
                return Ok(Err(Bound::Address));
            }
            self.round.admitted.push(address);
        }
        let mut others = self.store.of_cookie(session.cookie)?;
        // Those detached longest first, then the oldest of those attached.
        others.sort_by_key(|other| (other.detached.is_none(), other.detached));
        let surplus = (others.len() + 1).saturating_sub(self.options.max_per_cookie);
        for other in others.into_iter().take(surplus) {
            self.release(&other.id, Some(Lost::Forgotten));
            self.store.remove(&other.id)?;
            self.round.dropped.push(Bound::Cookie);
        }
        if self.store.len() >= self.options.max_sessions {
            if !self.store.remove_longest_detached()? {
                return Ok(Err(Bound::Hub));
            }
            self.round.dropped.push(Bound::Hub);
        }
        self.store.insert(session, rooms)?;
        Ok(Ok(()))
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
    }
}

/// A session's id: 128 random bits.
fn mint() -> std::io::Result<SessionId> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    // 32 hexadecimal digits: always an id.
    #[allow(clippy::expect_used)]
    Ok(SessionId::new(&format!("{:032x}", u128::from_ne_bytes(bytes))).expect("short and plain"))
}
