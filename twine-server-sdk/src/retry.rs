//! When to try again, and how long to wait before.

use std::time::{Duration, SystemTime};

use crate::Error;

/// When a publish that failed for a passing reason is tried again: exponential backoff with full
/// jitter, bounded by the publish's deadline.
///
/// The delay before retry *n* (counted from 0) is random between zero and `first_delay` × 2ⁿ, the
/// latter never over `max_delay`; a hub's `Retry-After` is waited for in addition. By default 100 ms
/// and 5 s, as often as the deadline allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    first_delay: Duration,
    max_delay: Duration,
    max_retries: Option<u32>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(100), max_delay: Duration::from_secs(5), max_retries: None }
    }
}

impl RetryPolicy {
    /// Retries with delays that grow from `first_delay` up to `max_delay`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) where `first_delay` is zero or longer than `max_delay`.
    pub fn new(first_delay: Duration, max_delay: Duration) -> Result<Self, Error> {
        if first_delay.is_zero() || first_delay > max_delay {
            return Err(Error::config(format!(
                "the first retry's delay must be above zero and at most the longest, \
                 {max_delay:?}; it is {first_delay:?}"
            )));
        }
        Ok(Self { first_delay, max_delay, max_retries: None })
    }

    /// Never retries. The SDK's promise that a publish outlives a restart of the hub is off then.
    #[must_use]
    pub fn never() -> Self {
        Self::default().max_retries(0)
    }

    /// Retries at most so many times, also where the deadline would allow more.
    #[must_use]
    pub fn max_retries(self, max_retries: u32) -> Self {
        Self { max_retries: Some(max_retries), ..self }
    }

    /// How long to wait after `error`, when `retries` have been made and `left` is left until the
    /// deadline; `None` to give up: what could only fail for lack of time is not started.
    pub(crate) fn delay(&self, error: &Error, retries: u32, left: Duration) -> Option<Duration> {
        if !error.is_retryable() || self.max_retries.is_some_and(|max| retries >= max) {
            return None;
        }
        let ceiling = self.first_delay.saturating_mul(2u32.saturating_pow(retries)).min(self.max_delay);
        // Drawn anew each time, so that many publishers that failed together don't return together,
        // also where the hub gave all of them the same `Retry-After`.
        let delay = ceiling.mul_f64(fastrand::f64()).saturating_add(error.retry_after().unwrap_or_default());
        (delay + LEAST_ATTEMPT < left).then_some(delay)
    }
}

/// An attempt with less time than this would most likely be cut short, and leave it open whether the
/// message was stored where the attempts before it had made that sure.
const LEAST_ATTEMPT: Duration = Duration::from_millis(100);

/// Reads a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3). One that is neither is
/// as good as none, and one in the past is zero.
pub(crate) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const HOUR: Duration = Duration::from_secs(3600);

    fn policy() -> RetryPolicy {
        RetryPolicy::new(Duration::from_millis(100), Duration::from_secs(1)).unwrap()
    }

    fn unavailable() -> Error {
        Error::new(ErrorKind::Unavailable, "busy")
    }

    #[test]
    fn delays_are_spread_below_a_ceiling_that_doubles_up_to_the_longest() {
        for (retries, ceiling) in [(0, 100), (1, 200), (3, 800), (4, 1000), (40, 1000), (u32::MAX, 1000)] {
            let ceiling = Duration::from_millis(ceiling);
            let delays: Vec<_> =
                (0..200).map(|_| policy().delay(&unavailable(), retries, HOUR).unwrap()).collect();
            assert!(delays.iter().all(|delay| *delay <= ceiling));
            // Of 200 fair draws, some fall into each half; all into one with a chance of 2^-199.
            assert!(delays.iter().any(|delay| *delay < ceiling / 2), "no delay is short");
            assert!(delays.iter().any(|delay| *delay > ceiling / 2), "no delay is long");
        }
    }

    #[test]
    fn the_hubs_wish_comes_on_top() {
        let error = unavailable().asking_for(Some(Duration::from_secs(7)));
        let delay = policy().delay(&error, 0, HOUR).unwrap();
        assert!((7000..=7100).contains(&delay.as_millis()));
    }

    #[test]
    fn what_would_end_after_the_deadline_is_not_started() {
        let error = unavailable().asking_for(Some(Duration::from_secs(7)));
        assert_eq!(policy().delay(&error, 0, Duration::from_secs(7)), None);
        assert_eq!(policy().delay(&unavailable(), 0, Duration::ZERO), None);
    }

    #[test]
    fn what_can_not_pass_is_not_retried() {
        assert_eq!(policy().delay(&Error::new(ErrorKind::Rejected, "no"), 0, HOUR), None);
        assert_eq!(RetryPolicy::never().delay(&unavailable(), 0, HOUR), None);
        let twice = policy().max_retries(2);
        assert!(twice.delay(&unavailable(), 1, HOUR).is_some());
        assert_eq!(twice.delay(&unavailable(), 2, HOUR), None);
    }

    #[test]
    fn a_policy_that_would_spin_can_not_be_made() {
        assert_eq!(RetryPolicy::new(Duration::ZERO, HOUR).unwrap_err().kind(), ErrorKind::Config);
        assert_eq!(RetryPolicy::new(HOUR, Duration::from_secs(1)).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH;
        assert_eq!(parse_retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("Thu, 01 Jan 1970 00:00:30 GMT", now), Some(Duration::from_secs(30)));
        let later = now + HOUR;
        assert_eq!(parse_retry_after("Thu, 01 Jan 1970 00:00:30 GMT", later), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
        assert_eq!(parse_retry_after("-1", now), None);
    }
}
