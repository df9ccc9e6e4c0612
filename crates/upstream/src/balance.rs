//! Chooses an endpoint. Pure: loads and randomness are arguments.
//!
//! Each worker has a balancer of its own, so that no word is shared: over many requests the shares are exact per worker
//! and therefore over all. Endpoints that an exchange has tried already come last.

/// How endpoints are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// In turn, by weight (smooth: an endpoint of weight 5 is not chosen five times in a row).
    #[default]
    RoundRobin,
    /// Of two drawn by lot, the one with fewer exchanges under way for its weight.
    LeastRequest,
    /// By lot, by weight.
    Random,
}

/// The state of one worker's choice.
#[derive(Debug)]
pub struct Balancer {
    method: Method,
    weights: Vec<u32>,
    /// Whether all weights are equal, which makes a turn cheap.
    equal: bool,
    next: usize,
    /// For the smooth weighted turn: who is owed how much.
    owed: Vec<i64>,
}

impl Balancer {
    /// A balancer over endpoints of these weights (0 counts as 1). `offset` lets each worker begin elsewhere.
    pub fn new(method: Method, weights: impl IntoIterator<Item = u32>, offset: usize) -> Self {
        let weights: Vec<u32> = weights.into_iter().map(|weight| weight.max(1)).collect();
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let next = offset.checked_rem(weights.len()).unwrap_or(0);
        let owed = if equal { Vec::new() } else { vec![0; weights.len()] };
        Self { method, weights, equal, next, owed }
    }

    /// How many endpoints there are to choose from.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The index of the endpoint to use; none where there are none that are not `barred`. Those that were `tried` come last.
    /// These and `load` are asked by index, and `random` draws a number.
    pub fn pick(
        &mut self,
        barred: impl Fn(usize) -> bool,
        tried: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
        mut random: impl FnMut() -> u64,
    ) -> Option<usize> {
        match self.weights.len() {
            0 => None,
            1 => (!barred(0)).then_some(0),
            len => {
                let fresh = (0..len).any(|index| !barred(index) && !tried(index));
                if !fresh && (0..len).all(&barred) {
                    return None;
                }
                let skip = |index: usize| barred(index) || fresh && tried(index);
                match self.method {
                    Method::RoundRobin if self.equal => Some(self.turn(skip)),
                    Method::RoundRobin => self.smooth(skip),
                    Method::LeastRequest => self.less_loaded(skip, load, &mut random),
                    Method::Random => self.lot(skip, random()),
                }
            }
        }
    }

    fn turn(&mut self, skip: impl Fn(usize) -> bool) -> usize {
        let len = self.weights.len();
        let mut index = self.next;
        for _ in 0..len {
            if !skip(index) {
                break;
            }
            index = (index + 1) % len;
        }
        self.next = (index + 1) % len;
        index
    }

    /// Each round everyone is owed their weight; who is owed most is chosen and pays the whole round.
    fn smooth(&mut self, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        let mut round = 0_i64;
        for (index, (owed, &weight)) in self.owed.iter_mut().zip(&self.weights).enumerate() {
            if skip(index) {
                continue;
            }
            *owed += i64::from(weight);
            round += i64::from(weight);
            if best.is_none_or(|(_, most)| *owed > most) {
                best = Some((index, *owed));
            }
        }
        let (index, _) = best?;
        if let Some(owed) = self.owed.get_mut(index) {
            *owed -= round;
        }
        Some(index)
    }

    fn less_loaded(
        &self,
        skip: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u32,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        let first = self.lot(&skip, random())?;
        let second = self.lot(|index| index == first || skip(index), random()).unwrap_or(first);
        // (load + 1) / weight, compared without a division: one more exchange is about to begin.
        let cost = |index: usize, other: usize| {
            let other_weight = self.weights.get(other).copied().unwrap_or(1);
            (u64::from(load(index)) + 1) * u64::from(other_weight)
        };
        Some(if cost(second, first) < cost(first, second) { second } else { first })
    }

    /// Draws by weight among those not skipped.
    fn lot(&self, skip: impl Fn(usize) -> bool, random: u64) -> Option<usize> {
        let free = |index: &usize| !skip(*index);
        let total: u64 =
            self.weights.iter().enumerate().filter(|(index, _)| free(index)).map(|(_, &w)| u64::from(w)).sum();
        let mut point = random.checked_rem(total)?;
        for (index, &weight) in self.weights.iter().enumerate().filter(|(index, _)| free(index)) {
            match point.checked_sub(u64::from(weight)) {
                Some(rest) => point = rest,
                None => return Some(index),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lots(seed: u64) -> impl FnMut() -> u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        move || rng.u64(..)
    }

    #[test]
    fn a_heavy_endpoint_is_not_chosen_in_a_burst() {
        let mut balancer = Balancer::new(Method::RoundRobin, [5, 1, 1], 0);
        let order: Vec<_> = (0..7).filter_map(|_| balancer.pick(|_| false, |_| false, |_| 0, || 0)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_less_loaded_of_two_is_chosen_in_proportion_to_its_weight() {
        let mut balancer = Balancer::new(Method::LeastRequest, [1, 1], 0);
        let mut random = lots(1);
        assert!((0..50).all(|_| balancer.pick(|_| false, |_| false, |index| [9, 3][index], &mut random) == Some(1)));
        let mut weighted = Balancer::new(Method::LeastRequest, [4, 1], 0);
        assert!((0..50).all(|_| weighted.pick(|_| false, |_| false, |index| [9, 3][index], &mut random) == Some(0)));
    }

    proptest! {
        #[test]
        fn weights_are_exact_over_a_cycle(weights in prop::collection::vec(1_u32..20, 1..12), offset in 0_usize..50) {
            let mut balancer = Balancer::new(Method::RoundRobin, weights.clone(), offset);
            let cycle: u32 = weights.iter().sum();
            let mut chosen = vec![0_u32; weights.len()];
            for _ in 0..cycle * 3 {
                chosen[balancer.pick(|_| false, |_| false, |_| 0, || 0).unwrap()] += 1;
            }
            let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
            prop_assert_eq!(chosen, expected);
        }

        #[test]
        fn what_was_tried_comes_last(weights in prop::collection::vec(1_u32..9, 2..9), kind in 0_u8..3, seed in any::<u64>()) {
            let method = [Method::RoundRobin, Method::LeastRequest, Method::Random][usize::from(kind)];
            let mut balancer = Balancer::new(method, weights.clone(), 0);
            let mut random = lots(seed);
            let mut tried = Vec::new();
            for _ in 0..weights.len() {
                let index = balancer.pick(|_| false, |index| tried.contains(&index), |_| 0, &mut random).unwrap();
                prop_assert!(!tried.contains(&index));
                tried.push(index);
            }
            prop_assert!(balancer.pick(|_| false, |index| tried.contains(&index), |_| 0, &mut random).is_some());
        }

        #[test]
        fn lots_follow_the_weights(weights in prop::collection::vec(1_u32..10, 2..5), seed in any::<u64>()) {
            let mut balancer = Balancer::new(Method::Random, weights.clone(), 0);
            let mut random = lots(seed);
            let mut chosen = vec![0_f64; weights.len()];
            for _ in 0..20_000 {
                chosen[balancer.pick(|_| false, |_| false, |_| 0, &mut random).unwrap()] += 1.0;
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in chosen.iter().zip(&weights) {
                prop_assert!((count / 20_000.0 - f64::from(*weight) / f64::from(total)).abs() < 0.03);
            }
        }
    }
}
