//! Claims: a session is found for each, taken over, copied or begun.

use twine_protocol::SessionId;

use super::held::{Attachment, Fresh};
use super::waiting::Waiter;
use super::{Effect, Keeper, Now};
use crate::session::choice::{self, Choice, Inheritance, Known, Patience};
use crate::session::store::Session;
use crate::session::{
    Attached, Bound, Claim, CookieHash, Cursors, How, Identity, Lost, Request, Ticket, mint,
};
use crate::store::StoreError;

/// The session that a claim gets.
struct Grant {
    session: SessionId,
    fresh: Option<Box<Fresh>>,
    how: How,
    rooms: Cursors,
    inherited: Cursors,
}

impl Keeper {
    /// Answers a claim, or has it wait for what connections of the same visitor say.
    pub(super) fn attach(
        &mut self,
        request: Request,
        patience: Patience,
        now: Now,
    ) -> Result<(), StoreError> {
        let claim = &request.claim;
        let (cookie, cut) = (claim.identity.visitor.cookie, self.cut(now));
        let mut known = self.known(cookie)?;
        known.stored.retain(|session| session.detached.is_none_or(|time| time >= cut));
        let holder_prev = claim.session.as_ref().and_then(|named| self.held.prev(named));
        match choice::choose(claim, &known, holder_prev, patience) {
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
                self.probe(request, live);
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
    pub(super) fn attach_ready(&mut self, now: Now) -> Result<(), StoreError> {
        while let Some(request) = self.round.ready.pop_front() {
            self.attach(request, Patience::HasWaited, now)?;
        }
        Ok(())
    }

    pub(super) fn known(&mut self, cookie: CookieHash) -> Result<Known, StoreError> {
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
        let visitor = request.claim.identity.visitor.clone();
        let fresh: Vec<_> = self.held.fresh_of(visitor.cookie).map(|fresh| fresh.id.clone()).collect();
        if let Some(oldest) = fresh.first().filter(|_| fresh.len() >= self.options.max_per_cookie) {
            self.release(oldest, Some(Lost::Forgotten));
            self.round.dropped.push(Bound::Cookie);
        }
        let session = Session::begin(id.clone(), &request.claim);
        let inherited = self.inherited(&request.claim.identity, &id, &rooms, known)?;
        let fresh = Fresh { session, newcomer: Some(visitor.address) };
        let fresh = Some(Box::new(fresh));
        self.hold(request, Grant { session: id, fresh, how, rooms, inherited });
        Ok(())
    }

    /// Attaches a session to the connection that claimed one.
    fn hold(&mut self, request: Request, grant: Grant) {
        let Request { claim: Claim { prev, .. }, holder, key, done } = request;
        let Grant { session, fresh, how, rooms, inherited } = grant;
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.held.insert(session.clone(), Attachment::new(ticket, holder, key, prev, fresh));
        let attached = Attached { session, ticket, how, rooms, inherited };
        self.round.effects.push(Effect::Answer { done, attached });
    }

    /// Asks the connections of these sessions for a sign of life.
    fn probe(&mut self, request: Request, live: Vec<SessionId>) {
        let claim = self.waiting.next_id();
        let mut silent = Vec::with_capacity(live.len());
        for id in live {
            if let Some(attachment) = self.held.get_mut(&id) {
                attachment.ask(claim);
                let Attachment { ticket, key, .. } = *attachment;
                let holder = attachment.holder.clone();
                self.round.effects.push(Effect::Probe { holder, key, ticket });
                silent.push((id, ticket));
            }
        }
        self.waiting.push(Waiter { request, silent });
    }
}
