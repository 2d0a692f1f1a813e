//! When the hub is told how far the cursors have moved: never once a message.

use super::limits;

/// The acknowledgements of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acks {
    /// Whether the hub keeps them: it does for a session.
    kept: bool,
    /// When to send what has moved, if nothing moves before.
    quiet: u64,
    /// When to send it in any case.
    latest: u64,
}

impl Acks {
    /// Nothing has moved yet.
    pub(super) fn new(kept: bool) -> Self {
        Self { kept, quiet: u64::MAX, latest: u64::MAX }
    }

    pub(super) fn are_kept(&self) -> bool {
        self.kept
    }

    /// A cursor has moved.
    pub(super) fn moved(&mut self, now: u64) {
        if self.kept {
            self.quiet = now.saturating_add(limits::ACK_QUIET);
            self.latest = self.latest.min(now.saturating_add(limits::ACK_EVERY));
        }
    }

    /// When to send what has moved.
    pub(super) fn due(&self) -> u64 {
        self.quiet.min(self.latest)
    }

    /// It is being sent.
    pub(super) fn told(&mut self) {
        *self = Self::new(self.kept);
    }
}
