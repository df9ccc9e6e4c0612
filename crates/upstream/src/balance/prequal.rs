//! Chooses by probes that were sent before: of the endpoints that have little under way the fastest, and where all have much
//! the one that has least (B. Wydrowski et al., "Load is not what you should balance: Introducing Prequal", NSDI 2024).
//!
//! A probe asks an endpoint how many requests it has in flight (RIF) and how long they take. Answers are kept in a small pool
//! while they are young and have not been used too often. An endpoint is *hot* where its RIF is above a quantile of those that were
//! reported lately, else *cold*. This is the asynchronous form of the paper, with its figures. Time is nanoseconds from any fixed
//! moment on.

use std::collections::VecDeque;
use std::time::Duration;

/// How many answers are kept (the paper's 16).
pub const POOL: usize = 16;
/// For how long an answer counts (the paper's 1 s).
pub const AGE: Duration = Duration::from_secs(1);
/// How many probes are sent for each request (the paper's 3).
pub const PROBES: u32 = 3;
/// How often an answer is used at most.
const USES: u32 = 4;
/// How many answers are known of whose RIF the quantile is taken.
const HISTORY: usize = 64;
/// Above which quantile of the RIF an endpoint is hot: 0.84 (2 to the power of -1/4), the paper's.
const HOT: f64 = 0.84;
/// With fewer answers than this a lot is drawn.
const LEAST: usize = 2;

/// What an endpoint answered to a probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Whose answer it is.
    pub index: usize,
    /// Requests in flight.
    pub rif: u32,
    /// How long they take, in seconds.
    pub latency: f64,
    /// When it came.
    pub at: u64,
}

/// The answers of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    /// The oldest first, each with how often it was used.
    held: VecDeque<(Probe, u32)>,
    /// The RIF of the last answers, and the place of the next.
    lately: Vec<u32>,
    next: usize,
    /// Sorted, for the quantile.
    sorted: Vec<u32>,
    /// Of what is taken out with each request in turn: the oldest, or the worst.
    oldest: bool,
}

impl Pool {
    /// With room for all that it will ever hold.
    pub fn new() -> Self {
        let (lately, sorted) = (Vec::with_capacity(HISTORY), Vec::with_capacity(HISTORY));
        Self { held: VecDeque::with_capacity(POOL + 1), lately, sorted, ..Self::default() }
    }

    /// An answer came.
    pub fn learn(&mut self, probe: Probe) {
        if self.lately.len() < HISTORY {
            self.lately.push(probe.rif);
        } else if let Some(place) = self.lately.get_mut(self.next) {
            *place = probe.rif;
        }
        self.next = (self.next + 1) % HISTORY;
        self.sorted.clear();
        self.sorted.extend_from_slice(&self.lately);
        self.sorted.sort_unstable();
        // One answer for each endpoint: the newest.
        self.held.retain(|(held, _)| held.index != probe.index);
        if self.held.len() >= POOL {
            self.held.pop_front();
        }
        self.held.push_back((probe, 0));
    }

