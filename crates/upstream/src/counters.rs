//! Counters of one worker at one endpoint: relaxed atomics that the admin API and the metrics add up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What happened at an endpoint. Written by one worker, read by any.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    attempts: AtomicU64,
    connects: AtomicU64,
    connect_failures: AtomicU64,
    reuses: AtomicU64,
}

impl Counters {
    pub(crate) fn attempt(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connects.fetch_add(1, Relaxed);
    }

    pub(crate) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn reused(&self) {
        self.reuses.fetch_add(1, Relaxed);
    }

    /// Attempts, connects, connect failures, reuses.
    pub(crate) fn read(&self) -> [u64; 4] {
        [&self.attempts, &self.connects, &self.connect_failures, &self.reuses].map(|counter| counter.load(Relaxed))
    }
}
