//! Claims: a session is found for each, taken over, copied or begun. Those of one cookie have their turns
//! one after the other here; other hubs may decide in between, and then it is decided anew.

use std::collections::hash_map::Entry as Slot;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use twine_protocol::SessionId;

use super::asks::{self, Sign};
use super::held::{Attachment, Kept};
use super::letters::Letter;
use super::row::{About, Holding, Row};
use super::shelf::{Book, Change, Decided};
use super::{LEASE, SessionsError, Shared};
use crate::connection::Key;
use crate::rooms::locked;
use crate::session::choice::{self, Choice, Inheritance, Known, Patience};
use crate::session::store::Session;
use crate::session::{
    Attached, Bound, Claim, CookieHash, Cursors, Done, Holder, How, Identity, Lost, Request, Ticket, mint,
};
use crate::telemetry;

/// How often it is decided anew.
const MAX_ATTEMPTS: usize = 32;

/// A claim that has its turn some time.
pub(super) struct Turn {
    request: Request,
    patience: Patience,
    /// Attachments that count as over, for nothing was heard of them.
    silent: Vec<(SessionId, Holding)>,
}

impl Turn {
    pub(super) fn first(request: Request) -> Self {
        Self { request, patience: Patience::Waits, silent: Vec::new() }
    }

    fn cookie(&self) -> CookieHash {
        self.request.claim.identity.visitor.cookie
    }
}

/// The connection that makes a claim.
struct Claimant {
    holder: Arc<dyn Holder>,
    key: Key,
}

/// What a claim got.
struct Grant {
    session: SessionId,
    ticket: Ticket,
    how: How,
    rooms: Cursors,
    inherited: Cursors,
}

/// What a claim comes to.
enum Step {
    Take(Box<Row>, How),
    TakeHere(SessionId, How),
    Copy(SessionId),
    Probe(Vec<(SessionId, Holding)>),
    Begin,
}

impl Shared {
    /// Gives a claim its turn.
    pub(super) fn queue(self: &Arc<Self>, turn: Turn) {
        let cookie = turn.cookie();
        match locked(&self.claims).entry(cookie) {
            Slot::Occupied(mut waiting) => return waiting.get_mut().push_back(turn),
            Slot::Vacant(nobody) => drop(nobody.insert(VecDeque::from([turn]))),
        }
        let shared = self.clone();
        self.spawn(async move {
            while let Some(turn) = shared.next_turn(cookie) {
                if let Err(error) = shared.serve(turn).await {
                    shared.say(&error);
                }
            }
        });
    }

    fn next_turn(&self, cookie: CookieHash) -> Option<Turn> {
        let mut claims = locked(&self.claims);
        let turn = claims.get_mut(&cookie).and_then(VecDeque::pop_front);
        if turn.is_none() {
            claims.remove(&cookie);
        }
        turn
    }

    /// Answers a claim, or has it wait for what connections of the same visitor say. Where it fails, the
    /// claim is answered by being dropped.
    async fn serve(self: &Arc<Self>, turn: Turn) -> Result<(), SessionsError> {
        let Turn { request: Request { claim, holder, key, done }, patience, mut silent } = turn;
        let (cookie, claimant) = (claim.identity.visitor.cookie, Claimant { holder, key });
        self.saved(|owed| !owed.has(cookie)).await;
        for _ in 0..MAX_ATTEMPTS {
            let book = self.shelf.read(cookie).await?;
            if !silent.is_empty() {
                if self.end_silent(&book, &silent).await? {
                    silent.clear();
                }
                continue;
            }
            let known = self.known(&book).await?;
            let grant = match self.step(&claim, &book, &known, patience) {
                Step::Take(row, how) => self.take_over(&claim, &claimant, &book, *row, &known, how).await?,
                Step::TakeHere(session, how) => {
                    self.take_here(&claim, &claimant, session, &known, how).await?
                }
                Step::Copy(session) => match self.rooms_of(&book, &known, &session).await? {
                    Some(rooms) => {
                        Some(self.begin(&claim, &claimant, How::Copied, rooms, &book, &known).await?)
                    }
                    None => None,
                },
                Step::Probe(live) => {
                    self.probe(Request { claim, holder: claimant.holder, key, done }, live);
                    return Ok(());
                }
                Step::Begin => {
                    Some(self.begin(&claim, &claimant, How::New, Cursors::new(), &book, &known).await?)
                }
            };
            if let Some(grant) = grant {
                self.answer(done, grant);
                return Ok(());
            }
        }
        Err(SessionsError::Restless)
    }

