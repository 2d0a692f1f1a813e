//! A histogram of times that the hub itself can read, which the library's own can't.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The upper end of the first bucket, in seconds; each further one ends at twice the one before.
const FIRST: f64 = 0.000_05;
/// Buckets with an end, the last of which is at 6.5 seconds, and one without.
const BUCKETS: usize = 19;

/// How many times were how long. A clone is the same histogram.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: [AtomicU64; BUCKETS],
    /// All times together, in nanoseconds: enough for five centuries.
    sum: AtomicU64,
}

/// What a histogram has counted, bucket by bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts([u64; BUCKETS]);

impl Histogram {
    /// Counts one time more. It costs two additions.
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = ends().take_while(|end| seconds > *end).count();
        if let Some(count) = self.0.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|bucket| {
            self.0.counts.get(bucket).map_or(0, |count| count.load(Ordering::Relaxed))
        }))
    }
}

impl Counts {
    /// What was counted after `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let earlier = earlier.0.iter();
        let mut counts = self.0;
        counts.iter_mut().zip(earlier).for_each(|(count, earlier)| *count = count.saturating_sub(*earlier));
        Self(counts)
    }

    /// Seconds that this share of all does not exceed, as far as buckets can tell; `None` where
    /// nothing was counted. Beyond the last end it is that end.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = as_f64(total) * share;
        let (mut below, mut start) = (0.0, 0.0);
        for (count, end) in self.0.iter().map(|count| as_f64(*count)).zip(ends()) {
            if count > 0.0 && below + count >= rank {
                let within = ((rank - below) / count).clamp(0.0, 1.0);
                return Some(start + (end - start) * within);
            }
            (below, start) = (below + count, end);
        }
        Some(start)
    }
}

/// The ends of all buckets that have one, in seconds.
fn ends() -> impl Iterator<Item = f64> {
    std::iter::successors(Some(FIRST), |end| Some(end * 2.0)).take(BUCKETS - 1)
}

/// Counts are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Counts(counts) = self.counts();
        let sum = Duration::from_nanos(self.0.sum.load(Ordering::Relaxed)).as_secs_f64();
        let buckets: Vec<_> = ends().chain([f64::INFINITY]).zip(counts).collect();
        encoder.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn of(milliseconds: impl IntoIterator<Item = u64>) -> Histogram {
        let histogram = Histogram::default();
        milliseconds.into_iter().for_each(|time| histogram.observe(Duration::from_millis(time)));
        histogram
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_of_its_time() {
        let quantile = |histogram: &Histogram, share| histogram.counts().quantile(share);
        assert_eq!(quantile(&of([]), 0.99), None);
        // 1 ms is between 0.8 and 1.6 ms, 100 ms between 51.2 and 102.4 ms.
        let mixed = of(std::iter::repeat_n(1, 98).chain([100, 100]));
        let (half, most) = (quantile(&mixed, 0.5).unwrap(), quantile(&mixed, 0.99).unwrap());
        assert!((0.000_8..=0.001_6).contains(&half), "{half}");
        assert!((0.051_2..=0.102_4).contains(&most), "{most}");
        assert_eq!(quantile(&of([60_000]), 0.99), Some(6.553_6));
    }

    #[test]
    fn what_was_counted_before_does_not_count() {
        let histogram = of([1_000; 50]);
        let before = histogram.counts();
        assert_eq!(histogram.counts().since(&before).quantile(0.99), None);
        histogram.observe(Duration::from_millis(1));
        assert!(histogram.counts().since(&before).quantile(0.99).unwrap() < 0.002);
    }

    #[test]
    fn it_is_written_as_any_histogram() {
        let mut registry = Registry::default();
        let histogram = of([1, 1, 100]);
        histogram.observe(Duration::from_mins(1));
        registry.register("time", "Time", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE time histogram",
            "time_sum 60.102",
            "time_count 4",
            "time_bucket{le=\"0.0016\"} 2",
            "time_bucket{le=\"1.6384\"} 3",
            "time_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
