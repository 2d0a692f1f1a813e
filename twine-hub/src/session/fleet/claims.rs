//! Claims: a session is found for each, taken over, copied or begun. Other hubs may decide in between, and then
//! it is decided anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use twine_protocol::SessionId;

use super::asks::{self, Asked, Sign};
use super::held::{Attachment, Kept};
use super::letters::Letter;
use super::row::{About, Claimed, Holding, HubId, Row};
use super::shelf::{Book, Change, Decided};
use super::talk::LEASE;
use super::turns::Turn;
use super::{SessionsError, Shared};
use crate::clock::millis;
use crate::connection::Key;
use crate::rooms::locked;
use crate::session::choice::{self, Choice, Inheritance, Known, Patience};
use crate::session::store::Session;
use crate::session::{Attached, Bound, Claim, Cursors, Done, Holder, How, Lost, Request, Ticket, mint};
use crate::telemetry;

/// Sessions whose rooms are read at once.
const READ_AT_ONCE: usize = 4;
/// How often it is decided anew.
const MAX_ATTEMPTS: usize = 32;

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
    Probe(Vec<Asked>),
    Begin,
}

/// An attachment that is expected until this ends.
struct Expecting<'a> {
    shared: &'a Shared,
    id: &'a SessionId,
}

impl<'a> Expecting<'a> {
    fn begin(shared: &'a Shared, id: &'a SessionId, ticket: Ticket) -> Self {
        locked(&shared.held).expect(id.clone(), ticket);
        Self { shared, id }
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        locked(&self.shared.held).end_expecting(self.id);
    }
}

impl Shared {
    /// Answers a claim, or has it wait for what connections of the same visitor say. Where it fails, the
    /// claim is answered by being dropped.
    pub(super) async fn serve(self: &Arc<Self>, turn: Turn) -> Result<(), SessionsError> {
        let Turn { request: Request { claim, holder, key, done }, until, patience, mut silent } = turn;
        let (cookie, claimant) = (claim.identity.visitor.cookie, Claimant { holder, key });
        for _ in 0..MAX_ATTEMPTS {
            // What connections have given back is what the claim is to find.
            if !self.saved(cookie).await {
                return Err(SessionsError::Unsaved);
            }
            let book = self.shelf.read(cookie).await?;
            if !silent.is_empty() {
                if self.end_silent(&book, &silent).await? {
                    silent.clear();
                }
                continue;
            }
            let known = self.known(&book).await;
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
                    self.probe(Request { claim, holder: claimant.holder, key, done }, until, live);
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
    async fn known(&self, book: &Book) -> Known {
        let hubs = book.rows.iter().filter_map(|row| row.held_by.as_ref()).map(|held_by| &held_by.hub);
        let others: BTreeSet<_> = hubs.filter(|hub| **hub != self.hub).collect();
        let lapsed = self.lapsed(others).await;
        let cut = self.cut(book);
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
        Known { stored, fresh }
    }

    /// Of these hubs the ones that are known to be gone.
    pub(super) async fn lapsed<'a>(&self, hubs: BTreeSet<&'a HubId>) -> Vec<&'a HubId> {
        // Where this hub could not renew its own lease, others could not either; and where Redis has lost it
        // a moment ago, so it has theirs.
        let is_steady = locked(&self.steady_since).is_some_and(|since| since.elapsed() >= LEASE);
        if hubs.is_empty() || !is_steady || !self.shelf.lives(&self.hub).await.is_ok_and(|lives| lives) {
            return Vec::new();
        }
        let lives = hubs.iter().map(|hub| self.shelf.lives(hub));
        // One that can't be asked for may well live.
        let gone = join_all(lives).await.into_iter().map(|lives| matches!(lives, Ok(false)));
        hubs.into_iter().zip(gone).filter(|(_, is_gone)| *is_gone).map(|(hub, _)| hub).collect()
    }

