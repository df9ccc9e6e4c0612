//! The counts of one upstream, a shard for each worker; and the way into it for what is not counted but looked at.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pylon_core::attempts::{Hedged, Retried};
use pylon_core::names::UpstreamName;

use crate::breakers::{BreakerCounts, BreakerScope};
use crate::insight::{Inside, Insight, Looks};
use crate::series::{Answers, Sharded, Total, class_of};

/// How a health check ended.
pub(crate) const CHECKS: [&str; 2] = ["passed", "failed"];
/// Why an endpoint was ejected.
pub(crate) const EJECTIONS: [&str; 3] = ["failures", "errors", "slow"];

/// The counts of one upstream, held by the upstream itself.
#[derive(Debug)]
pub struct UpstreamSeries {
    upstream: UpstreamName,
    shards: Sharded<UpstreamShard>,
    /// Its circuit breakers.
    pub breakers: BreakerCounts,
    /// Health checks, by [`CHECKS`].
    checks: [AtomicU64; CHECKS.len()],
    /// Endpoints that were ejected, by [`EJECTIONS`].
    ejections: [AtomicU64; EJECTIONS.len()],
    looks: Looks,
}

impl UpstreamSeries {
    pub(crate) fn new(upstream: UpstreamName) -> Self {
        Self {
            upstream,
            shards: Sharded::new(),
            breakers: BreakerCounts::default(),
            checks: Default::default(),
            ejections: Default::default(),
            looks: Looks::default(),
        }
    }

    /// From now on `inside` is looked into when somebody asks, for as long as it lives.
    pub fn open_to(&self, inside: Weak<dyn Inside>) {
        self.looks.open_to(inside);
    }

    /// What there is to be seen now, where anybody still has the upstream in use.
    pub(crate) fn look(&self, now: Instant) -> Option<Insight> {
        self.looks.look(now)
    }

    /// An endpoint was ejected: for `failures` in a row (0), for too many `errors` (1), or since it is `slow` (2).
    pub fn ejected(&self, reason: usize) {
        if let Some(count) = self.ejections.get(reason) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Health checks are over, of which so many passed and so many failed.
    pub fn checked(&self, passed: u64, failed: u64) {
        for (count, more) in self.checks.iter().zip([passed, failed]) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Checks and ejections, in the order of [`CHECKS`] and [`EJECTIONS`].
    pub(crate) fn verdicts(&self) -> ([u64; CHECKS.len()], [u64; EJECTIONS.len()]) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (self.checks.each_ref().map(read), self.ejections.each_ref().map(read))
    }

    /// The upstream that is counted.
    pub fn upstream(&self) -> &UpstreamName {
        &self.upstream
    }

    /// The shard of the current worker. Cloning it writes no count that another worker writes too.
    pub fn mine(&self) -> &Arc<UpstreamShard> {
        self.shards.mine(|| UpstreamShard::new(self.upstream.as_str()))
    }

    /// What all workers have counted, for the admin API.
    pub fn counts(&self) -> UpstreamCounts {
        let mut counts = UpstreamCounts::default();
        self.shards.each(|shard| {
            // Closed before opened: a connection that opens in between must not make the difference negative.
            let closed = shard.closed.load(Ordering::Acquire);
            let opened = shard.connects.load(Ordering::Relaxed);
            counts.open += opened.saturating_sub(closed);
            counts.connects += opened;
            counts.connect_failures += shard.connect_failures.load(Ordering::Relaxed);
            counts.attempts += shard.answers.sum();
        });
        counts
    }

    pub(crate) fn total(&self) -> Total {
        let mut total = Total::default();
        self.shards.each(|shard| total.add(&shard.answers));
        total
    }

    /// How many attempts open breakers held back, in the order of [`BreakerScope::NAMES`].
    pub(crate) fn held_back(&self) -> [u64; 3] {
        let mut all = [0; 3];
        self.shards.each(|shard| {
            for (sum, count) in all.iter_mut().zip(&shard.held_back) {
                *sum += count.load(Ordering::Relaxed);
            }
        });
        all
    }

    /// What became of retries and hedges, in the order of [`Retried::NAMES`] and [`Hedged::NAMES`].
    pub(crate) fn further(&self) -> Further {
        let mut all = Further::default();
        self.shards.each(|shard| {
            add_up(&mut all.retries, &shard.retries);
            add_up(&mut all.hedges, &shard.hedges);
        });
        all
    }
}

/// What became of retries and hedges, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Further {
    pub(crate) retries: [u64; Retried::NAMES.len()],
    pub(crate) hedges: [u64; Hedged::NAMES.len()],
}

fn add_up(sums: &mut [u64], counts: &[AtomicU64]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count.load(Ordering::Relaxed);
    }
}

/// What became of the connections and attempts of an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct UpstreamCounts {
    /// Attempts that are over, answered or not.
    pub attempts: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Connections that are open now.
    pub open: u64,
}

/// One worker's counts of one upstream, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct UpstreamShard {
    answers: Answers,
    connects: AtomicU64,
    closed: AtomicU64,
    connect_failures: AtomicU64,
    /// By [`BreakerScope`].
    held_back: [AtomicU64; 3],
    /// By [`Retried`].
    retries: [AtomicU64; Retried::NAMES.len()],
    /// By [`Hedged`].
    hedges: [AtomicU64; Hedged::NAMES.len()],
    /// The worker's own copy of the name.
    name: Arc<str>,
}

impl UpstreamShard {
    fn new(name: &str) -> Self {
        Self {
            answers: Answers::default(),
            connects: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            held_back: <[AtomicU64; 3]>::default(),
            retries: <[AtomicU64; _]>::default(),
            hedges: <[AtomicU64; _]>::default(),
            name: name.into(),
        }
    }

    /// The worker's own copy of the upstream's name, for [`Trail::upstream`](pylon_core::exchange::Trail::upstream).
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// An attempt brought the head of an answer, `took` after it began.
    pub fn answered(&self, status: u16, took: Duration) {
        self.answers.count(class_of(status), took);
    }

    /// An attempt failed without an answer, `took` after it began.
    pub fn failed(&self, took: Duration) {
        self.answers.count(0, took);
    }

    /// A connection was made; it counts as open until what this returns is dropped, so keep it with the connection.
    pub fn connected(self: &Arc<Self>) -> OpenUpstreamConnection {
        self.connects.fetch_add(1, Ordering::Relaxed);
        OpenUpstreamConnection(Arc::clone(self))
    }

    /// An open breaker held an attempt back.
    pub fn held_back(&self, scope: BreakerScope) {
        if let Some(count) = self.held_back.get(scope as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection could not be made.
    pub fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// One more attempt was wanted.
    pub fn retried(&self, what: Retried) {
        if let Some(count) = self.retries.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was late, and was to be hedged.
    pub fn hedged(&self, what: Hedged) {
        if let Some(count) = self.hedges.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An open connection to an upstream.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenUpstreamConnection(Arc<UpstreamShard>);

impl Drop for OpenUpstreamConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_two_workers_share_no_cache_line() {
        assert!(align_of::<UpstreamShard>() >= 128);
    }

    #[test]
    fn a_connection_is_open_until_its_guard_is_dropped() {
        let series = UpstreamSeries::new("users".into());
        let (first, second) = (series.mine().connected(), series.mine().connected());
        series.mine().connect_failed();
        drop(first);
        let counts = series.counts();
        assert_eq!((counts.connects, counts.open, counts.connect_failures), (2, 1, 1));
        drop(second);
        assert_eq!(series.counts().open, 0);
    }
}