    /// The rooms of a session that is to be copied. One whose rooms can't be read is removed: `None`.
    async fn rooms_of(
        &self,
        book: &Book,
        known: &Known,
        id: &SessionId,
    ) -> Result<Option<Cursors>, SessionsError> {
        if known.fresh.iter().any(|here| here.id == *id) {
            return Ok(Some(Cursors::new()));
        }
        let rooms = self.shelf.rooms(book.cookie(), std::iter::once(id)).await?.pop().flatten();
        if rooms.is_none() {
            self.shelf.decide(book, &[Change::Remove(id)], None).await?;
        }
        Ok(rooms)
    }

    /// The cookie's sessions, as the rules want to have them.
    async fn known(&self, book: &Book) -> Result<Known, SessionsError> {
        let hubs = book.rows.iter().filter_map(|row| row.held_by.as_ref()).map(|held_by| &held_by.hub);
        let others: BTreeSet<_> = hubs.filter(|hub| **hub != self.hub).collect();
        let mut lapsed = Vec::new();
        // Where this hub could not renew its own, others could not either.
        let is_steady = locked(&self.steady_since).is_some_and(|since| since.elapsed() >= LEASE);
        for hub in others.into_iter().filter(|_| is_steady) {
            if !self.shelf.lives(hub).await? {
                lapsed.push(hub);
            }
        }
        let lifetime = u64::try_from(self.options.lifetime.as_millis()).unwrap_or(u64::MAX);
        let cut = book.now.saturating_sub(lifetime);
        let held = locked(&self.held);
        let stored = book.rows.iter().map(|row| {
            let session = &row.about.session;
            let is_held = row.held_by.as_ref().is_some_and(|held_by| {
                if held_by.hub == self.hub {
                    held.get(&session.id).is_some_and(|attachment| attachment.ticket == held_by.ticket)
                } else {
                    !lapsed.contains(&&held_by.hub)
                }
            });
            Session { detached: (!is_held).then_some(row.touched), ..session.clone() }
        });
        let stored = stored.filter(|session| session.detached.is_none_or(|time| time >= cut)).collect();
        let fresh = held.here(book.cookie()).map(|attachment| attachment.about.session.clone()).collect();
        Ok(Known { stored, fresh })
    }

    /// What the rules say.
    fn step(&self, claim: &Claim, book: &Book, known: &Known, patience: Patience) -> Step {
        let row = |id: &SessionId| book.rows.iter().find(|row| row.about.session.id == *id);
        let holder_prev = claim.session.as_ref().and_then(|named| match row(named) {
            Some(row) => row.about.prev.clone(),
            None => locked(&self.held).prev(named),
        });
        match choice::choose(claim, known, holder_prev.as_ref(), patience) {
            Choice::Take(session, how) => match row(&session.id) {
                Some(row) => Step::Take(Box::new(row.clone()), how),
                None => Step::TakeHere(session.id.clone(), how),
            },
            Choice::Copy(session) => Step::Copy(session.id.clone()),
            Choice::Probe(live) => {
                let held_by = |session: &Session| row(&session.id).and_then(|row| row.held_by.clone());
                let live = live.into_iter();
                Step::Probe(live.filter_map(|live| Some((live.id.clone(), held_by(live)?))).collect())
            }
            Choice::New => Step::Begin,
        }
    }

