//! Which endpoints do worse than they should, and how long they are left out for it. Pure: counts and time are arguments.
//!
//! After Envoy's outlier detection. An endpoint is ejected for failures in a row, for its share of failures, or for being much slower
//! than the others; each time for longer, until it has done well for as long. A lone endpoint is never ejected, and no more than
//! a share of all are out at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pylon_core::units::Percent;
use serde::Serialize;

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// So many failures in a row.
    Failures,
    /// Too great a share of failures.
    Errors,
    /// Much slower than the others.
    Slow,
}

impl Why {
    /// For log and explanations.
    pub fn words(self) -> &'static str {
        match self {
            Self::Failures => "failures in a row",
            Self::Errors => "too many failures",
            Self::Slow => "slower than the others",
        }
    }
}

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// So many failures in a row.
    pub(crate) failures: Option<u32>,
    /// So great a share of failures in the window.
    pub(crate) errors: Option<Percent>,
    /// So many times the time that the others take in the middle.
    pub(crate) slow: Option<f64>,
    /// In seconds.
    pub(crate) window: usize,
    /// The fewest requests in the window that say anything of shares and times.
    pub(crate) volume: u64,
    /// How long the first time.
    pub(crate) base: Duration,
    /// How long at the most.
    pub(crate) longest: Duration,
    /// The share of endpoints that may be out at once.
    pub(crate) at_most: Percent,
}

/// What is less than this is not slow, whatever the others take.
const NOTICEABLE: Duration = Duration::from_millis(10);

/// Attempts in some span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) attempts: u64,
    pub(crate) failures: u64,
    /// What those took that were answered without a failure, in microseconds.
    pub(crate) micros: u64,
}

impl Sums {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            attempts: self.attempts.saturating_add(other.attempts),
            failures: self.failures.saturating_add(other.failures),
            micros: self.micros.saturating_add(other.micros),
        }
    }

    /// What came since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            attempts: self.attempts.saturating_sub(before.attempts),
            failures: self.failures.saturating_sub(before.failures),
            micros: self.micros.saturating_sub(before.micros),
        }
    }

    fn answered(self) -> u64 {
        self.attempts.saturating_sub(self.failures)
    }

    /// The mean time of those that were answered.
    fn mean(self) -> Option<Duration> {
        self.micros.checked_div(self.answered()).map(Duration::from_micros)
    }
}

/// What is known of one endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) out: Option<Out>,
    /// How often it was ejected, less what it has made good since.
    pub(crate) times: u32,
    /// From when on it makes good.
    good_since: Option<Instant>,
    /// One for each second, the newest last.
    seconds: VecDeque<Sums>,
}

/// One that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) until: Instant,
    pub(crate) why: Why,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Ejected { id: Arc<str>, why: Why, span: Duration },
    Back { id: Arc<str> },
}

/// What is known of all endpoints of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    all: HashMap<Arc<str>, Record>,
}

impl Judge {
    /// These are the endpoints now. What is known of those that stay is kept.
    pub(crate) fn these(&mut self, ids: &[Arc<str>]) {
        self.all.retain(|id, _| ids.contains(id));
        for id in ids {
            self.all.entry(Arc::clone(id)).or_default();
        }
    }

    /// What is known of one of them.
    pub(crate) fn record(&self, id: &str) -> Option<&Record> {
        self.all.get(id)
    }

    /// Whether it is left out.
    pub(crate) fn is_out(&self, id: &str) -> bool {
        self.record(id).is_some_and(|record| record.out.is_some())
    }

    /// It failed so often in a row that it is to be ejected, if it may be.
    pub(crate) fn eject(&mut self, id: &Arc<str>, why: Why, now: Instant, rules: &Rules) -> Option<Change> {
        let (all, out) = (self.all.len(), self.all.values().filter(|record| record.out.is_some()).count());
        if out >= most(all, rules.at_most) {
            return None;
        }
        let record = self.all.get_mut(id).filter(|record| record.out.is_none())?;
        record.times = record.times.saturating_add(1);
        let span = rules.base.saturating_mul(record.times).min(rules.longest);
        record.out = Some(Out { until: now + span, why });
        record.seconds.clear();
        Some(Change::Ejected { id: Arc::clone(id), why, span })
    }

    /// A second is over in which `sums` came of each: lets back in whose time is over, and ejects who does worse.
    pub(crate) fn second(&mut self, sums: impl Fn(&str) -> Sums, now: Instant, rules: &Rules) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, record) in &mut self.all {
            if record.second(sums(id), now, rules) {
                changes.push(Change::Back { id: Arc::clone(id) });
            }
        }
        let whole: Vec<_> = self.all.iter().filter(|(_, record)| record.out.is_none()).collect();
        let whole: Vec<_> = whole.into_iter().map(|(id, record)| (Arc::clone(id), record.whole())).collect();
        let mut worse: Vec<_> =
            whole.iter().filter_map(|(id, sums)| Some((id, worse(id, *sums, &whole, rules)?))).collect();
        // The worst go first, since not all may go.
        worse.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
        changes.extend(worse.into_iter().filter_map(|(id, (why, _))| self.eject(id, why, now, rules)));
        changes
    }
}

