//! A ring on which endpoints stand at many points, and keys belong to the next one (D. Karger et al., "Consistent hashing and
//! random trees", 1997; the many points are those of ketama).
//!
//! An endpoint stands at the same points whoever else is there, so that one which goes moves its own keys and no others.

use super::hash::mix;
use super::table::Member;

/// At how many points an endpoint stands that weighs least.
const POINTS: u64 = 256;
/// The most points of a ring: 2 MiB of them. With more, all endpoints stand at fewer.
const MOST: u64 = 131_072;

#[derive(Debug)]
pub(super) struct Ring {
    /// In their order.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    pub(super) fn new(members: &[Member]) -> Self {
        let unit = members.iter().fold(0, |unit, member| divisor(unit, member.weight)).max(1);
        let units: u64 = members.iter().map(|member| u64::from(member.weight / unit)).sum();
        let points = POINTS.min(MOST / units.max(1));
        let mut all = Vec::new();
        for Member { id, weight, index } in members {
            // With weights that are far apart, the lightest may be left with one.
            let count = match points {
                0 => (u64::from(weight / unit) * MOST / units.max(1)).max(1),
                points => points * u64::from(weight / unit),
            };
            all.extend((0..count).map(|point| (mix(id.wrapping_add(mix(point + 1))), *index)));
        }
        all.sort_unstable();
        Self { points: all.into() }
    }

    /// The endpoint at the next point behind `key` that is not skipped.
    pub(super) fn find(&self, key: u64, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < key);
        let (before, behind) = self.points.split_at_checked(start)?;
        behind.iter().chain(before).map(|(_, index)| *index as usize).find(|index| !skip(*index))
    }
}

/// The greatest number that divides both.
fn divisor(a: u32, b: u32) -> u32 {
    match a.checked_rem(b) {
        None => a,
        Some(rest) => divisor(b, rest),
    }
}
