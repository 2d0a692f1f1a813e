//! How long to wait before connecting again: exponential, with full jitter.

use super::limits;

/// The waiting times of one client.
///
/// The n-th attempt in a row waits a random time below 1 s × 2ⁿ, at most 30 s: a random share of
/// the whole interval spreads the clients of a hub that has restarted better than a fixed time
/// with some noise does.
#[derive(Debug)]
pub(super) struct Backoff {
    attempt: u32,
    random: Random,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { attempt: 0, random: Random(seed) }
    }

    /// The next waiting time in milliseconds. `hint` is what the hub asked for: it comes on top.
    pub(super) fn next(&mut self, hint: Option<u64>) -> u64 {
        let delay = self.jitter(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        hint.map_or(0, |hint| hint.min(limits::RETRY_HINT_MAX)) + delay
    }

    /// A random time for the `attempt`-th attempt of something else than the connection.
    pub(super) fn jitter(&mut self, attempt: u32) -> u64 {
        let cap = limits::RETRY_FIRST.saturating_mul(1 << attempt.min(16)).min(limits::RETRY_MAX);
        self.random.below(cap)
    }

    /// The connection was stable: the next failure is a first one.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): 64 bits of state, plenty for spreading clients. It is not
/// for secrets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The bias of a remainder over a few thousand values of 2^64 does not matter here.
        z % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_comes_within_a_second_and_none_later_than_thirty() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let mut cap = 1_000;
            for _ in 0..100 {
                assert!(backoff.next(None) < cap);
                cap = (cap * 2).min(30_000);
            }
        }
    }

    #[test]
    fn waiting_times_use_the_whole_interval() {
        let mut longest = 0;
        let mut shortest = u64::MAX;
        for seed in 0..1_000 {
            let delay = Backoff::new(seed).next(None);
            longest = longest.max(delay);
            shortest = shortest.min(delay);
        }
        assert!(shortest < 50 && longest > 950, "{shortest}..{longest}");
    }

    #[test]
    fn a_stable_connection_starts_the_series_anew() {
        let mut backoff = Backoff::new(7);
        for _ in 0..10 {
            backoff.next(None);
        }
        backoff.reset();
        assert!(backoff.next(None) < 1_000);
    }

    #[test]
    fn what_the_hub_asks_for_is_waited_for_within_reason() {
        let delay = Backoff::new(1).next(Some(1_500));
        assert!((1_500..2_500).contains(&delay));
        assert!(Backoff::new(1).next(Some(u64::MAX)) <= limits::RETRY_HINT_MAX + 1_000);
    }
}