impl Record {
    /// Whether it is let back in.
    fn second(&mut self, sums: Sums, now: Instant, rules: &Rules) -> bool {
        let back = self.out.is_some_and(|out| out.until <= now);
        if back {
            self.out = None;
            self.good_since = Some(now);
        }
        if self.out.is_some() {
            return false;
        }
        if !back {
            self.seconds.push_back(sums);
        }
        while self.seconds.len() > rules.window {
            self.seconds.pop_front();
        }
        // For each `base` without another ejection one of the earlier ones is forgotten.
        if let Some(since) =
            self.good_since.filter(|since| self.times > 0 && now.saturating_duration_since(*since) >= rules.base)
        {
            self.times = self.times.saturating_sub(1);
            self.good_since = Some(since + rules.base);
        }
        back
    }

    /// All of the window.
    fn whole(&self) -> Sums {
        self.seconds.iter().copied().fold(Sums::default(), Sums::plus)
    }
}

/// How many of so many endpoints may be out at once: the share, but one of several in any case, and never a lone one.
fn most(all: usize, share: Percent) -> usize {
    match all {
        0 | 1 => 0,
        all => (all.saturating_mul(share.basis_points().into()) / 10_000).max(1),
    }
}

/// Whether an endpoint does worse than it should, why, and by how much.
fn worse(id: &Arc<str>, sums: Sums, whole: &[(Arc<str>, Sums)], rules: &Rules) -> Option<(Why, f64)> {
    if sums.attempts < rules.volume {
        return None;
    }
    let share = sums.failures as f64 / sums.attempts.max(1) as f64;
    if rules.errors.is_some_and(|errors| share >= errors.ratio()) {
        return Some((Why::Errors, 1000.0 + share));
    }
    let (slow, own) = (rules.slow?, sums.mean().filter(|_| sums.answered() >= rules.volume)?);
    let others = whole.iter().filter(|(other, sums)| other != id && sums.answered() >= rules.volume);
    let mut others: Vec<_> = others.filter_map(|(_, sums)| sums.mean()).collect();
    others.sort_unstable();
    // The lower of two in the middle.
    let usual = others.get(others.len().checked_sub(1)? / 2)?;
    let is_slow = own > usual.mul_f64(slow) && own.saturating_sub(*usual) > NOTICEABLE;
    is_slow.then(|| (Why::Slow, (own.as_secs_f64() / usual.as_secs_f64().max(1e-6)).min(999.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            failures: Some(5),
            errors: Percent::parse("50%").ok(),
            slow: Some(3.0),
            window: 10,
            volume: 20,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            at_most: Percent::parse("50%").unwrap(),
        }
    }

    fn ids(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn judge(names: &[&str]) -> (Judge, Vec<Arc<str>>, Instant) {
        let (mut judge, ids) = (Judge::default(), ids(names));
        judge.these(&ids);
        (judge, ids, tokio::time::Instant::now().into_std())
    }

    /// Attempts, failures, and the milliseconds that each of the others took.
    fn sums(attempts: u64, failures: u64, each: u64) -> Sums {
        Sums { attempts, failures, micros: (attempts - failures) * each * 1000 }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_time_is_longer_than_the_one_before_and_there_is_a_longest() {
        let (mut judge, ids, mut now) = judge(&["a", "b", "c"]);
        let mut spans = Vec::new();
        for _ in 0..12 {
            let Some(Change::Ejected { span, .. }) = judge.eject(&ids[0], Why::Failures, now, &rules()) else {
                panic!()
            };
            spans.push(span.as_secs());
            assert_eq!(judge.eject(&ids[0], Why::Failures, now, &rules()), None, "it is out already");
            assert_eq!(judge.second(|_| Sums::default(), now + span.saturating_sub(seconds(1)), &rules()), []);
            now += span;
            let back = Change::Back { id: Arc::clone(&ids[0]) };
            assert_eq!(judge.second(|_| Sums::default(), now, &rules()), [back]);
        }
        assert_eq!(spans, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    }

    #[test]
    fn who_does_well_for_as_long_as_the_first_time_is_forgiven_one() {
        let (mut judge, ids, mut now) = judge(&["a", "b", "c"]);
        for _ in 0..2 {
            judge.eject(&ids[0], Why::Failures, now, &rules());
            now += seconds(60);
            judge.second(|_| Sums::default(), now, &rules());
        }
        assert_eq!(judge.record("a").unwrap().times, 2);
        for (after, times) in [(29, 2), (30, 1), (59, 1), (60, 0), (500, 0)] {
            judge.second(|_| Sums::default(), now + seconds(after), &rules());
            assert_eq!(judge.record("a").unwrap().times, times, "after {after} s");
        }
    }

    #[test]
    fn a_lone_endpoint_stays_and_of_several_one_may_go_and_no_more_than_the_share() {
        for (all, may) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            let names: Vec<_> = (0..all).map(|n| n.to_string()).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let (mut judge, ids, now) = judge(&names);
            let gone = ids.iter().filter(|id| judge.eject(id, Why::Failures, now, &rules()).is_some()).count();
            assert_eq!(gone, may, "of {all}");
        }
        assert_eq!([most(3, Percent::parse("0%").unwrap()), most(3, Percent::parse("100%").unwrap())], [1, 3]);
    }

    #[test]
    fn too_great_a_share_of_failures_ejects_where_enough_requests_came() {
        let (mut judge, ids, now) = judge(&["a", "b", "c"]);
        let few = |id: &str| if id == "a" { sums(19, 19, 0) } else { sums(100, 0, 10) };
        assert_eq!(judge.second(few, now, &rules()), []);
        let bad = |id: &str| if id == "a" { sums(1, 0, 10) } else { sums(100, 0, 10) };
        let ejected = Change::Ejected { id: Arc::clone(&ids[0]), why: Why::Errors, span: seconds(30) };
        assert_eq!(judge.second(bad, now + seconds(1), &rules()), [ejected], "19 of 20");
    }

    #[test]
    fn failures_are_forgotten_with_the_window() {
        let (mut judge, _, now) = judge(&["a", "b", "c"]);
        let bad = |id: &str| if id == "a" { sums(19, 19, 0) } else { sums(100, 0, 10) };
        judge.second(bad, now, &rules());
        for second in 1..=9 {
            assert_eq!(judge.second(|_| Sums::default(), now + seconds(second), &rules()), []);
        }
        let one = |id: &str| if id == "a" { sums(1, 1, 0) } else { sums(100, 0, 10) };
        assert_eq!(judge.second(one, now + seconds(10), &rules()), [], "the first second is out of the window");
    }

    #[test]
    fn who_is_much_slower_than_the_others_goes_and_who_is_a_little_slower_stays() {
        for (own, goes) in [(10, false), (30, false), (31, true), (500, true)] {
            let (mut judge, ids, now) = judge(&["a", "b", "c", "d"]);
            let of = |id: &str| sums(100, 0, if id == "a" { own } else { 10 });
            let changes = judge.second(of, now, &rules());
            assert_eq!(judge.is_out("a"), goes, "{own} ms: {changes:?}");
            assert!(ids[1..].iter().all(|id| !judge.is_out(id)));
        }
        // Nobody feels 9 ms.
        let (mut judge, _, now) = judge(&["a", "b", "c", "d"]);
        assert_eq!(judge.second(|id| sums(100, 0, if id == "a" { 10 } else { 1 }), now, &rules()), []);
    }

    #[test]
    fn the_worst_go_first_where_not_all_may_go() {
        let (mut judge, _, now) = judge(&["a", "b", "c", "d", "e"]);
        let of = |id: &str| match id {
            "a" => sums(100, 60, 10),
            "b" => sums(100, 100, 10),
            "c" => sums(100, 80, 10),
            "d" => sums(100, 0, 900),
            _ => sums(100, 0, 10),
        };
        judge.second(of, now, &rules());
        assert_eq!(["a", "b", "c", "d", "e"].map(|id| judge.is_out(id)), [false, true, true, false, false]);
    }

    #[test]
    fn endpoints_that_come_and_go_leave_what_is_known_of_the_others() {
        let (mut judge, all, now) = judge(&["a", "b", "c"]);
        judge.eject(&all[0], Why::Failures, now, &rules());
        judge.these(&ids(&["a", "d"]));
        assert!(judge.is_out("a") && judge.record("d").is_some() && judge.record("b").is_none());
        judge.these(&ids(&["d"]));
        judge.these(&ids(&["a", "d"]));
        assert!(!judge.is_out("a"), "who comes back begins anew");
    }

    #[test]
    fn whatever_happens_the_cap_holds_and_everybody_comes_back() {
        for seed in 0..200 {
            let mut lots = fastrand::Rng::with_seed(seed);
            let names: Vec<_> = (0..lots.usize(1..12)).map(|n| n.to_string()).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let (mut judge, ids, mut now) = judge(&names);
            for _ in 0..600 {
                now += seconds(1);
                if lots.u8(..20) == 0 {
                    judge.eject(&ids[lots.usize(..ids.len())], Why::Failures, now, &rules());
                }
                let seed = lots.u64(..);
                let of = |id: &str| {
                    let mut lots = fastrand::Rng::with_seed(seed ^ id.parse::<u64>().unwrap());
                    let attempts = lots.u64(0..50);
                    sums(attempts, lots.u64(0..=attempts), lots.u64(1..200))
                };
                judge.second(of, now, &rules());
                let out = ids.iter().filter(|id| judge.is_out(id)).count();
                assert!(out <= most(ids.len(), rules().at_most), "seed {seed}: {out} of {}", ids.len());
                let latest = ids.iter().filter_map(|id| judge.record(id)?.out).map(|out| out.until).max();
                assert!(latest.is_none_or(|until| until <= now + rules().longest), "seed {seed}");
            }
            for _ in 0..301 {
                now += seconds(1);
                judge.second(|_| Sums::default(), now, &rules());
            }
            assert!(ids.iter().all(|id| !judge.is_out(id)), "seed {seed}");
        }
    }
}