    /// Lets go of what is too old.
    pub fn age(&mut self, now: u64) {
        let young = |at: u64| Duration::from_nanos(now.saturating_sub(at)) < AGE;
        while self.held.front().is_some_and(|(probe, _)| !young(probe.at)) {
            self.held.pop_front();
        }
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The best by the hot-cold rule among those that are not skipped; none where too little is known.
    pub(super) fn pick(&mut self, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let free = || self.held.iter().enumerate().filter(|(_, (probe, _))| !skip(probe.index));
        if free().count() < LEAST {
            return None;
        }
        let hot = self.hot();
        let cold = free().filter(|(_, (probe, _))| probe.rif <= hot);
        let fastest = cold.min_by(|(_, (one, _)), (_, (other, _))| one.latency.total_cmp(&other.latency));
        let (place, _) = fastest.or_else(|| free().min_by_key(|(_, (probe, _))| probe.rif))?;
        let (probe, uses) = self.held.get_mut(place)?;
        let index = probe.index;
        // What is sent there now is not in its answer yet.
        probe.rif = probe.rif.saturating_add(1);
        *uses += 1;
        if *uses >= USES {
            self.held.remove(place);
        }
        self.tidy();
        Some(index)
    }

    /// Takes out the oldest or the worst in turn, so that what is left over does not become what is chosen from.
    fn tidy(&mut self) {
        if self.held.len() < POOL {
            return;
        }
        self.oldest = !self.oldest;
        if self.oldest {
            self.held.pop_front();
            return;
        }
        let hot = self.hot();
        let badness = |probe: &Probe| if probe.rif > hot { (probe.rif, f64::MAX) } else { (0, probe.latency) };
        let worst = self.held.iter().enumerate().max_by(|(_, (one, _)), (_, (other, _))| {
            let ((one, slow), (other, slower)) = (badness(one), badness(other));
            one.cmp(&other).then(slow.total_cmp(&slower))
        });
        if let Some((place, _)) = worst {
            self.held.remove(place);
        }
    }

    /// The RIF above which an endpoint is hot.
    fn hot(&self) -> u32 {
        let rank = (self.sorted.len() as f64 * HOT) as usize;
        self.sorted.get(rank.min(self.sorted.len().saturating_sub(1))).copied().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(index: usize, rif: u32, latency: f64) -> Probe {
        Probe { index, rif, latency, at: 0 }
    }

    fn pool(probes: &[Probe]) -> Pool {
        let mut pool = Pool::new();
        for probe in probes {
            pool.learn(*probe);
        }
        pool
    }

    #[test]
    fn of_the_cold_the_fastest_is_chosen_however_fast_the_hot_one_is() {
        let probes =
            [probe(0, 3, 0.020), probe(1, 2, 0.010), probe(2, 9, 0.001), probe(3, 3, 0.030), probe(4, 3, 0.03)];
        // Of five, one is hot: the quantile lies at the fourth.
        let mut five = pool(&[probes.as_slice(), &[probe(5, 3, 0.04), probe(6, 3, 0.05)]].concat());
        assert_eq!(five.pick(|_| false), Some(1));
        assert_eq!(five.pick(|index| index == 1), Some(0));
        assert_eq!(five.pick(|index| index != 2 && index != 3), Some(3));
    }

    #[test]
    fn where_all_are_hot_the_one_with_least_under_way_is_chosen() {
        let mut pool = pool(&(0..60).map(|n| probe(100 + n, 1, 0.01)).collect::<Vec<_>>());
        for one in [probe(0, 9, 0.001), probe(1, 7, 0.1), probe(2, 8, 0.001)] {
            pool.learn(one);
        }
        assert_eq!(pool.pick(|index| index >= 100), Some(1));
    }

    #[test]
    fn answers_go_when_they_are_old_or_used_up_and_with_too_few_nothing_is_known() {
        let mut aged = pool(&[probe(0, 1, 0.1), Probe { at: 500_000_000, ..probe(1, 1, 0.1) }]);
        aged.age(1_200_000_000);
        assert_eq!((aged.len(), aged.pick(|_| false)), (1, None));
        let mut used = pool(&[probe(0, 0, 0.001), probe(1, 50, 0.1), probe(2, 60, 0.1)]);
        let met: Vec<_> = (0..5).map_while(|_| used.pick(|_| false)).collect();
        assert_eq!(met[..4], [0; 4]);
        assert!(used.len() == 2 && met.get(4).is_none_or(|index| *index != 0), "{met:?}");
    }

    proptest! {
        #[test]
        fn the_pool_stays_small_and_never_chooses_whom_it_shall_not(
            steps in prop::collection::vec((0_usize..40, 0_u32..30, 0.0_f64..1.0, 0_u64..400_000_000), 1..200),
            barred in 0_usize..40,
        ) {
            let (mut pool, mut now) = (Pool::new(), 0);
            for (index, rif, latency, pause) in steps {
                now += pause;
                pool.age(now);
                pool.learn(Probe { index, rif, latency, at: now });
                prop_assert!(pool.len() <= POOL);
                prop_assert!(pool.pick(|index| index == barred) != Some(barred));
            }
        }
    }
}
