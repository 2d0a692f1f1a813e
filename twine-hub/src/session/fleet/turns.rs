//! The order of claims: those of one cookie have their turns one after the other on this hub, so that they
//! need not be decided anew for each other.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::asks::Asked;
use crate::rooms::locked;
use crate::session::choice::Patience;
use crate::session::{CookieHash, Request};

/// How long a claim is worth to be answered: its connection goes on without a session then.
const DEADLINE: Duration = Duration::from_secs(5);

/// A claim that has its turn some time.
pub(super) struct Turn {
    pub(super) request: Request,
    /// When its connection goes on without a session.
    pub(super) until: Instant,
    pub(super) patience: Patience,
    /// Attachments that count as over, for nothing was heard of them.
    pub(super) silent: Vec<Asked>,
}

impl Turn {
    pub(super) fn first(request: Request) -> Self {
        let until = Instant::now() + DEADLINE;
        Self { request, until, patience: Patience::Waits, silent: Vec::new() }
    }

    fn cookie(&self) -> CookieHash {
        self.request.claim.identity.visitor.cookie
    }
}

/// The claims of a cookie that wait, while a task works them off. If that panics they are dropped, which
/// answers them, and later ones have another.
struct Turns<'a> {
    shared: &'a Shared,
    cookie: CookieHash,
}

impl Turns<'_> {
    /// The next one; after the last, those that come have another task.
    fn next(&self) -> Option<Turn> {
        let mut claims = locked(&self.shared.claims);
        let turn = claims.get_mut(&self.cookie).and_then(VecDeque::pop_front);
        if turn.is_none() {
            claims.remove(&self.cookie);
        }
        turn
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let waiting = locked(&self.shared.claims).remove(&self.cookie);
            drop(waiting);
        }
    }
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
            let turns = Turns { shared: &shared, cookie };
            while let Some(turn) = turns.next() {
                let until = turn.until;
                // Whoever has gone on without a session must not take one from others.
                if Instant::now() < until
                    && let Ok(Err(error)) = timeout_at(until, shared.serve(turn)).await
                {
                    shared.say(&error);
                }
            }
        });
    }
}
