//! How an attempt went, as far as it tells of its endpoint: whatever judges endpoints hears of it here, and nowhere else.

use std::time::Instant;

use crate::endpoint::Lane;
use crate::error::{Blame, CallError};

/// How an attempt went. What the client broke off tells nothing, and has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The head of an answer came, with this status.
    Answered(u16),
    /// There was no answer.
    Failed,
}

impl Outcome {
    /// That of an attempt which brought no answer, where it is not the client's doing or our own.
    pub(super) fn of(error: &CallError) -> Option<Self> {
        (error.blame == Blame::Upstream).then_some(Self::Failed)
    }
}

impl Lane {
    /// Takes in how an attempt went that began and ended then.
    pub(super) fn observe(&self, outcome: Outcome, began: Instant, now: Instant) {
        let took = now.saturating_duration_since(began);
        self.measure(began, now, matches!(outcome, Outcome::Failed | Outcome::Answered(500..)));
        if let Outcome::Answered(_) = outcome {
            self.slot.pace.record(took);
        }
        let Some(metrics) = &self.metrics else { return };
        match outcome {
            Outcome::Answered(status) => metrics.answered(status, took),
            Outcome::Failed => metrics.failed(took),
        }
    }
}
