//! What the process holds of an endpoint: one verdict that all workers read, whoever came to it.
//!
//! An endpoint may be chosen while no bar lies on it. Each kind of bar is one bit of an atomic word, so that whoever lays or
//! lifts one leaves the others alone. A change wakes nobody: it raises a number that each worker compares, with one load for
//! each request, before it chooses. Standings outlive snapshots and sets of endpoints through `Carry`, and are each world's own.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pylon_core::units::Percent;

use crate::breaker::state::State;

/// Why an endpoint is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Bar {
    /// Its health checks fail.
    Unhealthy = 1,
    /// It did worse than the others.
    Ejected = 2,
    /// Its breaker is open.
    Open = 4,
}

impl Bar {
    pub(crate) const ALL: [Self; 3] = [Self::Unhealthy, Self::Ejected, Self::Open];

    /// The name in log and admin API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Open => "breaker_open",
        }
    }
}

/// The bars that lie on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bars(u8);

impl Bars {
    /// Whether any lies on it but those that are `ignored`.
    pub(crate) fn any_but(self, ignored: Self) -> bool {
        self.0 & !ignored.0 != 0
    }

    pub(crate) fn has(self, bar: Bar) -> bool {
        self.0 & bar as u8 != 0
    }

    /// Those that panic ignores: where too few endpoints are left, what was found out about the others is doubted.
    pub(crate) const DOUBTED: Self = Self(Bar::Unhealthy as u8 | Bar::Ejected as u8);

    pub(crate) const NONE: Self = Self(0);

    /// That of an open breaker alone.
    pub(crate) const OPEN: Self = Self(Bar::Open as u8);

    pub(crate) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        Bar::ALL.into_iter().filter(|bar| self.has(*bar)).map(Bar::as_str).collect()
    }
}

/// What is held of one endpoint.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Standing {
    bars: AtomicU8,
    news: Arc<AtomicU64>,
    /// The endpoint's own breaker, where a document in force has one.
    pub(crate) breaker: Mutex<Option<Arc<State>>>,
}

impl Standing {
    pub(crate) fn bars(&self) -> Bars {
        Bars(self.bars.load(Acquire))
    }

    /// Lays a bar, or lifts it. Says whether that changed anything.
    pub(crate) fn bar(&self, bar: Bar, lies: bool) -> bool {
        let bit = bar as u8;
        let before = if lies { self.bars.fetch_or(bit, AcqRel) } else { self.bars.fetch_and(!bit, AcqRel) };
        let changed = (before & bit != 0) != lies;
        if changed {
            self.news.fetch_add(1, AcqRel);
        }
        changed
    }
}

/// The standings of all endpoints of one upstream.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    all: Mutex<HashMap<Arc<str>, Arc<Standing>>>,
    /// Rises with each change of a verdict.
    news: Arc<AtomicU64>,
    /// Who may lay bars: the last that lives.
    says: Mutex<Vec<Weak<()>>>,
}

/// The right to judge, for as long as nobody has claimed it since.
#[derive(Debug, Clone)]
pub(crate) struct Say(Arc<()>);

impl Standings {
    /// Whoever claims the say has it until somebody else does, and again when that one is gone.
    pub(crate) fn claim(&self) -> Say {
        let say = Arc::new(());
        let mut says = self.says.lock();
        says.retain(|one| one.strong_count() > 0);
        says.push(Arc::downgrade(&say));
        Say(say)
    }

    /// Does what only who has the say may do; nothing where that is somebody else.
    pub(crate) fn by(&self, say: &Say, work: impl FnOnce()) {
        let mut says = self.says.lock();
        says.retain(|one| one.strong_count() > 0);
        if says.last().is_some_and(|last| last.as_ptr() == Arc::as_ptr(&say.0)) {
            work();
        }
    }

    /// What is held of the endpoint with this id, which begins without a bar.
    pub(crate) fn of(&self, id: &Arc<str>) -> Arc<Standing> {
        let new = || {
            let news = Arc::clone(&self.news);
            Arc::new(Standing { bars: AtomicU8::new(0), news, breaker: Mutex::default() })
        };
        Arc::clone(self.all.lock().entry(Arc::clone(id)).or_insert_with(new))
    }

