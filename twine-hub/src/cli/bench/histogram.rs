//! Times, in microseconds, to three digits and up to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pace::micros;

const LONGEST: Duration = Duration::from_hours(1);

/// How often which times were measured. It takes no memory until the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Times(Option<Histogram<u64>>);

/// Percentiles, in seconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99.9")]
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Times {
    pub(super) fn record(&mut self, time: Duration) {
        self.record_n(micros(time), 1);
    }

    /// So many of the same time; longer than an hour counts as an hour.
    pub(super) fn record_n(&mut self, micros_each: u64, n: u64) {
        if self.0.is_none() {
            // These bounds are valid, so there always is one.
            self.0 = Histogram::new_with_bounds(1, micros(LONGEST), 3).ok();
        }
        if let Some(times) = &mut self.0 {
            times.saturating_record_n(micros_each, n);
        }
    }

    pub(super) fn merge(&mut self, more: &Self) {
        for (value, n) in more.pairs() {
            self.record_n(value, n);
        }
    }

    /// Of none there are no percentiles.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let times = self.0.as_ref().filter(|times| !times.is_empty())?;
        let at = |percentile| Duration::from_micros(times.value_at_percentile(percentile)).as_secs_f64();
        let max = Duration::from_micros(times.max()).as_secs_f64();
        // A value stands for all that share its first three digits, and the greatest of them is given.
        let at = |percentile| f64::min(at(percentile), max);
        Some(Percentiles { p50: at(50.0), p90: at(90.0), p99: at(99.0), p999: at(99.9), max })
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter().flat_map(Histogram::iter_recorded);
        recorded.map(|at| (at.value_iterated_to(), at.count_at_value()))
    }
}

/// Between processes: values and how often each was measured.
impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs())
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::default();
        for (value, n) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.record_n(value, n);
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_measured_adds_up_as_if_one_had() {
        let (mut one, mut parts) = (Times::default(), [Times::default(), Times::default()]);
        for n in 0..10_000_u64 {
            let time = Duration::from_micros(n * n % 7_000_000);
            one.record(time);
            parts[usize::from(n % 3 == 0)].record(time);
        }
        let mut merged = Times::default();
        for part in parts {
            let sent = serde_json::to_string(&part).unwrap();
            merged.merge(&serde_json::from_str(&sent).unwrap());
        }
        assert!(merged.pairs().eq(one.pairs()));
        let close = |a: f64, b: f64| (a - b).abs() <= b / 500.0;
        let (merged, one) = (merged.percentiles().unwrap(), one.percentiles().unwrap());
        assert!(close(merged.p50, one.p50) && close(merged.p999, one.p999) && close(merged.max, one.max));
    }

    #[test]
    fn of_nothing_there_are_no_percentiles_and_beyond_an_hour_is_an_hour() {
        let mut times: Times = serde_json::from_str("[]").unwrap();
        assert!(times.percentiles().is_none());
        times.record(Duration::from_hours(2));
        assert!((times.percentiles().unwrap().p50 - 3_600.0).abs() < 10.0);
    }
}
