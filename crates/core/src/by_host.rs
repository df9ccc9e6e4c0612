//! Numbers by host: the exact name counts, else the longest wildcard.
//!
//! What the numbers stand for is kept by who asks: what TLS demands of clients, or where connections are passed on to.

use std::collections::HashMap;

use crate::host::{HostPattern, labels};

/// The number of hosts of which nothing is said, and of no host at all.
pub const REST: usize = 0;

/// The number of each host that has one of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHost {
    exact: HashMap<Box<str>, usize>,
    /// By what stands behind `*.`.
    wildcard: HashMap<Box<str>, usize>,
    /// The labels of the longest wildcard.
    most_labels: usize,
}

impl ByHost {
    /// Says which number `hosts` have. Answers false where another number was said of this very pattern before.
    pub fn set(&mut self, hosts: HostPattern, number: usize) -> bool {
        let before = match hosts {
            HostPattern::Exact(name) => self.exact.insert(name, number),
            HostPattern::Wildcard(name) => {
                self.most_labels = self.most_labels.max(labels(&name));
                self.wildcard.insert(name, number)
            }
            HostPattern::Any => None,
        };
        before.is_none_or(|before| before == number)
    }

    /// The number of a host, as [`HostName::as_str`](crate::host::HostName::as_str) gives it.
    pub fn of(&self, host: Option<&str>) -> usize {
        let Some(host) = host else { return REST };
        if let Some(number) = self.exact.get(host) {
            return *number;
        }
        if self.wildcard.is_empty() {
            return REST;
        }
        let mut skip = labels(host).saturating_sub(self.most_labels + 1);
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if skip == 0
                && let Some(number) = self.wildcard.get(parent)
            {
                return *number;
            }
            skip = skip.saturating_sub(1);
            rest = parent;
        }
        REST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostName;
    use proptest::prelude::{any, prop, proptest};

    fn by_host(patterns: &[(&str, usize)]) -> ByHost {
        let mut by_host = ByHost::default();
        for (pattern, number) in patterns {
            assert!(by_host.set(HostPattern::parse(pattern).unwrap(), *number));
        }
        by_host
    }

    #[test]
    fn the_exact_name_wins_then_the_longest_wildcard_then_the_rest() {
        let by_host = by_host(&[("*.a.test", 1), ("*.b.a.test", 2), ("c.b.a.test", 3), ("open.a.test", REST)]);
        for (host, number) in [
            (Some("x.a.test"), 1),
            (Some("y.x.a.test"), 1),
            (Some("b.a.test"), 1),
            (Some("x.b.a.test"), 2),
            (Some("c.b.a.test"), 3),
            (Some("d.c.b.a.test"), 2),
            (Some("open.a.test"), REST),
            (Some("a.test"), REST),
            (Some("test"), REST),
            (Some("xa.test"), REST),
            (None, REST),
        ] {
            assert_eq!(by_host.of(host), number, "{host:?}");
        }
    }

    #[test]
    fn two_numbers_for_one_pattern_contradict_each_other() {
        let mut by_host = by_host(&[("*.a.test", 1), ("a.test", 1)]);
        assert!(by_host.set(HostPattern::parse("A.test.").unwrap(), 1));
        assert!(!by_host.set(HostPattern::parse("a.test").unwrap(), 2));
        assert!(!by_host.set(HostPattern::parse("*.a.test").unwrap(), 2));
    }

    proptest! {
        /// The measure is the plain sentence: of all patterns that take the host, the most specific.
        #[test]
        fn whatever_the_patterns_the_most_specific_one_that_takes_the_host_counts(
            patterns in prop::collection::btree_map("(\\*\\.)?[ab](\\.[ab]){0,3}", 1_usize..5, 0..12),
            host in "[abAB](\\.[abAB]){0,4}\\.?(:[0-9]{1,4})?",
        ) {
            let patterns: Vec<(&str, usize)> = patterns.iter().map(|(text, number)| (text.as_str(), *number)).collect();
            let host = HostName::parse(host.as_bytes()).unwrap();
            let parsed = patterns.iter().map(|(text, number)| (HostPattern::parse(text).unwrap(), *number));
            let taking = parsed.filter(|(pattern, _)| pattern.takes(Some(host.as_str())));
            let expected = taking.max_by_key(|(pattern, _)| pattern.rank()).map_or(REST, |(_, number)| number);
            assert_eq!(by_host(&patterns).of(Some(host.as_str())), expected);
        }

        /// Failure 10: the number of hosts changed how they were compared.
        #[test]
        fn the_number_of_hosts_changes_nothing(
            many in prop::sample::select(vec![1_usize, 99, 101, 10_000]), at in any::<prop::sample::Index>(), upper in any::<u64>(),
        ) {
            let mut by_host = ByHost::default();
            for n in 0..many {
                let pattern = if n % 2 == 0 { format!("h{n}.test") } else { format!("*.h{n}.test") };
                by_host.set(HostPattern::parse(&pattern).unwrap(), n + 1);
            }
            let n = at.index(many);
            let name = if n % 2 == 0 { format!("h{n}.test") } else { format!("x.y.h{n}.test") };
            let spell = |(i, c): (usize, char)| if upper >> (i % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c };
            let spelled: String = name.chars().enumerate().map(spell).collect();
            for end in ["", ".", ":8443", ".:443", ":"] {
                let written = format!("{spelled}{end}");
                assert_eq!(by_host.of(Some(HostName::parse(written.as_bytes()).unwrap().as_str())), n + 1, "{written}");
            }
            assert_eq!(by_host.of(Some("h.test")), REST);
        }
    }
}
