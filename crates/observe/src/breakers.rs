//! What circuit breakers come to: how many are in which state, and how often they changed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// For what a breaker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum BreakerScope {
    /// One endpoint.
    Endpoint,
    /// An upstream.
    Upstream,
    /// The calls of a route.
    Route,
}

impl BreakerScope {
    /// The values of the label `scope`, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["endpoint", "upstream", "route"];
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// A few pass as probes.
    HalfOpen,
    /// None passes.
    Open,
}

impl BreakerState {
    /// The values of the label `state`, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["closed", "half_open", "open"];

    /// The name in log, metrics and admin API.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// The breakers of one upstream, by scope and state. Written where one changes, which is rare.
#[derive(Debug, Default)]
pub struct BreakerCounts {
    now: [[AtomicI64; 3]; 3],
    changes: [[AtomicU64; 3]; 3],
}

impl BreakerCounts {
    /// There is one more, which is closed.
    pub fn appeared(&self, scope: BreakerScope) {
        self.add(scope, BreakerState::Closed, 1);
    }

    /// One is gone that was in this state.
    pub fn gone(&self, scope: BreakerScope, state: BreakerState) {
        self.add(scope, state, -1);
    }

    /// One has changed.
    pub fn changed(&self, scope: BreakerScope, from: BreakerState, to: BreakerState) {
        if from == to {
            return;
        }
        self.add(scope, from, -1);
        self.add(scope, to, 1);
        if let Some(changes) = self.changes.get(scope as usize).and_then(|of| of.get(to as usize)) {
            changes.fetch_add(1, Relaxed);
        }
    }

    /// Scope, state, how many are in it and how often one came into it; nothing of scopes that there are none of.
    pub(crate) fn read(&self) -> Vec<(&'static str, &'static str, i64, u64)> {
        let mut all = Vec::new();
        for ((scope, now), changes) in BreakerScope::NAMES.into_iter().zip(&self.now).zip(&self.changes) {
            let of_scope = || now.iter().map(|count| count.load(Relaxed)).zip(changes.iter().map(|n| n.load(Relaxed)));
            if of_scope().any(|counts| counts != (0, 0)) {
                let named = BreakerState::NAMES.into_iter().zip(of_scope());
                all.extend(named.map(|(state, (now, changes))| (scope, state, now, changes)));
            }
        }
        all
    }

    fn add(&self, scope: BreakerScope, state: BreakerState, change: i64) {
        if let Some(count) = self.now.get(scope as usize).and_then(|of| of.get(state as usize)) {
            count.fetch_add(change, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_breaker_is_counted_in_the_state_that_it_is_in() {
        let counts = BreakerCounts::default();
        assert!(counts.read().is_empty());
        counts.appeared(BreakerScope::Endpoint);
        counts.appeared(BreakerScope::Endpoint);
        counts.changed(BreakerScope::Endpoint, BreakerState::Closed, BreakerState::Open);
        counts.changed(BreakerScope::Endpoint, BreakerState::Open, BreakerState::Open);
        let expected = [("endpoint", "closed", 1, 0), ("endpoint", "half_open", 0, 0), ("endpoint", "open", 1, 1)];
        assert_eq!(counts.read(), expected);
        counts.gone(BreakerScope::Endpoint, BreakerState::Open);
        assert_eq!(counts.read()[2], ("endpoint", "open", 0, 1));
    }
}
