//! What all methods have in common, and the exact shares of each.

use proptest::prelude::*;

use super::*;

/// Endpoints by closures.
struct Seen<B, T, L, S>(B, T, L, S);

impl<B, T, L, S> Endpoints for Seen<B, T, L, S>
where
    B: Fn(usize) -> bool,
    T: Fn(usize) -> bool,
    L: Fn(usize) -> u32,
    S: Fn(usize) -> f64,
{
    fn is_barred(&self, index: usize) -> bool {
        (self.0)(index)
    }

    fn was_tried(&self, index: usize) -> bool {
        (self.1)(index)
    }

    fn load(&self, index: usize) -> u32 {
        (self.2)(index)
    }

    fn latency(&self, index: usize) -> f64 {
        (self.3)(index)
    }
}

fn idle() -> impl Endpoints {
    Seen(|_| false, |_| false, |_| 0, |_| 0.0)
}

fn loaded(load: impl Fn(usize) -> u32) -> impl Endpoints {
    Seen(|_| false, |_| false, load, |_| 0.0)
}

fn lots(seed: u64) -> impl FnMut() -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    move || rng.u64(..)
}

fn balancer(method: Method, weights: &[u32]) -> Balancer {
    let names: Vec<_> = (0..weights.len()).map(|n| format!("10.0.0.{n}:80")).collect();
    let table = Table::new(method, names.iter().map(String::as_str).zip(weights.iter().copied()));
    Balancer::new(method, weights.iter().copied(), 0).with_table(table.map(Arc::new))
}

#[test]
fn each_method_has_one_name() {
    for (name, method) in Method::ALL {
        assert_eq!(serde_json::to_value(method).unwrap(), name);
        assert_eq!(method.as_str(), name);
    }
}

#[test]
fn a_heavy_endpoint_is_not_chosen_in_a_burst() {
    let mut balancer = balancer(Method::RoundRobin, &[5, 1, 1]);
    let order: Vec<_> = (0..7).filter_map(|_| balancer.pick(&idle(), 0, || 0)).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn the_less_loaded_of_two_is_chosen_in_proportion_to_its_weight() {
    let (busy, mut random) = (loaded(|index| [9, 3][index]), lots(1));
    let mut even = balancer(Method::LeastRequest, &[1, 1]);
    assert!((0..50).all(|_| even.pick(&busy, 0, &mut random) == Some(1)));
    let mut weighted = balancer(Method::LeastRequest, &[4, 1]);
    assert!((0..50).all(|_| weighted.pick(&busy, 0, &mut random) == Some(0)));
}

#[test]
fn the_one_that_is_done_sooner_is_chosen_by_its_latency_and_what_is_under_way() {
    let mut random = lots(2);
    let mut choose = |loads: [u32; 2], latencies: [f64; 2], weights: [u32; 2]| {
        let seen = Seen(|_| false, |_| false, |n: usize| loads[n], |n: usize| latencies[n]);
        let mut balancer = balancer(Method::Ewma, &weights);
        let first = balancer.pick(&seen, 0, &mut random).unwrap();
        assert!((0..20).all(|_| balancer.pick(&seen, 0, &mut random) == Some(first)));
        first
    };
    assert_eq!(choose([0, 0], [0.010, 0.011], [1, 1]), 0);
    assert_eq!(choose([1, 0], [0.010, 0.011], [1, 1]), 1, "two at 10 ms each are slower than one at 11 ms");
    assert_eq!(choose([1, 0], [0.010, 0.011], [2, 1]), 0, "unless it can do two at once");
    assert_eq!(choose([0, 0], [0.010, 0.0], [1, 1]), 1, "who is new is asked once");
    assert_eq!(choose([0, 1], [0.010, 0.0], [1, 1]), 0, "and not again before it has answered");
}

proptest! {
    #[test]
    fn weights_are_exact_over_a_cycle(weights in prop::collection::vec(1_u32..20, 1..12), offset in 0_usize..50) {
        let mut balancer = Balancer::new(Method::RoundRobin, weights.clone(), offset);
        let cycle: u32 = weights.iter().sum();
        let mut chosen = vec![0_u32; weights.len()];
        for _ in 0..cycle * 3 {
            chosen[balancer.pick(&idle(), 0, || 0).unwrap()] += 1;
        }
        let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
        prop_assert_eq!(chosen, expected);
    }

    #[test]
    fn what_was_tried_comes_last_and_what_is_barred_never(
        weights in prop::collection::vec(1_u32..9, 2..9),
        equal in any::<bool>(),
        kind in 0..Method::ALL.len(),
        barred in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let weights = if equal { vec![1; weights.len()] } else { weights };
        let mut balancer = balancer(Method::ALL[kind].1, &weights);
        let (mut random, barred) = (lots(seed), barred.index(weights.len()));
        let mut tried: Vec<usize> = Vec::new();
        for _ in 1..weights.len() {
            let seen = Seen(|index| index == barred, |index| tried.contains(&index), |_| 0, |_| 0.0);
            let index = balancer.pick(&seen, seed, &mut random).unwrap();
            prop_assert!(index != barred && !tried.contains(&index));
            tried.push(index);
        }
        let seen = Seen(|index| index == barred, |index| tried.contains(&index), |_| 0, |_| 0.0);
        prop_assert!(balancer.pick(&seen, seed, &mut random).is_some_and(|index| index != barred));
        let nobody = Seen(|_| true, |_| false, |_| 0, |_| 0.0);
        prop_assert_eq!(balancer.pick(&nobody, seed, &mut random), None);
    }

    #[test]
    fn lots_follow_the_weights(weights in prop::collection::vec(1_u32..10, 2..5), seed in any::<u64>()) {
        let mut balancer = balancer(Method::Random, &weights);
        let mut random = lots(seed);
        let mut chosen = vec![0_f64; weights.len()];
        for _ in 0..20_000 {
            chosen[balancer.pick(&idle(), 0, &mut random).unwrap()] += 1.0;
        }
        let total: u32 = weights.iter().sum();
        for (count, weight) in chosen.iter().zip(&weights) {
            prop_assert!((count / 20_000.0 - f64::from(*weight) / f64::from(total)).abs() < 0.03);
        }
    }

    #[test]
    fn the_same_key_meets_the_same_endpoint_on_every_worker(key in any::<u64>(), maglev in any::<bool>(), seed in any::<u64>()) {
        let method = if maglev { Method::Maglev } else { Method::RingHash };
        let (mut one, mut other) = (balancer(method, &[1, 2, 3]), balancer(method, &[1, 2, 3]));
        let mut random = lots(seed);
        let first = one.pick(&idle(), key, &mut random);
        prop_assert!((0..5).all(|_| other.pick(&idle(), key, &mut random) == first));
    }
}