    /// Sessions that were detached before this, by Redis' clock, have had their time.
    pub(super) fn cut(&self, book: &Book) -> u64 {
        book.now.saturating_sub(millis(self.options.lifetime))
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
        let of = Claimed { by: self.holding(ticket), generation: row.generation + 1 };
        let changes = [Change::Hold { about: &about, of: &of }];
        // From when it is done others may ask for it.
        let expecting = Expecting::begin(self, &id, ticket);
        let decided = self.shelf.decide(book, &changes, Some(&id)).await;
        let before = {
            let mut held = locked(&self.held);
            let is_lost = held.end_expecting(&id);
            match &decided {
                // Another hub has taken it over by now, and whoever held it here is told when it saves.
                Ok(Decided::Done { rooms: Some(_), .. }) if is_lost => None,
                Ok(Decided::Done { rooms: Some(_), .. }) => {
                    held.insert(claimant.attachment(about.clone(), &of, Kept::Shared))
                }
                _ => None,
            }
        };
        drop(expecting);
        if let Ok(Decided::Done { rooms: Some(rooms), .. }) = decided {
            if let Some(before) = before {
                before.lose(Lost::TakenOver);
                self.tell_of(before, Sign::Gone);
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
            let Some(before) = held.get(&id).filter(|before| before.kept != Kept::Shared) else {
                return Ok(None);
            };
            let of = Claimed { by: self.holding(ticket), generation: before.generation + 1 };
            let session = Session { instance: claim.instance.clone(), ..before.about.session.clone() };
            let about = About { session, prev: claim.prev.clone(), created: before.about.created };
            let kept = before.kept;
            held.insert(claimant.attachment(Arc::new(about), &of, kept))
        };
        if let Some(before) = before {
            before.lose(Lost::TakenOver);
            self.tell_of(before, Sign::Gone);
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
        let (session, address) = (Session::begin(id.clone(), claim), claim.identity.visitor.address);
        let about = Arc::new(About { session, prev: claim.prev.clone(), created: book.now });
        let (ticket, kept) = (self.next_ticket(), Kept::Here { newcomer: Some(address) });
        let of = Claimed { by: self.holding(ticket), generation: 1 };
        locked(&self.held).insert(claimant.attachment(about, &of, kept));
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
    fn probe(self: &Arc<Self>, request: Request, until: tokio::time::Instant, live: Vec<Asked>) {
        let waiting = locked(&self.asks).wait(live.clone());
        let cookie = request.claim.identity.visitor.cookie;
        for asked in live {
            let (session, Holding { hub, ticket }) = &asked;
            if *hub != self.hub {
                let (session, ticket, from) = (session.clone(), *ticket, self.hub.clone());
                self.post(hub.clone(), Letter::Probe { session, cookie, ticket, from });
                continue;
            }
            let held = {
                let mut held = locked(&self.held);
                let attachment = held.current(session, *ticket);
                attachment.map(|attachment| (attachment.holder.clone(), attachment.key))
            };
            match held {
                Some((holder, key)) => holder.probe(key, *ticket),
                None => locked(&self.asks).say(&asked, Sign::Gone),
            }
        }
        let shared = self.clone();
        self.spawn(async move {
            let silent = waiting.finish(tokio::time::Instant::now() + asks::PATIENCE).await;
            shared.queue(Turn { request, until, patience: Patience::HasWaited, silent });
        });
    }

    /// Detaches sessions whose connections give no sign of life; false where it has to be decided anew.
    async fn end_silent(self: &Arc<Self>, book: &Book, silent: &[Asked]) -> Result<bool, SessionsError> {
        let is_still = |(id, held_by): &&Asked| {
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
        // Whoever has many sessions must not have them all read for each claim.
        let (mut all, mut n_read) = (Vec::new(), 0);
        for some in others.chunks(READ_AT_ONCE) {
            if n_read >= self.options.max_rooms {
                break;
            }
            let rooms = self.shelf.rooms(cookie, some.iter().map(|other| &other.id)).await?;
            all.extend(rooms.into_iter().flatten());
            n_read = all.iter().map(Vec::len).sum();
        }
        Ok(all)
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
    fn attachment(&self, about: Arc<About>, of: &Claimed, kept: Kept) -> Attachment {
        Attachment {
            ticket: of.by.ticket,
            generation: of.generation,
            holder: self.holder.clone(),
            key: self.key,
            about,
            kept,
            asked_by: Vec::new(),
            saved: Instant::now(),
        }
    }
}
