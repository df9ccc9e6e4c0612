//! How much further load an upstream is given by retries and hedges: a share of its requests, and a few in any case.
//!
//! The budget is one word for the process. Each request puts a share of a token in, the floor adds some with time, and a
//! further attempt takes a whole one. What is not used within `WINDOW` is lost, so that a quiet hour buys no storm. Requests
//! are counted by each worker for itself: what they put in is brought here once a second, and before the worker takes a token.
//! The machine is pure; the idea is that of Finagle's `RetryBudget`.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use std::time::{Duration, Instant};

use pylon_core::short::{FromScalar, Short};
use pylon_core::units::{Percent, Rate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long tokens last: each step of time takes its share of those that are left.
const WINDOW: Duration = Duration::from_secs(10);
/// Time is looked at in steps of so many milliseconds, so that no fraction of a slow floor is lost.
const STEP: u32 = 100;
/// What one attempt costs: shares are hundredths of a percent.
const TOKEN: u32 = 10_000;

/// How many further attempts an upstream gets beside its requests. Short: the share alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudgetSpec {
    /// How many retries and hedges there may be for each request, over the last seconds. A share; default `20%`.
    /// Example: `10%`.
    pub ratio: Percent,
    /// How many there may be in any case, so that services with little traffic are retried too. A rate; default `10/s`.
    /// Example: `60/min`.
    pub floor: Rate,
}

impl Default for RetryBudgetSpec {
    fn default() -> Self {
        Self { ratio: Percent::from_basis_points(2000), floor: Rate::per_second(10) }
    }
}

impl FromScalar for RetryBudgetSpec {
    const EXPECTING: &'static str = "a share such as `20%`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { ratio: Percent::parse(text)?, ..Self::default() })
    }
}

/// A [`RetryBudgetSpec`] as it stands in a document.
pub type ShortRetryBudget = Short<RetryBudgetSpec>;

/// The terms of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    ratio: u32,
    floor: Rate,
}

impl Terms {
    pub(crate) fn new(spec: &RetryBudgetSpec) -> Self {
        Self { ratio: u32::from(spec.ratio.basis_points()), floor: spec.floor }
    }

    /// What the floor adds in so many milliseconds.
    fn floor_in(&self, millis: u32) -> u32 {
        let period = self.floor.period().as_millis().max(1);
        let added = u128::from(self.floor.count()) * u128::from(millis) * u128::from(TOKEN) / period;
        u32::try_from(added).unwrap_or(u32::MAX)
    }
}

/// What is left at a time, in milliseconds since the budget began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tokens {
    left: u32,
    at: u32,
}

impl Tokens {
    /// At the beginning there is what the floor adds in a second.
    fn first(terms: &Terms) -> Self {
        Self { left: terms.floor_in(1000), at: 0 }
    }

    /// What is left at `now`.
    fn later(self, now: u32, terms: &Terms) -> Self {
        let passed = now.wrapping_sub(self.at);
        // A worker that read its clock before another one comes late: for it, no time has passed.
        if !(STEP..=u32::MAX / 2).contains(&passed) {
            return self;
        }
        let window = u32::try_from(WINDOW.as_millis()).unwrap_or(u32::MAX);
        let counted = passed.min(window);
        let lost = u64::from(self.left) * u64::from(counted) / u64::from(window);
        let kept = self.left.saturating_sub(u32::try_from(lost).unwrap_or(u32::MAX));
        Self { left: kept.saturating_add(terms.floor_in(counted)), at: now }
    }

    /// Puts in the share of so many requests.
    fn put(self, requests: u32, terms: &Terms) -> Self {
        Self { left: self.left.saturating_add(requests.saturating_mul(terms.ratio)), ..self }
    }

    /// Takes one out, if there is one.
    fn take(self) -> Option<Self> {
        Some(Self { left: self.left.checked_sub(TOKEN)?, ..self })
    }

    fn word(self) -> u64 {
        u64::from(self.at) << 32 | u64::from(self.left)
    }

    fn of(word: u64) -> Self {
        Self { left: (word & u64::from(u32::MAX)) as u32, at: (word >> 32) as u32 }
    }
}

/// The budget of one upstream, which all workers share. It outlives reloads.
#[derive(Debug)]
pub(crate) struct Budget {
    began: Instant,
    word: AtomicU64,
}

impl Budget {
    pub(crate) fn new(terms: &Terms, began: Instant) -> Self {
        Self { began, word: AtomicU64::new(Tokens::first(terms).word()) }
    }

    /// Puts in the share of so many requests.
    pub(crate) fn put(&self, requests: u32, now: Instant, terms: &Terms) {
        if requests > 0 {
            self.change(now, terms, |tokens| Some(tokens.put(requests, terms)));
        }
    }

    /// Puts in the share of so many requests and takes a token. Says whether there was one.
    pub(crate) fn take(&self, requests: u32, now: Instant, terms: &Terms) -> bool {
        self.put(requests, now, terms);
        self.change(now, terms, Tokens::take)
    }

