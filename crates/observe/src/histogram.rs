//! How long things take: counts by fixed bounds from 0.5 ms to 60 s, from which p50, p95 and p99 can be derived.
//!
//! Durations are kept in nanoseconds; the bounds are inclusive, as Prometheus has them (`le`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bounds with the text of their label, in seconds. What is longer than the last stands in `+Inf`.
pub(crate) const BOUNDS: [(Duration, &str); 24] = [
    (Duration::from_micros(500), "0.0005"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_millis(2), "0.002"),
    (Duration::from_millis(3), "0.003"),
    (Duration::from_millis(5), "0.005"),
    (Duration::from_micros(7_500), "0.0075"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(15), "0.015"),
    (Duration::from_millis(20), "0.02"),
    (Duration::from_millis(30), "0.03"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(75), "0.075"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(150), "0.15"),
    (Duration::from_millis(200), "0.2"),
    (Duration::from_millis(300), "0.3"),
    (Duration::from_millis(500), "0.5"),
    (Duration::from_millis(750), "0.75"),
    (Duration::from_secs(1), "1"),
    (Duration::from_secs(2), "2"),
    (Duration::from_secs(5), "5"),
    (Duration::from_secs(10), "10"),
    (Duration::from_secs(30), "30"),
    (Duration::from_secs(60), "60"),
];

/// How many counts a histogram has: one for each bound and one for all that is longer.
pub(crate) const BUCKETS: usize = BOUNDS.len() + 1;

/// Counts of one worker: relaxed, since nobody decides anything by them.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }
}

/// What several histograms come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    /// Counts by bound, each without those below it.
    pub(crate) buckets: [u64; BUCKETS],
    /// All durations together, in nanoseconds.
    pub(crate) sum: u64,
}

impl Totals {
    /// Adds what `histogram` has counted so far.
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        self.sum = self.sum.wrapping_add(histogram.sum.load(Ordering::Relaxed));
    }
}

/// Most answers are fast, so the search begins at the short end.
fn bucket_of(took: Duration) -> usize {
    BOUNDS.iter().position(|(bound, _)| took <= *bound).unwrap_or(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_say_in_seconds_what_they_are() {
        assert!(BOUNDS.is_sorted_by(|a, b| a.0 < b.0));
        for (bound, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert!((seconds - bound.as_secs_f64()).abs() < 1e-12, "{text}");
        }
    }

    #[test]
    fn a_duration_lands_in_the_bucket_whose_bound_holds_it() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::from_secs(61)), BOUNDS.len());
        for (i, (bound, _)) in BOUNDS.iter().enumerate() {
            assert_eq!(bucket_of(*bound), i);
            assert_eq!(bucket_of(*bound + Duration::from_nanos(1)), i + 1);
        }
    }
}
