//! What one worker measures of an endpoint for its choice. Written by that worker alone; the admin API reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::balance::ewma::{Ewma, FAILED};
use crate::balance::orca::{Bounds, Earned, Report};

/// What one worker measures of an endpoint.
#[derive(Debug)]
pub(crate) struct Gauge {
    /// From which moment time is counted.
    born: Instant,
    /// The two parts of an [`Ewma`].
    seconds: AtomicU64,
    at: AtomicU64,
    /// The three parts of an [`Earned`].
    earned: [AtomicU64; 3],
}

impl Gauge {
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, seconds: AtomicU64::new(0), at: AtomicU64::new(0), earned: Default::default() }
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

    /// The endpoint has reported its load.
    pub(crate) fn report(&self, report: &Report, bounds: Bounds, now: Instant) {
        let Earned { weight, since, at } = self.reported().report(report, bounds, self.nanos(now));
        for (place, part) in self.earned.iter().zip([weight.to_bits(), since, at]) {
            place.store(part, Relaxed);
        }
    }

    /// The weight that its reports make now.
    pub(crate) fn earned(&self, bounds: Bounds, now: Instant) -> Option<f64> {
        self.reported().now(bounds, self.nanos(now))
    }

    fn reported(&self) -> Earned {
        let [weight, since, at] = self.earned.each_ref().map(|part| part.load(Relaxed));
        Earned { weight: f64::from_bits(weight), since, at }
    }

    fn ewma(&self) -> Ewma {
        Ewma { seconds: f64::from_bits(self.seconds.load(Relaxed)), at: self.at.load(Relaxed) }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_nanos() as u64
    }
}
