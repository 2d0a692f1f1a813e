//! Which session a claim gets: the rules, without doing anything about it.

use std::collections::{HashMap, HashSet};

use twine_protocol::{InstanceId, RoomName, SessionId};

use super::store::Session;
use super::{Claim, Cursors, How, Identity};

/// The sessions of a cookie, in the order of their creation.
pub(super) struct Known {
    pub(super) stored: Vec<Session>,
    /// Those without rooms, all of them attached.
    pub(super) fresh: Vec<Session>,
}

impl Known {
    pub(super) fn all(&self) -> impl Iterator<Item = &Session> + Clone {
        self.stored.iter().chain(&self.fresh)
    }
}

/// Whether a claim may wait for others to give a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Waits,
    HasWaited,
}

/// Sessions that one claim has pinged at most, the latest.
pub(super) const MAX_PROBES: usize = 8;

/// What is to be done for a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// It gets this session.
    Take(&'a Session, How),
    /// It gets a copy of this session.
    Copy(&'a Session),
    /// It gets nothing before it is known whether the connections of these are alive.
    Probe(Vec<&'a Session>),
    /// It gets a new one.
    New,
}

/// Chooses among the sessions of the claim's cookie. One of them is attached if it has no time of
/// detaching; `holder_prev` is whom the one that has the named session came after.
pub(super) fn choose<'a>(
    claim: &Claim,
    known: &'a Known,
    holder_prev: Option<&InstanceId>,
    patience: Patience,
) -> Choice<'a> {
    // Whoever names a session of somebody else is answered as if there were none.
    let is_own = |session: &&Session| is_of(session, &claim.identity);
    let mut own = known.all().filter(is_own);
    let stored = known.stored.iter().filter(is_own);
    if let Some(named) = &claim.session {
        return match own.find(|session| session.id == *named) {
            None => Choice::New,
            Some(session) if session.detached.is_some() || is_same_page(session, holder_prev, claim) => {
                Choice::Take(session, How::Resumed)
            }
            Some(session) => Choice::Copy(session),
        };
    }
    // It may have been given one already, in an answer that was lost.
    let is_again = |session: &&Session| claim.instance.is_some() && session.instance == claim.instance;
    if let Some(session) = stored.clone().find(is_again) {
        return Choice::Take(session, How::Adopted);
    }
    if let Some(session) = own.find(is_again) {
        return Choice::Take(session, How::New);
    }
    // What the connections of this user hold that are gone without a word is as good as detached: their
    // own session if it is of this scope, and else where rooms start.
    let mut live: Vec<_> = known.stored.iter().filter(|session| is_live(session, &claim.identity)).collect();
    if patience == Patience::Waits && !live.is_empty() {
        // Beyond the bound those go first that are not to be had.
        live.sort_by_key(|session| session.scope == claim.identity.scope);
        live.drain(..live.len().saturating_sub(MAX_PROBES));
        return Choice::Probe(live);
    }
    let detached = stored.filter(|session| session.detached.is_some());
    let last = detached.max_by_key(|session| session.detached);
    last.map_or(Choice::New, |session| Choice::Take(session, How::Adopted))
}

/// Whether a session is of this user, in whatever scope, and attached. One without rooms is not stored,
/// and not worth waiting for.
fn is_live(session: &Session, identity: &Identity) -> bool {
    session.detached.is_none() && is_of_same_user(session, identity)
}

/// Whether a session belongs to whom it has to.
fn is_of(session: &Session, identity: &Identity) -> bool {
    is_of_same_user(session, identity) && session.scope == identity.scope
}

fn is_of_same_user(session: &Session, identity: &Identity) -> bool {
    session.cookie == identity.visitor.cookie
        && session.origin == identity.visitor.origin
        && session.subject == identity.subject
}

/// Whether the page that holds a session is the one that claims it, or was reloaded since. One that is
/// gone before it was answered has left no word of itself: the next one comes after the same as it did.
///
/// Two pages come after the same one also where a tab is duplicated in that very moment. Then each takes
/// over from the other once at most, for an answered client says no `prev` any more.
fn is_same_page(session: &Session, holder_prev: Option<&InstanceId>, claim: &Claim) -> bool {
    let (holder, instance, prev) = (session.instance.as_ref(), claim.instance.as_ref(), claim.prev.as_ref());
    holder.is_some() && (holder == instance || holder == prev) || prev.is_some() && prev == holder_prev
}

/// The detached sessions of a user other than `session`, those detached last first: what they know of
/// rooms that it does not have is where those start.
pub(super) fn bequeathing<'a>(
    identity: &Identity,
    session: &SessionId,
    stored: &'a [Session],
) -> Vec<&'a Session> {
    let is_detached = |other: &&Session| other.detached.is_some() && other.id != *session;
    let of_user = stored.iter().filter(|other| is_of_same_user(other, identity));
    let mut detached: Vec<_> = of_user.filter(is_detached).collect();
    detached.sort_by_key(|session| std::cmp::Reverse(session.detached));
    detached
}

/// The latest cursors of rooms that a session does not have itself.
pub(super) struct Inheritance<'a> {
    own: HashSet<&'a RoomName>,
    places: HashMap<RoomName, usize>,
    found: Cursors,
}

impl<'a> Inheritance<'a> {
    pub(super) fn new(own: &'a Cursors) -> Self {
        let own = own.iter().map(|(room, _)| room).collect();
        Self { own, places: HashMap::new(), found: Cursors::new() }
    }

    pub(super) fn add(&mut self, rooms: Cursors) {
        for (room, position) in rooms {
            let place = self.places.get(&room).copied();
            if let Some((_, latest)) = place.and_then(|place| self.found.get_mut(place)) {
                if *latest < position {
                    *latest = position;
                }
            } else if !self.own.contains(&room) {
                self.places.insert(room.clone(), self.found.len());
                self.found.push((room, position));
            }
        }
    }

    /// At most `max` of them.
    pub(super) fn into_cursors(mut self, max: usize) -> Cursors {
        self.found.truncate(max);
        self.found
    }
}
