//! How an attempt went, as far as it tells of its endpoint: whatever judges endpoints hears of it here, and nowhere else.

use std::time::Instant;

use pylon_core::exchange::Timer;

use crate::breaker::lease::Said;
use crate::endpoint::Lease;
use crate::error::{Blame, CallError, Fault};

/// What an attempt without an answer tells of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    /// Nothing: the client broke it off, or the gateway.
    Ours,
    /// Nothing against it: it closed a connection that idled, or refused a stream that it had not looked at (RFC 9113 §8.7), as
    /// who restarts does.
    Excused,
    /// That it did not answer before the client's own deadline.
    RanOut,
    /// That it failed.
    Failed,
}

impl Missed {
    /// `stale` says that a connection from the pool died under the request, `own_deadline` that the client set the time it has.
    pub(super) fn of(error: &CallError, stale: bool, own_deadline: bool) -> Self {
        match &error.source {
            _ if error.blame != Blame::Upstream => Self::Ours,
            Fault::Refused(_) => Self::Excused,
            _ if stale => Self::Excused,
            Fault::Timeout(timer, _) if own_deadline && *timer == Timer::Total => Self::RanOut,
            _ => Self::Failed,
        }
    }
}

impl Lease {
    /// The head of an answer came, to an attempt that began and ended then.
    pub(super) fn heard(&mut self, said: Said, began: Instant, now: Instant, own_deadline: bool) {
        let (lane, took) = (&self.lane, now.saturating_duration_since(began));
        lane.measure(began, now, said.is_failure());
        lane.slot.pace.record(took);
        if let Some(metrics) = &lane.metrics {
            metrics.answered(said.status(), took);
        }
        self.answered(said, took, now, own_deadline);
    }

    /// There was no answer.
    pub(super) fn missed(&mut self, what: Missed, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        if what != Missed::Ours
            && let Some(metrics) = &self.lane.metrics
        {
            metrics.failed(took);
        }
        match what {
            Missed::Ours | Missed::Excused => {}
            Missed::RanOut => {
                self.lane.measure(began, now, true);
                self.ran_out(took, now);
            }
            Missed::Failed => {
                self.lane.measure(began, now, true);
                self.failed(took, now);
            }
        }
    }
}
