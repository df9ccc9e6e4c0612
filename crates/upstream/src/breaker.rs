//! Circuit breakers: what fails too often gets no more requests for a while, and then a few to find out.
//!
//! A breaker is closed, open or half open (`word.rs`), and opens by what a sliding window of calls says (`judge.rs`); both are
//! pure. The state is the process's own, one atomic word that all workers read (`state.rs`). Each worker has a `Fuse` of it,
//! by which it asks and tells: a call that went well is counted in a word of that worker's own, one that went badly at once for
//! all. There is a breaker for each endpoint, for the upstream as a whole, for the calls of a route, or for several of these at
//! once (`scopes.rs`). What is told of calls by leases stands in `lease.rs`.
//!
//! The name is that of M. Nygard, "Release It!" (2007); the states are those of his "Circuit Breaker" pattern.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pylon_core::units::Span;

use self::judge::{BUCKETS, Call, Limits};
use self::spec::{BreakerSpec, HALF, StatusSpec};
use self::state::{State, Tallies};
use crate::standing::Standing;

mod judge;
pub(crate) mod lease;
pub mod scopes;
pub mod spec;
pub(crate) mod state;
pub mod view;
pub mod word;

/// A compiled `breaker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    limits: Limits,
    slow: Option<Duration>,
    statuses: Box<[StatusSpec]>,
    /// The length of a bucket, in milliseconds.
    bucket: u64,
}

impl Rules {
    pub(crate) fn compile(spec: &BreakerSpec) -> Self {
        let open = spec.open.duration();
        let limits = Limits {
            errors: spec.errors.basis_points(),
            slow: spec.slow.map(|_| spec.slow_ratio.unwrap_or(HALF).basis_points()),
            in_a_row: spec.consecutive,
            least: spec.min_requests,
            open,
            open_max: spec.open_max.map_or(open.max(Duration::from_secs(60)), Span::duration),
            probes: u8::try_from(spec.probes).unwrap_or(u8::MAX),
        };
        let window = u64::try_from(spec.window.duration().as_millis()).unwrap_or(u64::MAX);
        Self {
            limits,
            slow: spec.slow.map(Span::duration),
            statuses: spec.statuses.0.clone().into(),
            bucket: (window / BUCKETS as u64).max(1),
        }
    }

    /// A call whose answer had this status after so long.
    fn by_status(&self, status: u16, took: Duration) -> Call {
        Call { failed: status >= 400 && self.statuses.iter().any(|one| one.has(status)), slow: self.is_slow(took) }
    }

    fn is_slow(&self, took: Duration) -> bool {
        self.slow.is_some_and(|slow| took > slow)
    }
}

/// What one worker has of a breaker. Its reference count is written by that worker alone.
#[derive(Debug)]
pub(crate) struct Fuse {
    state: Arc<State>,
    tallies: Arc<Tallies>,
    /// The place in `tallies` that nobody else writes.
    mine: usize,
    rules: Arc<Rules>,
    /// Barred while the breaker is open, where it is that of an endpoint.
    standing: Option<Arc<Standing>>,
}

/// A call that was let through by a breaker that is half open. Dropped without a word it is given back.
#[derive(Debug)]
pub(crate) struct Probe {
    fuse: Arc<Fuse>,
    epoch: u32,
    told: bool,
}

impl Fuse {
    pub(crate) fn new(
        state: &Arc<State>,
        mine: usize,
        rules: &Arc<Rules>,
        standing: Option<&Arc<Standing>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Arc::clone(state),
            tallies: state.tallies(rules.bucket),
            mine,
            rules: Arc::clone(rules),
            standing: standing.map(Arc::clone),
        })
    }

    /// Whether a call may pass, and as a probe. The error says in how long to ask again, where that is known. One load where
    /// the breaker is closed.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Option<Probe>, Option<Duration>> {
        match self.state.admit(now, self.rules.limits.probes) {
            Ok(None) => Ok(None),
            Ok(Some(epoch)) => Ok(Some(Probe { fuse: Arc::clone(self), epoch, told: false })),
            Err(refused) => Err(refused),
        }
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// A call that was no probe went so; `at` is when it was judged.
    fn tell(&self, call: Call, at: Instant) {
        let bucket = self.state.bucket(at, self.rules.bucket);
        if call.is_good() {
            self.tallies.good(self.mine, bucket);
        } else {
            self.state.bad(call, (at, bucket), &self.tallies, &self.rules.limits, self.standing.as_deref());
        }
    }
}

impl Probe {
    /// It is over.
    fn end(mut self, call: Call, at: Instant) {
        self.told = true;
        let Fuse { state, rules, standing, .. } = &*self.fuse;
        let bucket = state.bucket(at, rules.bucket);
        state.probed(self.epoch, call, (at, bucket), &rules.limits, standing.as_deref());
    }

    fn is_of(&self, fuse: &Arc<Fuse>) -> bool {
        Arc::ptr_eq(&self.fuse, fuse)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.told {
            self.fuse.state.give_back(self.epoch);
        }
    }
}

#[cfg(test)]
mod tests;
