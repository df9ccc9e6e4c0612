//! Tables in which keys are looked up: made once for each set of endpoints, and read by all workers.

use super::Method;
use super::hash::hash;
use super::maglev::Maglev;
use super::ring::Ring;

/// Which endpoint a key belongs to.
#[derive(Debug)]
pub struct Table(Kind);

/// An endpoint that is to be found in a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    /// The hash of its name.
    pub(super) id: u64,
    pub(super) weight: u32,
    pub(super) index: u32,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

impl Table {
    /// The table of a method, by the names and weights of the endpoints; none for methods that need none, and of nobody.
    pub fn new<'a>(method: Method, endpoints: impl Iterator<Item = (&'a str, u32)>) -> Option<Self> {
        if !method.is_keyed() {
            return None;
        }
        let member = |(index, (id, weight)): (u32, (&str, u32))| Member {
            id: hash(id.as_bytes()),
            weight: weight.max(1),
            index,
        };
        let mut members: Vec<Member> = (0..).zip(endpoints).map(member).collect();
        // Whatever the order in which they are written or found, the table is the same.
        members.sort_unstable_by_key(|member| member.id);
        match method {
            Method::RingHash => Some(Self(Kind::Ring(Ring::new(&members)))),
            _ => Maglev::new(&members).map(Kind::Maglev).map(Self),
        }
    }

    /// The endpoint that `key` belongs to, or the next that is not skipped.
    pub fn find(&self, key: u64, skip: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.0 {
            Kind::Ring(ring) => ring.find(key, skip),
            Kind::Maglev(maglev) => maglev.find(key, skip),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hash::mix;
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:8080", n / 250, n % 250)).collect()
    }

    fn table(method: Method, names: &[String], weight: impl Fn(usize) -> u32 + Copy) -> Table {
        Table::new(method, names.iter().enumerate().map(|(n, name)| (name.as_str(), weight(n)))).unwrap()
    }

    fn places_of(names: &[String]) -> Vec<usize> {
        match table(Method::Maglev, names, |_| 1).0 {
            Kind::Maglev(maglev) => maglev.places().iter().map(|index| usize::from(*index)).collect(),
            Kind::Ring(_) => Vec::new(),
        }
    }

    /// How the keys are shared out, as parts of 1.
    fn shares(table: &Table, count: usize) -> Vec<f64> {
        let mut shares = vec![0.0; count];
        for key in 0..40_000 {
            shares[table.find(mix(key), |_| false).unwrap()] += 1.0 / 40_000.0;
        }
        shares
    }

    #[test]
    fn shares_follow_the_weights() {
        for method in [Method::RingHash, Method::Maglev] {
            let names = names(4);
            let shares = shares(&table(method, &names, |n| [100, 100, 200, 400][n]), 4);
            for (share, wanted) in shares.iter().zip([0.125, 0.125, 0.25, 0.5]) {
                assert!((share - wanted).abs() < 0.15 * wanted, "{method:?} {shares:?}");
            }
        }
    }

    #[test]
    fn every_endpoint_of_a_great_set_has_a_share() {
        let names = names(2_000);
        let mut places = vec![0_u32; names.len()];
        for index in places_of(&names) {
            places[index] += 1;
        }
        assert!(places.iter().all(|count| (327..=328).contains(count)), "655373 places are shared out evenly");
        let uneven = table(Method::RingHash, &names, |n| if n == 0 { 1 } else { 1_000 });
        assert!((0..100_000).any(|key| uneven.find(mix(key), |n| n == 1) == Some(2)));
    }

    #[test]
    fn the_order_in_which_endpoints_are_named_makes_no_difference() {
        let names = names(7);
        let turned: Vec<String> = names.iter().rev().cloned().collect();
        for method in [Method::RingHash, Method::Maglev] {
            let (one, other) = (table(method, &names, |_| 1), table(method, &turned, |_| 1));
            let meets = |table: &Table, names: &[String], key| names[table.find(mix(key), |_| false).unwrap()].clone();
            assert!((0..5_000).all(|key| meets(&one, &names, key) == meets(&other, &turned, key)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn places_of_maglev_are_even_to_one(count in 2_usize..20) {
            let names = names(count);
            let (mut places, all) = (vec![0_usize; count], places_of(&names));
            for index in &all {
                places[*index] += 1;
            }
            let even = all.len() / count;
            prop_assert!(places.iter().all(|places| (even..=even + 1).contains(places)), "{:?}", places);
        }

        #[test]
        fn who_goes_moves_its_own_keys_and_few_others(count in 3_usize..40, gone in any::<prop::sample::Index>(), ring in any::<bool>()) {
            let method = if ring { Method::RingHash } else { Method::Maglev };
            let (gone, all) = (gone.index(count), names(count));
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (before, after) = (table(method, &all, |_| 1), table(method, &fewer, |_| 1));
            let (mut moved, mut own) = (0_u32, 0_u32);
            for key in 0..20_000 {
                let (was, is) = (before.find(mix(key), |_| false).unwrap(), after.find(mix(key), |_| false).unwrap());
                own += u32::from(was == gone);
                moved += u32::from(was != gone && all[was] != fewer[is]);
            }
            prop_assert!(f64::from(own) < 20_000.0 * (1.0 / count as f64) * 1.5, "{own} of 20000 were its own");
            // A ring moves no other key at all; Maglev gives a little of that away for even shares.
            let most = if ring { 0.0 } else { 20_000.0 * 0.08 };
            prop_assert!(f64::from(moved) <= most, "{moved} others moved");
        }

        #[test]
        fn who_is_barred_leaves_all_others_their_keys(count in 2_usize..30, gone in any::<prop::sample::Index>(), ring in any::<bool>()) {
            let table = table(if ring { Method::RingHash } else { Method::Maglev }, &names(count), |_| 1);
            let gone = gone.index(count);
            let mut heirs = vec![0_u32; count];
            for key in 0..20_000 {
                let before = table.find(mix(key), |_| false).unwrap();
                let now = table.find(mix(key), |index| index == gone).unwrap();
                prop_assert!(now != gone && (before == gone || before == now));
                heirs[now] += u32::from(before == gone);
            }
            // Its keys are shared among the others, and do not all fall on one.
            let most = *heirs.iter().max().unwrap();
            let all: u32 = heirs.iter().sum();
            prop_assert!(count < 4 || f64::from(most) < 0.7 * f64::from(all), "{heirs:?}");
        }
    }
}
