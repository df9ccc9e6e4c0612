//! How long an endpoint takes to answer, as one worker sees it: a histogram by powers of two, of which quantiles can be told.
//!
//! Each power of two from 0.25 ms to 64 s is cut into four, so that a quantile is told too long by a quarter at the most. When
//! [`MEMORY`] answers have been counted all counts are halved: what was long ago fades by the number of answers, not by time.
//! One worker writes; others may read, and a count that is lost between two threads that are no workers does no harm.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// The shortest time that is told apart, in nanoseconds.
const SHORTEST: u64 = 250_000;
/// Parts of each power of two.
const PARTS: u64 = 4;
const BUCKETS: usize = 18 * PARTS as usize + 1;
/// How many answers are remembered, about.
const MEMORY: u32 = 2048;
/// With fewer answers nothing is told.
const FEWEST: u32 = 32;

/// The pace of one endpoint.
#[derive(Debug)]
pub(crate) struct Pace {
    counts: [AtomicU32; BUCKETS],
    all: AtomicU32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU32::new(0)), all: AtomicU32::new(0) }
    }
}

impl Pace {
    /// Counts an answer that took so long.
    pub(crate) fn record(&self, took: Duration) {
        if let Some(count) = self.counts.get(bucket_of(took)) {
            count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        }
        let all = self.all.load(Relaxed).wrapping_add(1);
        self.all.store(all, Relaxed);
        if all >= MEMORY {
            self.fade();
        }
    }

    /// The time within which `percent` of the answers came; none where there were too few of them.
    pub(crate) fn quantile(&self, percent: u8) -> Option<Duration> {
        let all: u32 = self.counts.iter().map(|count| count.load(Relaxed)).sum();
        if all < FEWEST {
            return None;
        }
        let wanted = (u64::from(all) * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let within = self.counts.iter().position(|count| {
            seen += u64::from(count.load(Relaxed));
            seen >= wanted
        });
        within.map(upper_bound)
    }

    fn fade(&self) {
        let mut all = 0_u32;
        for count in &self.counts {
            let half = count.load(Relaxed) / 2;
            count.store(half, Relaxed);
            all = all.saturating_add(half);
        }
        self.all.store(all, Relaxed);
    }
}

/// Counts from the first power of two on in steps of its parts; what is shorter stands in the first, what is longer in the last.
fn bucket_of(took: Duration) -> usize {
    let scaled = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(PARTS) / SHORTEST;
    if scaled < PARTS {
        return 0;
    }
    let power = scaled.ilog2().saturating_sub(PARTS.ilog2());
    let part = (scaled >> power) - PARTS;
    usize::try_from(u64::from(power) * PARTS + part + 1).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    Duration::from_nanos(((SHORTEST * (PARTS + part)) << power) / PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn little_is_not_enough_to_tell_anything() {
        let pace = Pace::default();
        (0..FEWEST - 1).for_each(|_| pace.record(Duration::from_millis(5)));
        assert_eq!(pace.quantile(95), None);
        pace.record(Duration::from_millis(5));
        assert!(pace.quantile(95).is_some());
    }

    #[test]
    fn bounds_rise_and_hold_what_is_counted_below_them() {
        let mut last = Duration::ZERO;
        for bucket in 0..BUCKETS - 1 {
            let bound = upper_bound(bucket);
            assert!(bound > last, "{bucket}");
            assert_eq!(bucket_of(bound.checked_sub(Duration::from_nanos(1)).unwrap()), bucket);
            assert_eq!(bucket_of(bound), bucket + 1);
            last = bound;
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn what_was_long_ago_fades() {
        let pace = Pace::default();
        (0..10_000).for_each(|_| pace.record(Duration::from_millis(500)));
        (0..10 * MEMORY).for_each(|_| pace.record(Duration::from_millis(5)));
        assert!(pace.quantile(99).unwrap() < Duration::from_millis(7));
    }

    proptest! {
        #[test]
        fn a_quantile_is_told_within_a_quarter(seed in any::<u64>(), percent in 50_u8..=99, scale in 1_u64..2_000) {
            let (pace, mut rng) = (Pace::default(), fastrand::Rng::with_seed(seed));
            // Half of a thousand is near, and some are far: as services are.
            let mut times: Vec<u64> = (0..1000)
                .map(|_| scale * 250 + rng.u64(..scale * 500) * if rng.u8(..20) == 0 { 20 } else { 1 })
                .collect();
            for micros in &times {
                pace.record(Duration::from_micros(*micros));
            }
            times.sort_unstable();
            let exact = times[usize::from(percent) * 10 - 1];
            let told = u64::try_from(pace.quantile(percent).unwrap().as_micros()).unwrap();
            prop_assert!(told >= exact.min(60_000_000) && told <= exact + exact / 4 + 1, "{told} for {exact}");
        }
    }
}
