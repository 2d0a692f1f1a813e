//! The time. A test that runs everything on one thread may set it for that thread.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The moment, for measuring how long something takes.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(set) = manual::get() {
        return set.now;
    }
    Instant::now()
}

/// How long it is until then, for whoever waits. Time that a test sets is not waited for: it stands
/// still meanwhile.
pub(crate) fn until(moment: Instant) -> Duration {
    #[cfg(test)]
    if manual::get().is_some() {
        return Duration::ZERO;
    }
    moment.saturating_duration_since(now())
}

/// Milliseconds since 1970-01-01 UTC. It may go back, where somebody sets the system's clock.
pub(crate) fn unix_millis() -> u64 {
    #[cfg(test)]
    if let Some(set) = manual::get() {
        return set.unix_millis;
    }
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A time in milliseconds, as it is stored and sent; so long that it does not matter where it does not fit.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time that stands still until it is set.
#[cfg(test)]
pub(crate) mod manual {
    use std::cell::Cell;
    use std::time::Instant;

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Set {
        pub(crate) now: Instant,
        pub(crate) unix_millis: u64,
    }

    thread_local!(static SET: Cell<Option<Set>> = const { Cell::new(None) });

    /// Sets the time of this thread, or gives it the system's again.
    pub(crate) fn set(to: Option<Set>) {
        SET.set(to);
    }

    pub(super) fn get() -> Option<Set> {
        SET.get()
    }
}