    /// Attaches a session that is in Redis to the connection that claims it; `None` where it has to be
    /// decided anew. Whoever held it is told.
    async fn take_over(
        self: &Arc<Self>,
        claim: &Claim,
        claimant: &Claimant,
        book: &Book,
        row: Row,
        known: &Known,
        how: How,
    ) -> Result<Option<Grant>, SessionsError> {
        let id = row.about.session.id.clone();
        let others = self.bequeathed(claim, &id, known).await?;
        let session = Session { instance: claim.instance.clone(), ..row.about.session };
        let about = Arc::new(About { session, prev: claim.prev.clone(), ..row.about });
        let ticket = self.next_ticket();
        let held_by = self.holding(ticket);
        let changes = [Change::Hold { about: &about, held_by: &held_by }];
        // From when it is done others may ask for it.
        locked(&self.held).expect(id.clone(), ticket);
        let decided = self.shelf.decide(book, &changes, Some(&id)).await;
        let before = {
            let mut held = locked(&self.held);
            let is_lost = held.end_expecting(&id);
            match &decided {
                Ok(Decided::Done { rooms: Some(_), .. }) if is_lost => return Err(SessionsError::Restless),
                Ok(Decided::Done { rooms: Some(_), .. }) => {
                    held.insert(claimant.attachment(about.clone(), ticket, Kept::Shared))
                }
                _ => None,
            }
        };
        if let Ok(Decided::Done { rooms: Some(rooms), .. }) = decided {
            if let Some(before) = before {
                before.lose(Lost::TakenOver);
                self.tell_of(&id, before.asked_by, Sign::Gone);
            }
            if let Some(other) = row.held_by.filter(|other| other.hub != self.hub) {
                self.tell_lost(&id, &other, Lost::TakenOver);
            }
            let inherited = inherit(&rooms, others, self.options.max_rooms);
            return Ok(Some(Grant { session: id, ticket, how, rooms, inherited }));
        }
        if let Decided::Done { .. } = decided? {
            // Its rooms are gone, or can't be read: then it is of no use to anybody.
            let book = self.shelf.read(book.cookie()).await?;
            self.shelf.decide(&book, &[Change::Remove(&id)], None).await?;
        }
        Ok(None)
    }

    /// The same for a session that is only here.
    async fn take_here(
        self: &Arc<Self>,
        claim: &Claim,
        claimant: &Claimant,
        id: SessionId,
        known: &Known,
        how: How,
    ) -> Result<Option<Grant>, SessionsError> {
        let inherited = self.inherited(claim, &id, &Cursors::new(), known).await?;
        let ticket = self.next_ticket();
        let before = {
            let mut held = locked(&self.held);
            let Some(before) = held.get(&id) else { return Ok(None) };
            let session = Session { instance: claim.instance.clone(), ..before.about.session.clone() };
            let about = About { session, prev: claim.prev.clone(), created: before.about.created };
            let kept = before.kept;
            held.insert(claimant.attachment(Arc::new(about), ticket, kept))
        };
        if let Some(before) = before {
            before.lose(Lost::TakenOver);
            self.tell_of(&id, before.asked_by, Sign::Gone);
        }
        Ok(Some(Grant { session: id, ticket, how, rooms: Cursors::new(), inherited }))
    }

    /// Gives a claim a session of its own, with these rooms to begin with. It is not in Redis before it has
    /// something to save.
    async fn begin(
        self: &Arc<Self>,
        claim: &Claim,
        claimant: &Claimant,
        how: How,
        rooms: Cursors,
        book: &Book,
        known: &Known,
    ) -> Result<Grant, SessionsError> {
        let id = mint().map_err(|_| SessionsError::Random)?;
        let inherited = self.inherited(claim, &id, &rooms, known).await?;
        let surplus = (known.fresh.len() + 1).saturating_sub(self.options.max_per_cookie);
        for oldest in known.fresh.iter().take(surplus) {
            let ticket = locked(&self.held).get(&oldest.id).map(|attachment| attachment.ticket);
            if let Some(ticket) = ticket {
                self.lose(&oldest.id, ticket, Lost::Forgotten);
                self.count_dropped(Bound::Cookie, 1);
            }
        }
        let Identity { visitor, subject, scope } = claim.identity.clone();
        let session = Session {
            id: id.clone(),
            cookie: visitor.cookie,
            origin: visitor.origin,
            subject,
            scope,
            instance: claim.instance.clone(),
            detached: None,
        };
        let about = Arc::new(About { session, prev: claim.prev.clone(), created: book.now });
        let (ticket, kept) = (self.next_ticket(), Kept::Here { newcomer: Some(visitor.address) });
        locked(&self.held).insert(claimant.attachment(about, ticket, kept));
        Ok(Grant { session: id, ticket, how, rooms, inherited })
    }

