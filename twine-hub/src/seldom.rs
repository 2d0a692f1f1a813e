//! Log lines that would otherwise repeat without end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A log line that anyone may cause: one a second at most.
#[derive(Debug)]
pub(crate) struct Seldom {
    started: Instant,
    /// The second after `started` in which the line may be said again.
    next: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { started: Instant::now(), next: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// Calls `say` with the number of lines left unsaid since the last one, or counts one more.
    pub(crate) fn say(&self, say: impl FnOnce(u64)) {
        let second = self.started.elapsed().as_secs();
        let due = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            (next <= second).then_some(second + 1)
        });
        if due.is_ok() {
            say(self.unsaid.swap(0, Ordering::Relaxed));
        } else {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_is_counted_instead_of_said() {
        // A second that never ends, whatever this test takes.
        let seldom = Seldom { next: AtomicU64::new(u64::MAX), ..Seldom::default() };
        seldom.say(|_| panic!("too soon"));
        seldom.say(|_| panic!("too soon"));
        seldom.next.store(0, Ordering::Relaxed);
        let mut said = None;
        seldom.say(|unsaid| said = Some(unsaid));
        assert_eq!(said, Some(2));
    }
}
