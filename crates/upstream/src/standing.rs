//! What the process holds of an endpoint: one verdict that all workers read, whoever came to it.
//!
//! An endpoint may be chosen while no bar lies on it. Each kind of bar is one bit of an atomic word, so that whoever lays or
//! lifts one leaves the others alone. A change wakes nobody: it raises a number that each worker compares, with one load for
//! each request, before it chooses. Standings outlive snapshots and sets of endpoints through `Carry`, and are each world's own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use parking_lot::Mutex;

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
}

impl Standings {
    /// What is held of the endpoint with this id, which begins without a bar.
    pub(crate) fn of(&self, id: &Arc<str>) -> Arc<Standing> {
        let new = || {
            let news = Arc::clone(&self.news);
            Arc::new(Standing { bars: AtomicU8::new(0), news, breaker: Mutex::default() })
        };
        Arc::clone(self.all.lock().entry(Arc::clone(id)).or_insert_with(new))
    }

    /// Forgets endpoints that are gone. Whoever still has an exchange there holds its standing.
    pub(crate) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.all.lock().retain(|id, _| stays(id));
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
        assert_eq!(standings.of(&id).bars(), Bars::NONE, "who comes back begins anew");
    }
}
