//! What one worker measures of an endpoint for its choice. Written by that worker alone; the admin API reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::balance::ewma::{Ewma, FAILED};

/// What one worker measures of an endpoint.
#[derive(Debug)]
pub(crate) struct Gauge {
    /// From which moment time is counted.
    born: Instant,
    /// The two parts of an [`Ewma`].
    seconds: AtomicU64,
    at: AtomicU64,
}

impl Gauge {
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, seconds: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    /// An attempt took so long; one that failed counts for at least [`FAILED`].
    pub(crate) fn observe(&self, took: Duration, failed: bool, now: Instant) {
        let took = if failed { took.max(FAILED) } else { took };
        let ewma = self.ewma().observe(took, self.nanos(now));
        self.seconds.store(ewma.seconds.to_bits(), Relaxed);
        self.at.store(ewma.at, Relaxed);
    }

    /// The estimate of the latency, in seconds; 0 where nothing is known.
    pub(crate) fn latency(&self, now: Instant) -> f64 {
        self.ewma().now(self.nanos(now))
    }

    fn ewma(&self) -> Ewma {
        Ewma { seconds: f64::from_bits(self.seconds.load(Relaxed)), at: self.at.load(Relaxed) }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_nanos() as u64
    }
}
