//! Claims that wait to hear whether the connections of a session are alive.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use twine_protocol::SessionId;

use crate::session::{CookieHash, Request, Ticket};

/// How long a connection has for a sign of life. A claim waits no longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A claim that waits, in the order of their coming.
pub(super) type ClaimId = u64;

/// A claim that waits.
pub(super) struct Waiter {
    pub(super) request: Request,
    /// The attachments that have given no sign of life yet.
    pub(super) silent: Vec<(SessionId, Ticket)>,
}

/// All claims that wait.
#[derive(Default)]
pub(super) struct Waiting {
    next: ClaimId,
    waiters: HashMap<ClaimId, Waiter>,
    /// Those that wait for connections that have yet to be asked.
    unasked: Vec<ClaimId>,
    /// When each other one has waited long enough; all wait equally long.
    deadlines: VecDeque<(Instant, ClaimId)>,
}

impl Waiting {
    /// The number that the next claim gets.
    pub(super) fn next_id(&self) -> ClaimId {
        self.next
    }

    /// Adds a claim, whose time begins with [`Waiting::start`].
    pub(super) fn push(&mut self, waiter: Waiter) {
        self.waiters.insert(self.next, waiter);
        self.unasked.push(self.next);
        self.next += 1;
    }

    /// All connections have been asked.
    pub(super) fn start(&mut self, now: Instant) {
        self.deadlines.extend(self.unasked.drain(..).map(|claim| (now + PATIENCE, claim)));
    }

    /// Notes that a session has given a sign of life, or is attached no more. Gives back the claim if
    /// it was the last that it waited for.
    pub(super) fn heard(&mut self, claim: ClaimId, session: &SessionId) -> Option<Waiter> {
        let waiter = self.waiters.get_mut(&claim)?;
        waiter.silent.retain(|(id, _)| id != session);
        if waiter.silent.is_empty() { self.waiters.remove(&claim) } else { None }
    }

    /// The session is attached after all. A claim that was given back meanwhile waits for nothing.
    pub(super) fn wait_again(&mut self, claim: ClaimId, session: SessionId, ticket: Ticket) {
        if let Some(waiter) = self.waiters.get_mut(&claim) {
            waiter.silent.push((session, ticket));
        }
    }

    /// A claim that has waited long enough.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Waiter> {
        while self.deadlines.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let (_, claim) = self.deadlines.pop_front()?;
            if let Some(waiter) = self.waiters.remove(&claim) {
                return Some(waiter);
            }
        }
        None
    }

    /// The claims of a cookie, which wait no longer.
    pub(super) fn of_cookie(&mut self, cookie: CookieHash) -> Vec<Waiter> {
        let is_theirs = |waiter: &Waiter| waiter.request.claim.identity.visitor.cookie == cookie;
        let mut theirs: Vec<_> =
            self.waiters.iter().filter(|(_, waiter)| is_theirs(waiter)).map(|(id, _)| *id).collect();
        theirs.sort_unstable();
        theirs.iter().filter_map(|id| self.waiters.remove(id)).collect()
    }

    /// When the next claim has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }
}
