//! What bars come to: which endpoints of a set are not to be chosen, and which of its levels get which part of the requests.

use std::sync::Arc;

use pylon_core::units::Percent;

use crate::balance::tiers::{self, Shares};
use crate::endpoint::Level;
use crate::standing::{Bars, barred, is_panic};

/// What bars come to.
#[derive(Debug)]
pub(crate) struct Verdicts {
    /// Which endpoints are not to be chosen, in the order of the set.
    pub(crate) barred: Vec<bool>,
    /// Which part of each level may be chosen, in percent of its weight, where nothing is doubted.
    pub(crate) there: Vec<u32>,
    pub(crate) shares: Shares,
    /// Whether bars of some level are doubted.
    pub(crate) panics: bool,
}

impl Verdicts {
    /// Of endpoints with these weights. Where the levels together cannot carry everything, those of which less than `panic` is left
    /// doubt what checks and comparisons say; a level that others can stand in for has no reason to.
    pub(crate) fn new(levels: &[Arc<Level>], weight: impl Fn(usize) -> u32, bars: &[Bars], panic: Percent) -> Self {
        let part = |barred: &[bool]| levels.iter().map(|level| available(level, &weight, barred)).collect::<Vec<_>>();
        let mut all: Vec<bool> = bars.iter().map(|bars| bars.any_but(Bars::NONE)).collect();
        let there = part(&all);
        let mut shares = tiers::shares(&there);
        let mut panics = false;
        if !shares.enough {
            for level in levels {
                let own: Vec<Bars> = level.members.iter().filter_map(|member| bars.get(*member).copied()).collect();
                panics |= is_panic(&own, panic);
                for (member, barred) in level.members.iter().zip(barred(&own, panic)) {
                    all.get_mut(*member).into_iter().for_each(|place| *place = barred);
                }
            }
            shares = tiers::shares(&part(&all));
        }
        Self { barred: all, there, shares, panics }
    }
}

/// The part of a level that may be chosen, in percent of its weight.
fn available(level: &Level, weight: &impl Fn(usize) -> u32, barred: &[bool]) -> u32 {
    let (mut all, mut free) = (0_u64, 0_u64);
    for member in &level.members {
        let weight = u64::from(weight(*member).max(1));
        all = all.saturating_add(weight);
        free = free.saturating_add(if barred.get(*member) == Some(&false) { weight } else { 0 });
    }
    let part = free.saturating_mul(100).checked_div(all).unwrap_or(0) as u32;
    // One of very many is not nobody.
    if free > 0 { part.max(1) } else { 0 }
}
