//! Which tiers of endpoints get which part of the requests: the first one all of them, for as long as it can carry them.
//!
//! Endpoints are sorted into tiers by priority and, within one priority, by how far they are from the gateway. A tier is thought
//! to carry all requests while at least 1/1.4 (71 %) of its weight is available, and beyond that in proportion; what it cannot
//! carry goes to the next. This is how Envoy fails over between priorities, overprovisioning factor included.
//!
//! What a tier loses counts at once. What it wins counts when it has lasted for a while ([`Trust`]), so that a tier which
//! comes and goes does not drag the requests to and fro.

use std::time::{Duration, Instant};

/// How much more than its usual share the available part of a tier can carry, in percent.
pub const OVERPROVISIONED: u32 = 140;

/// The part of the requests for each tier, in percent, by the part of each tier that is available, in percent. The parts add
/// up to 100, or are all 0 where nothing is available. `enough` says whether the tiers can carry everything.
pub fn shares(available: &[u32]) -> Shares {
    let mut left = 100_u32;
    let mut parts: Vec<u32> = Vec::with_capacity(available.len());
    for part in available {
        let carried = (part.min(&100) * OVERPROVISIONED / 100).min(left);
        parts.push(carried);
        left -= carried;
    }
    let enough = left == 0;
    let carried = 100 - left;
    if !enough && carried > 0 {
        // Nobody is left to take the rest: those who are there share it in proportion.
        let mut rest = 100;
        for part in &mut parts {
            *part = *part * 100 / carried;
            rest -= *part;
        }
        if let Some(first) = parts.iter_mut().find(|part| **part > 0) {
            *first += rest;
        }
    }
    Shares { parts, enough }
}

/// The part of the requests for each tier.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    /// In percent, by tier.
    pub parts: Vec<u32>,
    /// Whether the tiers can carry everything.
    pub enough: bool,
}

impl Shares {
    /// The tier for `lot`, a number drawn evenly, or made of the key of a request.
    pub fn tier(&self, lot: u64) -> usize {
        if let Some(only) = self.only() {
            return only;
        }
        let mut point = (lot >> 32) as u32 % 100;
        for (index, part) in self.parts.iter().enumerate() {
            match point.checked_sub(*part) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        0
    }

    /// The tier that gets everything, if one does.
    pub fn only(&self) -> Option<usize> {
        self.parts.iter().position(|part| *part == 100)
    }
}

/// What is held of a tier: it loses trust at once, and wins it back by and by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trust {
    /// The available part that counts, in percent.
    counted: u32,
    /// Since when it has been better than that, and by how much at the least.
    better: Option<(Instant, u32)>,
}

impl Trust {
    /// A tier that is new is trusted.
    pub fn new(available: u32) -> Self {
        Self { counted: available, better: None }
    }

    /// Takes in what is available now. What is better than before must have lasted for `hold`.
    pub fn update(&mut self, available: u32, now: Instant, hold: Duration) {
        if available <= self.counted {
            *self = Self::new(available);
            return;
        }
        let (since, least) = self.better.unwrap_or((now, available));
        let least = least.min(available);
        self.better = Some((since, least));
        if now.saturating_duration_since(since) >= hold {
            *self = Self { counted: least, better: (available > least).then_some((now, available)) };
        }
    }

    /// The available part that counts, in percent.
    pub fn counted(self) -> u32 {
        self.counted
    }

    /// When a better state will count, if one is waited for.
    pub fn due(self, hold: Duration) -> Option<Instant> {
        self.better.map(|(since, _)| since + hold)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(available: &[u32]) -> Vec<u32> {
        shares(available).parts
    }

    #[test]
    fn the_next_tier_takes_what_the_first_cannot_carry() {
        assert_eq!(parts(&[100, 100]), [100, 0]);
        assert_eq!(parts(&[72, 100]), [100, 0], "there is more than is needed");
        assert_eq!(parts(&[50, 100]), [70, 30]);
        assert_eq!(parts(&[0, 100]), [0, 100]);
        assert_eq!(parts(&[25, 25, 100]), [35, 35, 30]);
        assert_eq!(parts(&[0, 0]), [0, 0]);
        assert_eq!((shares(&[25, 25]).parts, shares(&[25, 25]).enough), (vec![50, 50], false));
    }

    #[test]
    fn a_tier_that_comes_back_waits_until_it_has_stayed_and_one_that_goes_does_not() {
        let (start, hold) = (tokio::time::Instant::now().into_std(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut trust = Trust::new(100);
        trust.update(0, at(1), hold);
        assert_eq!(trust.counted(), 0);
        trust.update(100, at(2), hold);
        trust.update(100, at(11), hold);
        assert_eq!((trust.counted(), trust.due(hold)), (0, Some(at(12))));
        // It fell again in between: the wait begins anew.
        trust.update(0, at(11), hold);
        trust.update(100, at(12), hold);
        trust.update(100, at(21), hold);
        assert_eq!(trust.counted(), 0);
        trust.update(100, at(22), hold);
        assert_eq!((trust.counted(), trust.due(hold)), (100, None));
    }

    proptest! {
        #[test]
        fn the_parts_are_whole_and_lots_follow_them(available in prop::collection::vec(0_u32..=100, 1..6), seed in any::<u64>()) {
            let shares = shares(&available);
            let some = available.iter().any(|part| *part > 0);
            prop_assert_eq!(shares.parts.iter().sum::<u32>(), if some { 100 } else { 0 });
            prop_assert!(shares.parts.iter().zip(&available).all(|(part, there)| *part == 0 || *there > 0));
            if some {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut met = vec![0_f64; available.len()];
                for _ in 0..10_000 {
                    met[shares.tier(rng.u64(..))] += 0.01;
                }
                for (met, part) in met.iter().zip(&shares.parts) {
                    prop_assert!((met - f64::from(*part)).abs() < 3.0, "{:?} {:?}", met, shares);
                }
            }
        }

        /// Over any history of a tier that comes and goes, it is never counted for more than it was at any time within the hold.
        #[test]
        fn nothing_counts_that_has_not_lasted(history in prop::collection::vec((0_u64..8, 0_u32..=100), 1..60)) {
            let (start, hold) = (tokio::time::Instant::now().into_std(), Duration::from_secs(10));
            let (mut now, mut trust) = (0, Trust::new(100));
            let mut seen: Vec<(u64, u32)> = vec![(0, 100)];
            for (pause, available) in history {
                now += pause;
                trust.update(available, start + Duration::from_secs(now), hold);
                // The state that held just before the hold began counts as well.
                let began = seen.iter().rposition(|(at, _)| at + 10 <= now).unwrap_or(0);
                let least = seen[began..].iter().map(|(_, part)| *part).chain([available]).min().unwrap();
                prop_assert!(trust.counted() <= least);
                seen.push((now, available));
            }
        }
    }
}
