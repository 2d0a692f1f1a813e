//! How late a shard is: a knock at its door, and when it is heard.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::clock;

/// A knock at one shard's door. It waits its turn as any news does.
#[derive(Debug)]
pub(super) struct Knock {
    made: Instant,
    heard: OnceLock<Instant>,
}

impl Knock {
    pub(super) fn new() -> Self {
        Self { made: clock::now(), heard: OnceLock::new() }
    }

    /// The shard has come to it.
    pub(super) fn hear(&self) {
        // Nobody hears it twice.
        let _ = self.heard.set(clock::now());
    }
}

/// A knock at each shard's door.
#[derive(Debug)]
pub(crate) struct Knocks(pub(super) Vec<Arc<Knock>>);

impl Knocks {
    /// How long it took the slowest shard to hear it; what has not been heard yet grows.
    pub(crate) fn delay(&self) -> Duration {
        let delay = |knock: &Arc<Knock>| {
            let heard = knock.heard.get().copied().unwrap_or_else(clock::now);
            heard.saturating_duration_since(knock.made)
        };
        self.0.iter().map(delay).max().unwrap_or_default()
    }

    /// Whether all have heard it.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.iter().all(|knock| knock.heard.get().is_some())
    }
}
