//! How slowly a client may send: an allowance of waiting, spent while the gateway waits and earned back by what arrives.
//!
//! It begins, and ends, at the longest pause. A client that keeps the rate earns as much as it spends and never runs
//! out, however small its pieces and however long it takes; one that is slower is given that much time in all. Time in which
//! the gateway itself has no use for more bytes is never spent.

use std::num::NonZeroU64;
use std::time::Duration;

/// What a client is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The longest pause between two pieces.
    pub pause: Duration,
    /// The least that has to come on the whole, in bytes for each second; none where any pace will do.
    pub rate: Option<NonZeroU64>,
}

/// What is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pace: Pace,
    left: Duration,
}

impl Allowance {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, left: pace.pause }
    }

    /// How long may be waited now.
    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// `bytes` arrived after a wait of `waited`.
    pub(crate) fn arrived(&mut self, waited: Duration, bytes: usize) {
        self.left = match self.pace.rate {
            None => self.pace.pause,
            Some(rate) => {
                let nanos = u128::from(bytes as u64).saturating_mul(1_000_000_000) / u128::from(rate.get());
                let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
                self.left.saturating_sub(waited).saturating_add(earned).min(self.pace.pause)
            }
        };
    }

    /// Whether a wait of `waited` that was too long was so as a single pause, rather than by the rate.
    pub(crate) fn is_pause(&self, waited: Duration) -> bool {
        waited >= self.pace.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pace(rate: u64) -> Pace {
        Pace { pause: Duration::from_secs(30), rate: NonZeroU64::new(rate) }
    }

    /// How long a client lasts that sends `bytes` every `every`; none if it lasts for a day.
    fn lasts(pace: Pace, every: Duration, bytes: usize) -> Option<Duration> {
        let mut allowance = Allowance::new(pace);
        let mut total = Duration::ZERO;
        while total < Duration::from_secs(24 * 3600) {
            if every > allowance.left() {
                return Some(total + allowance.left());
            }
            allowance.arrived(every, bytes);
            total += every;
        }
        None
    }

    #[test]
    fn a_steady_upload_lasts_and_a_drip_does_not() {
        let second = Duration::from_secs(1);
        assert_eq!(lasts(pace(240), second, 1000), None);
        assert_eq!(lasts(pace(240), second, 240), None);
        assert_eq!(lasts(pace(240), 20 * second, 4800), None);
        let drip = lasts(pace(240), second, 1).unwrap();
        assert!((30 * second..32 * second).contains(&drip), "{drip:?}");
        assert!(lasts(pace(240), 20 * second, 100).unwrap() < 40 * second);
        assert_eq!(lasts(pace(240), 31 * second, 1 << 30), Some(30 * second));
        assert_eq!(lasts(pace(0), 29 * second, 1), None, "without a rate pauses alone count");
    }

    #[test]
    fn what_came_fast_buys_no_more_than_one_pause() {
        let mut allowance = Allowance::new(pace(240));
        allowance.arrived(Duration::ZERO, 1 << 40);
        assert_eq!(allowance.left(), Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn whoever_keeps_the_rate_in_pieces_within_the_pause_is_never_cut(rate in 1_u64..10_000, millis in 1_u64..30_000, more in 0_u64..100) {
            let bytes = (rate * millis).div_ceil(1000) + more;
            let mut allowance = Allowance::new(pace(rate));
            for _ in 0..1000 {
                prop_assert!(Duration::from_millis(millis) <= allowance.left());
                allowance.arrived(Duration::from_millis(millis), bytes as usize);
            }
        }
    }
}
