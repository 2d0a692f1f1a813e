//! Which session a claim gets: the rules, without doing anything about it.

use std::collections::{HashMap, HashSet};

use twine_protocol::RoomName;

use crate::session::store::Session;
use crate::session::{Claim, Cursors, How, Identity};

/// Sessions that one claim has pinged at most, the latest.
const MAX_PROBES: usize = 8;

/// What is to be done for a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// It gets this session.
    Take(&'a Session, How),
    /// It gets a copy of this session.
    Copy(&'a Session),
    /// It gets one of these if their connection is not alive any more.
    Probe(Vec<&'a Session>),
    /// It gets a new one.
    New,
}

/// Chooses among `sessions`, those of the claim's cookie in the order of their creation. One of them
/// is attached if it has no time of detaching.
pub(super) fn choose<'a>(claim: &Claim, sessions: &'a [Session]) -> Choice<'a> {
    // Whoever names a session of somebody else is answered as if there were none.
    let mut own = sessions.iter().filter(|session| is_of(session, &claim.identity));
    if let Some(named) = &claim.session {
        return match own.find(|session| session.id == *named) {
            None => Choice::New,
            Some(session) if session.detached.is_some() || is_same_page(session, claim) => {
                Choice::Take(session, How::Resumed)
            }
            Some(session) => Choice::Copy(session),
        };
    }
    // It may have been given one already, in an answer that was lost.
    let is_again = |session: &&Session| claim.instance.is_some() && session.instance == claim.instance;
    if let Some(session) = own.clone().find(is_again) {
        let how = if session.rooms.is_empty() { How::New } else { How::Adopted };
        return Choice::Take(session, how);
    }
    let detached = own.clone().filter(|session| session.detached.is_some());
    if let Some(session) = detached.max_by_key(|session| session.detached) {
        return Choice::Take(session, How::Adopted);
    }
    // One without rooms is not worth waiting for.
    let mut live: Vec<_> = own.filter(|session| !session.rooms.is_empty()).collect();
    live.drain(..live.len().saturating_sub(MAX_PROBES));
    if live.is_empty() { Choice::New } else { Choice::Probe(live) }
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

/// Whether the page that holds a session is the one that claims it.
fn is_same_page(session: &Session, claim: &Claim) -> bool {
    let holder = session.instance.as_ref();
    holder.is_some() && (holder == claim.instance.as_ref() || holder == claim.prev.as_ref())
}

/// Where rooms start that are not among `rooms`: the latest cursors of the user's detached sessions,
/// of at most `max` rooms, those of the sessions detached last.
pub(super) fn inherited(identity: &Identity, rooms: &Cursors, sessions: &[Session], max: usize) -> Cursors {
    let is_detached = |session: &&Session| session.detached.is_some() && is_of_same_user(session, identity);
    let mut detached: Vec<_> = sessions.iter().filter(is_detached).collect();
    detached.sort_by_key(|session| std::cmp::Reverse(session.detached));
    let own: HashSet<&RoomName> = rooms.iter().map(|(room, _)| room).collect();
    let mut places = HashMap::new();
    let mut found: Cursors = Vec::new();
    let others = detached.iter().flat_map(|session| &session.rooms);
    for (room, position) in others.filter(|(room, _)| !own.contains(room)) {
        let place: Option<usize> = places.get(room).copied();
        if let Some((_, latest)) = place.and_then(|place| found.get_mut(place)) {
            if *latest < *position {
                latest.clone_from(position);
            }
        } else if found.len() < max {
            places.insert(room, found.len());
            found.push((room.clone(), position.clone()));
        }
    }
    found
}
