//! A table in which each endpoint has its exact share of the places, and keys belong to a place (D. Eisenbud et al., "Maglev: A
//! fast and reliable software network load balancer", NSDI 2016, §3.4).
//!
//! Endpoints take places in rounds, each in an order of its own that comes of its name; with weights, the heaviest takes one in
//! each round and the others in proportion. An endpoint that goes moves its own keys and a few others.

use super::hash::mix;
use super::table::Member;

/// Primes, since an endpoint's steps must reach every place. The paper wants a hundred places for each endpoint. A table of another
/// size moves all keys, so the smallest does for all sets but those of over 655 endpoints.
const SIZES: [u64; 2] = [65_537, 655_373];

#[derive(Debug)]
pub(super) struct Maglev {
    /// Whose place each is.
    places: Box<[u16]>,
}

/// One endpoint, while it takes places.
struct Taker {
    index: u16,
    weight: u64,
    /// How much it has been given, in the weight of the heaviest.
    given: u64,
    at: u64,
    step: u64,
}

impl Maglev {
    /// None where there is no endpoint.
    pub(super) fn new(members: &[Member]) -> Option<Self> {
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max()?;
        let [.., large] = SIZES;
        let wanted = members.len() as u64 * 100;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(large);
        let taker = |member: &Member| {
            let (weight, index) = (u64::from(member.weight), u16::try_from(member.index).ok()?);
            Some(Taker { index, weight, given: 0, at: member.id % size, step: mix(member.id ^ STEPS) % (size - 1) + 1 })
        };
        let mut takers: Vec<Taker> = members.iter().filter_map(taker).collect();
        let mut places: Vec<Option<u16>> = vec![None; usize::try_from(size).ok()?];
        let mut left = size;
        for round in 1.. {
            for taker in &mut takers {
                if left == 0 {
                    return Some(Self { places: places.into_iter().flatten().collect() });
                }
                if round * taker.weight < taker.given {
                    continue;
                }
                taker.given += heaviest;
                let place = taker.take(&places, size)?;
                *places.get_mut(place)? = Some(taker.index);
                left -= 1;
            }
        }
        None
    }

    /// Whose place `key` belongs to; where that one is skipped, the next place of another.
    pub(super) fn find(&self, key: u64, skip: impl Fn(usize) -> bool) -> Option<usize> {
        let start = usize::try_from(key.checked_rem(self.places.len() as u64)?).ok()?;
        let (before, behind) = self.places.split_at_checked(start)?;
        behind.iter().chain(before).map(|index| usize::from(*index)).find(|index| !skip(*index))
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> &[u16] {
        &self.places
    }
}

/// Lets the steps of an endpoint have nothing to do with where it begins.
const STEPS: u64 = 0x9e37_79b9_7f4a_7c15;

impl Taker {
    /// The next place in its order that nobody has.
    fn take(&mut self, places: &[Option<u16>], size: u64) -> Option<usize> {
        for _ in 0..size {
            let place = usize::try_from(self.at).ok()?;
            self.at = (self.at + self.step) % size;
            if places.get(place)?.is_none() {
                return Some(place);
            }
        }
        None
    }
}
