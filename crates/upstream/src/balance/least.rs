//! Of two endpoints drawn by lot, the one with fewer exchanges under way for its weight (M. Mitzenmacher, "The power of two
//! choices in randomized load balancing", 1996).

use super::lot::two;
use super::{Endpoints, Weights};

pub(super) fn pick(
    weights: &Weights,
    skip: impl Fn(usize) -> bool,
    endpoints: &impl Endpoints,
    random: &mut impl FnMut() -> u64,
) -> Option<usize> {
    let (first, second) = two(weights, skip, random)?;
    // (load + 1) / weight, compared without a division: one more exchange is about to begin.
    let cost = |index: usize, other: usize| (u64::from(endpoints.load(index)) + 1) * u64::from(weights.of(other));
    Some(if cost(second, first) < cost(first, second) { second } else { first })
}
