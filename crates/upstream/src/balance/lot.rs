//! Draws lots, by weight.

use super::Weights;

/// How often a lot is drawn again that fell on an endpoint which is skipped, before all are counted.
const DRAWS: usize = 3;

/// Draws by weight among those that are not skipped.
pub(super) fn lot(weights: &Weights, skip: impl Fn(usize) -> bool, random: &mut impl FnMut() -> u64) -> Option<usize> {
    if weights.equal {
        // Drawn again where it is skipped, which is as fair as counting, and as cheap for many endpoints as for few.
        for _ in 0..DRAWS {
            let index = usize::try_from(random().checked_rem(weights.all.len() as u64)?).ok()?;
            if !skip(index) {
                return Some(index);
            }
        }
    }
    let free = || weights.all.iter().enumerate().filter(|(index, _)| !skip(*index));
    let total: u64 = free().map(|(_, &weight)| u64::from(weight)).sum();
    let mut point = random().checked_rem(total)?;
    for (index, &weight) in free() {
        match point.checked_sub(u64::from(weight)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}

/// Two different ones, where there are two that are not skipped; else the same twice.
pub(super) fn two(
    weights: &Weights,
    skip: impl Fn(usize) -> bool,
    random: &mut impl FnMut() -> u64,
) -> Option<(usize, usize)> {
    let first = lot(weights, &skip, random)?;
    let second = lot(weights, |index| index == first || skip(index), random).unwrap_or(first);
    Some((first, second))
}