    /// Forgets endpoints that are gone, unless somebody still chooses by them: a document that is compiled has not come into
    /// force yet, and workers take up a new set with their next request.
    pub(crate) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.all.lock().retain(|id, standing| stays(id) || Arc::strong_count(standing) > 1);
    }

    /// Something has changed that workers have to look at, though no verdict has.
    pub(crate) fn rouse(&self) {
        self.news.fetch_add(1, AcqRel);
    }

    /// Rises with each change of a verdict.
    pub(crate) fn news(&self) -> u64 {
        self.news.load(Relaxed)
    }
}

/// Which endpoints are not to be chosen. Where fewer than the share `panic` would be left, what checks and comparisons say is
/// ignored: it is more likely that they are wrong, and the rest could not carry the load. A breaker is never ignored.
pub(crate) fn barred(bars: &[Bars], panic: Percent) -> Vec<bool> {
    let ignored = if is_panic(bars, panic) { Bars::DOUBTED } else { Bars::NONE };
    bars.iter().map(|bars| bars.any_but(ignored)).collect()
}

/// Whether fewer than the share `panic` of endpoints is left, and that by verdicts which can be doubted.
pub(crate) fn is_panic(bars: &[Bars], panic: Percent) -> bool {
    let left = bars.iter().filter(|bars| !bars.any_but(Bars::NONE)).count();
    let doubted = bars.iter().any(|bars| bars.0 & Bars::DOUBTED.0 != 0);
    doubted && left.saturating_mul(10_000) < bars.len().saturating_mul(panic.basis_points().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lifts_one_bar_leaves_the_others() {
        let standings = Standings::default();
        let (id, other) = (Arc::from("a:1"), Arc::from("b:1"));
        let standing = standings.of(&id);
        assert!(standing.bar(Bar::Unhealthy, true) && standing.bar(Bar::Open, true));
        assert!(!standing.bar(Bar::Open, true), "it lies there already");
        assert_eq!(standings.news(), 2);
        assert!(standing.bar(Bar::Unhealthy, false));
        assert_eq!(standings.of(&id).bars().names(), ["breaker_open"]);
        assert!(standing.bars().any_but(Bars::DOUBTED) && standings.of(&other).bars() == Bars::NONE);
        standings.retain(|id| id != "a:1");
        assert_eq!(standings.of(&id).bars().names(), ["breaker_open"], "somebody still chooses by it");
        drop(standing);
        standings.retain(|id| id != "a:1");
        assert_eq!(standings.of(&id).bars(), Bars::NONE, "who comes back begins anew");
    }

    #[test]
    fn the_newest_who_lives_has_the_say() {
        let standings = Standings::default();
        let may = |say: &Say| {
            let mut done = false;
            standings.by(say, || done = true);
            done
        };
        let (first, second) = (standings.claim(), standings.claim());
        assert!(!may(&first) && may(&second));
        drop(second);
        assert!(may(&first));
    }

    fn all(bars: &[&[Bar]]) -> Vec<Bars> {
        bars.iter().map(|bars| Bars(bars.iter().fold(0, |all, bar| all | *bar as u8))).collect()
    }

    fn percent(text: &str) -> Percent {
        Percent::parse(text).unwrap()
    }

    #[test]
    fn verdicts_are_ignored_where_fewer_than_the_share_would_be_left() {
        let half = all(&[&[], &[Bar::Unhealthy], &[Bar::Ejected], &[]]);
        assert_eq!(barred(&half, percent("50%")), [false, true, true, false]);
        assert_eq!(barred(&half, percent("50.01%")), [false; 4]);
        let none = all(&[&[Bar::Unhealthy], &[Bar::Unhealthy, Bar::Ejected]]);
        assert_eq!(barred(&none, percent("0%")), [true, true], "0% is never");
        assert_eq!(barred(&none, percent("0.01%")), [false, false]);
        assert_eq!(barred(&half, percent("100%")), [false; 4], "one is enough");
        assert!(!is_panic(&all(&[&[], &[]]), percent("100%")) && !is_panic(&[], percent("50%")));
    }

    #[test]
    fn a_breaker_is_never_ignored() {
        let bars = all(&[&[Bar::Open], &[Bar::Unhealthy, Bar::Open], &[Bar::Unhealthy]]);
        assert_eq!(barred(&bars, percent("50%")), [true, true, false]);
        assert!(!is_panic(&all(&[&[Bar::Open], &[Bar::Open], &[]]), percent("50%")), "there is nothing to ignore");
    }
}
