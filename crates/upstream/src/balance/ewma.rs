//! Of two endpoints drawn by lot, the one that is expected to be done sooner: by the peak-sensitive moving average of its
//! latency, times what is under way there.
//!
//! The average is that of Finagle's `p2c_peak_ewma` and Linkerd: a slower answer than expected counts at once and in full, a
//! faster one by and by, with the time constant [`DECAY`]. An endpoint that is left alone for a while is expected to be faster
//! than it was, so that one which was slow is tried again. Time is nanoseconds from any fixed moment on, latencies are seconds.

use std::time::Duration;

use super::lot::two;
use super::{Endpoints, Weights};

/// In which time an old observation loses all but a third (1/e) of its weight.
pub const DECAY: Duration = Duration::from_secs(10);

/// What an attempt counts for that failed: it may have failed at once, and must not attract others by that.
pub const FAILED: Duration = Duration::from_secs(1);

/// The cost of an endpoint of which nothing is known but that somebody is asking it: dearer than any that has answered.
const UNKNOWN: f64 = 1e9;

/// The moving average of one endpoint's latency.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ewma {
    /// In seconds, at `at`; 0 where nothing is known.
    pub seconds: f64,
    /// When that was, in nanoseconds.
    pub at: u64,
}

impl Ewma {
    /// An exchange took this long.
    #[must_use]
    pub fn observe(self, took: Duration, now: u64) -> Self {
        let took = took.as_secs_f64();
        let weight = self.weight(now);
        let seconds = if took > self.seconds { took } else { self.seconds * weight + took * (1.0 - weight) };
        Self { seconds, at: self.at.max(now) }
    }

    /// The estimate as it is now.
    pub fn now(self, now: u64) -> f64 {
        self.seconds * self.weight(now)
    }

    /// How much of what was known still counts.
    fn weight(self, now: u64) -> f64 {
        let age = Duration::from_nanos(now.saturating_sub(self.at));
        (-age.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

pub(super) fn pick(
    weights: &Weights,
    skip: impl Fn(usize) -> bool,
    endpoints: &impl Endpoints,
    random: &mut impl FnMut() -> u64,
) -> Option<usize> {
    let (first, second) = two(weights, skip, random)?;
    let cost = |index: usize| {
        let (load, latency) = (f64::from(endpoints.load(index)), endpoints.latency(index));
        // A new endpoint gets one request to show itself, and no others until it has.
        let cost = if latency <= 0.0 && load > 0.0 { UNKNOWN + load } else { latency * (load + 1.0) };
        cost / f64::from(weights.of(index))
    };
    Some(if cost(second) < cost(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_by_and_by() {
        let fast = Ewma::default().observe(Duration::from_millis(10), 0);
        let peak = fast.observe(Duration::from_millis(500), SECOND);
        assert!((peak.now(SECOND) - 0.5).abs() < 1e-9);
        let mut calm = peak;
        for n in 2..60 {
            calm = calm.observe(Duration::from_millis(10), n * SECOND);
        }
        assert!(calm.seconds > 0.01 && calm.seconds < 0.02, "{calm:?}");
    }

    #[test]
    fn who_is_left_alone_is_thought_faster_after_a_while() {
        let slow = Ewma::default().observe(Duration::from_secs(2), 0);
        let after = |span: Duration| slow.now(span.as_nanos() as u64);
        assert!(after(DECAY) < 2.0 / 2.7 && after(DECAY) > 2.0 / 2.8);
        assert!(after(DECAY * 10) < 0.001);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_changes_nothing() {
        let ewma = Ewma::default().observe(Duration::from_millis(100), 5 * SECOND);
        assert_eq!(ewma.observe(Duration::from_millis(50), 4 * SECOND), ewma);
    }
}
