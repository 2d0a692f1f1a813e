//! What connections have given back of their sessions and is not in Redis yet: of each attachment the
//! latest, which has everything again. It is bounded by the attachments there are and those that ended
//! while Redis could not be had.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::held::Kept;
use super::row::About;
use crate::session::{CookieHash, Cursors, Ticket};

/// What one attachment has to be saved of.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) about: Arc<About>,
    pub(super) ticket: Ticket,
    /// The attachment's place among those of its session.
    pub(super) generation: u64,
    pub(super) rooms: Cursors,
    /// Later ones of an attachment are greater.
    pub(super) number: u64,
    pub(super) ended: Option<Ended>,
}

/// An attachment that is over, of which its hub remembers nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// Where its session was.
    pub(super) kept: Kept,
}

impl Entry {
    pub(super) fn cookie(&self) -> CookieHash {
        self.about.session.cookie
    }
}

/// All that is owed, by cookie.
#[derive(Default)]
pub(super) struct Owed {
    waiting: BTreeMap<(CookieHash, Ticket), Entry>,
    /// Of each cookie how much is on its way.
    under_way: BTreeMap<CookieHash, usize>,
}

impl Owed {
    /// Owes this, in place of what was owed of the attachment.
    pub(super) fn put(&mut self, entry: Entry) {
        self.waiting.insert((entry.cookie(), entry.ticket), entry);
    }

    /// Owes this again, for it could not be saved, unless there is something later.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.waiting.entry((entry.cookie(), entry.ticket)).or_insert(entry);
    }

    /// Takes all that waits; each is under way until [`Owed::done`].
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let taken: Vec<_> = std::mem::take(&mut self.waiting).into_values().collect();
        for entry in &taken {
            *self.under_way.entry(entry.cookie()).or_default() += 1;
        }
        taken
    }

    /// One of a cookie is under way no more: it is saved, or waits again.
    pub(super) fn done(&mut self, cookie: CookieHash) {
        if let Some(n) = self.under_way.get_mut(&cookie) {
            *n -= 1;
            if *n == 0 {
                self.under_way.remove(&cookie);
            }
        }
    }

    /// Whether something of a cookie is not known to be in Redis.
    pub(super) fn has(&self, cookie: CookieHash) -> bool {
        let of_cookie = (cookie, Ticket(0))..=(cookie, Ticket(u64::MAX));
        self.under_way.contains_key(&cookie) || self.waiting.range(of_cookie).next().is_some()
    }

    /// Owes nothing of a cookie any more.
    pub(super) fn forget(&mut self, cookie: CookieHash) {
        let of_cookie = (cookie, Ticket(0))..=(cookie, Ticket(u64::MAX));
        let owed: Vec<_> = self.waiting.range(of_cookie).map(|(key, _)| *key).collect();
        for key in owed {
            self.waiting.remove(&key);
        }
    }

    /// Whether nothing waits or is under way.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.under_way.values().sum::<usize>()
    }
}