    /// How many further attempts there may be now.
    pub(crate) fn left(&self, now: Instant, terms: &Terms) -> u32 {
        Tokens::of(self.word.load(Acquire)).later(self.millis(now), terms).left / TOKEN
    }

    fn change(&self, now: Instant, terms: &Terms, change: impl Fn(Tokens) -> Option<Tokens>) -> bool {
        let now = self.millis(now);
        let next = |word| change(Tokens::of(word).later(now, terms)).map(Tokens::word);
        self.word.fetch_update(AcqRel, Acquire, next).is_ok()
    }

    fn millis(&self, now: Instant) -> u32 {
        // Wraps after 49 days, which `Tokens::later` takes for what it is.
        now.saturating_duration_since(self.began).as_millis() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(ratio: u16, floor: u32) -> Terms {
        Terms { ratio: u32::from(ratio) * 100, floor: Rate::per_second(floor) }
    }

    #[test]
    fn a_budget_is_a_share_or_a_map() {
        let read = |text| serde_json::from_str::<ShortRetryBudget>(text).map(|short| short.0);
        assert_eq!(read(r#""20%""#).unwrap(), RetryBudgetSpec::default());
        let spec = read(r#"{"ratio": "5%", "floor": "60/min"}"#).unwrap();
        assert_eq!((spec.ratio.basis_points(), spec.floor.count()), (500, 60));
        assert!(read(r#"{"share": "5%"}"#).is_err() && read("20").is_err());
    }

    #[test]
    fn what_is_not_used_is_lost() {
        let terms = terms(20, 0);
        let tokens = Tokens::first(&terms).put(1000, &terms);
        assert_eq!(tokens.left / TOKEN, 200);
        let half = (1..=50).fold(tokens, |tokens, step| tokens.later(step * STEP, &terms));
        assert!((100..=125).contains(&(half.left / TOKEN)), "{}", half.left / TOKEN);
        assert_eq!(tokens.later(20_000, &terms).left, 0);
    }

    #[test]
    fn a_slow_floor_loses_no_fraction() {
        let terms = Terms { ratio: 0, floor: Rate::parse("60/min").unwrap() };
        let mut tokens = Tokens { left: 0, at: 0 };
        let mut taken = 0;
        for now in 1..=60_000 {
            tokens = tokens.later(now, &terms);
            if let Some(next) = tokens.take() {
                (tokens, taken) = (next, taken + 1);
            }
        }
        assert!((45..=60).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_is_behind_or_has_wrapped_gives_nothing_away() {
        let terms = terms(0, 10);
        let tokens = Tokens { left: 0, at: 5000 };
        assert_eq!(tokens.later(4000, &terms), tokens);
        let late = Tokens { left: 0, at: u32::MAX - 499 };
        assert_eq!(late.later(500, &terms).left / TOKEN, 10);
    }

    #[test]
    fn workers_together_take_no_more_than_there_is() {
        let terms = terms(0, 50);
        let began = tokio::time::Instant::now().into_std();
        let budget = Budget::new(&terms, began);
        let take = || (0..100).filter(|_| budget.take(0, began, &terms)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 50);
        assert_eq!(budget.left(began + Duration::from_millis(500), &terms), 25);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Failure 17: whatever fails, and however requests come, the further load keeps to the terms.
        #[test]
        fn further_attempts_keep_to_ratio_and_floor(
            seed in any::<u64>(), ratio in 0_u16..=100, floor in 0_u32..30, share in 1_u32..=100, rate in 1_u32..3000,
        ) {
            let (terms, mut rng) = (terms(ratio, floor), fastrand::Rng::with_seed(seed));
            let (mut tokens, mut requests, mut granted, mut wanted, mut waiting) = (Tokens::first(&terms), 0_u64, 0_u64, 0_u64, 0);
            for now in 0..30_000_u32 {
                let more = u32::from(rng.u32(..1000) < rate % 1000);
                for _ in 0..rate / 1000 + more {
                    (requests, waiting) = (requests + 1, waiting + 1);
                    // One that fails wants to be sent again, and again.
                    while rng.u32(..100) < share {
                        wanted += 1;
                        tokens = tokens.later(now, &terms).put(std::mem::take(&mut waiting), &terms);
                        let Some(next) = tokens.take() else { break };
                        (tokens, granted) = (next, granted + 1);
                    }
                }
            }
            let allowed = requests * u64::from(ratio) / 100 + u64::from(floor) * 31;
            prop_assert!(granted <= allowed, "{granted} of {wanted} for {requests} requests, where {allowed} are allowed");
            if share == 100 && rate >= 100 {
                // And they are granted where all of them are called for.
                prop_assert!(granted * 100 >= (allowed - u64::from(floor) * 2) * 85, "{granted} of {allowed}");
            }
        }
    }
}