    /// Tells the connection which session it has; none where another hub has taken it over by now. Whoever
    /// takes it over from now on tells the connection after this.
    fn answer(&self, done: Done, grant: Grant) {
        let Grant { session, ticket, how, rooms, inherited } = grant;
        if let Some(attachment) = locked(&self.held).current(&session, ticket) {
            attachment.saved = Instant::now();
            self.telemetry.session_attaches.get_or_create(&telemetry::How { how: how.as_str() }).inc();
            done.answer(Attached { session, ticket, how, rooms, inherited });
        }
        self.count_held();
    }

    /// Asks the connections of these sessions for a sign of life, wherever they are.
    fn probe(self: &Arc<Self>, request: Request, live: Vec<(SessionId, Holding)>) {
        let waiting = locked(&self.asks).wait(live.clone());
        for (session, Holding { hub, ticket }) in live {
            if hub != self.hub {
                self.post(hub, Letter::Probe { session, ticket, from: self.hub.clone() });
                continue;
            }
            let asked = {
                let mut held = locked(&self.held);
                let attachment = held.current(&session, ticket);
                attachment.map(|attachment| (attachment.holder.clone(), attachment.key))
            };
            match asked {
                Some((holder, key)) => holder.probe(key, ticket),
                None => locked(&self.asks).say(&session, Sign::Gone),
            }
        }
        let shared = self.clone();
        self.spawn(async move {
            let silent = waiting.finish(tokio::time::Instant::now() + asks::PATIENCE).await;
            shared.queue(Turn { request, patience: Patience::HasWaited, silent });
        });
    }

    /// Detaches sessions whose connections give no sign of life; false where it has to be decided anew.
    async fn end_silent(
        self: &Arc<Self>,
        book: &Book,
        silent: &[(SessionId, Holding)],
    ) -> Result<bool, SessionsError> {
        let is_still = |(id, held_by): &&(SessionId, Holding)| {
            let row = book.rows.iter().find(|row| row.about.session.id == *id);
            row.is_some_and(|row| row.held_by.as_ref() == Some(held_by))
        };
        let silent: Vec<_> = silent.iter().filter(is_still).collect();
        if silent.is_empty() {
            return Ok(true);
        }
        let changes: Vec<_> = silent.iter().map(|(id, _)| Change::End(id)).collect();
        match self.shelf.decide(book, &changes, None).await? {
            Decided::Done { .. } => {
                for (id, held_by) in silent {
                    self.tell_lost(id, held_by, Lost::TakenOver);
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Where rooms start that are not among the session's own.
    async fn inherited(
        &self,
        claim: &Claim,
        session: &SessionId,
        own: &Cursors,
        known: &Known,
    ) -> Result<Cursors, SessionsError> {
        let others = self.bequeathed(claim, session, known).await?;
        Ok(inherit(own, others, self.options.max_rooms))
    }

    /// The rooms of the visitor's other sessions, those detached last first.
    async fn bequeathed(
        &self,
        claim: &Claim,
        session: &SessionId,
        known: &Known,
    ) -> Result<Vec<Cursors>, SessionsError> {
        let cookie = claim.identity.visitor.cookie;
        let others = choice::bequeathing(&claim.identity, session, &known.stored);
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = self.shelf.rooms(cookie, others.iter().map(|other| &other.id)).await?;
        Ok(rooms.into_iter().flatten().collect())
    }
}

/// The latest cursors of rooms that a session does not have itself; whoever has many sessions gets what the
/// ones detached last know, until that is as much as one may have.
fn inherit(own: &Cursors, others: Vec<Cursors>, max_rooms: usize) -> Cursors {
    let mut inheritance = Inheritance::new(own);
    let mut n_read = 0;
    for rooms in others {
        if n_read >= max_rooms {
            break;
        }
        n_read += rooms.len();
        inheritance.add(rooms);
    }
    inheritance.into_cursors(max_rooms)
}

impl Claimant {
    fn attachment(&self, about: Arc<About>, ticket: Ticket, kept: Kept) -> Attachment {
        let Self { holder, key } = self;
        let saved = Instant::now();
        Attachment { ticket, holder: holder.clone(), key: *key, about, kept, asked_by: Vec::new(), saved }
    }
}
