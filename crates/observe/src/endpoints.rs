//! What was found out about the endpoints of an upstream: how many are in which state, and how their checks went.
//!
//! Written by the control plane alone. States are not counted but asked for with each scrape, so that they are always right.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::catalogue::{EJECTIONS, HEALTH_CHECKS, Metric, UPSTREAM_ENDPOINTS, UPSTREAM_PANIC};
use crate::render::{head, labelled};

/// The states of endpoints by the values of the label `state`, in the order in which the first that holds counts.
pub(crate) const STATES: [&str; 4] = ["available", "unhealthy", "ejected", "breaker_open"];
/// How a check ended.
const OUTCOMES: [&str; 2] = ["passed", "failed"];

/// Why an endpoint was ejected.
const REASONS: [&str; 3] = ["failures", "errors", "slow"];

/// The endpoints of one upstream at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointStates {
    /// Those that may be chosen, then those that are `unhealthy`, `ejected` and behind an open breaker.
    pub counts: [u64; STATES.len()],
    /// Whether so few are left that health and ejections are ignored.
    pub panics: bool,
}

type Look = Box<dyn Fn() -> Option<EndpointStates> + Send + Sync>;

/// What was found out about the endpoints of one upstream.
#[derive(Default)]
pub(crate) struct EndpointSeries {
    looks: Mutex<Vec<Look>>,
    /// By [`OUTCOMES`].
    checks: [AtomicU64; OUTCOMES.len()],
    /// By [`REASONS`].
    ejections: [AtomicU64; REASONS.len()],
}

impl EndpointSeries {
    pub(crate) fn look_at(&self, look: Look) {
        let mut looks = self.looks.lock();
        looks.retain(|look| look().is_some());
        looks.push(look);
    }

    pub(crate) fn checked(&self, passed: u64, failed: u64) {
        for (count, more) in self.checks.iter().zip([passed, failed]) {
            count.fetch_add(more, Relaxed);
        }
    }

    pub(crate) fn ejected(&self, reason: usize) {
        if let Some(count) = self.ejections.get(reason) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn states(&self) -> Option<EndpointStates> {
        self.looks.lock().iter().find_map(|look| look())
    }
}

impl fmt::Debug for EndpointSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSeries").field("checks", &self.checks).finish_non_exhaustive()
    }
}

/// Writes the families of all upstreams, which come with their names and in their order.
pub(crate) fn render(out: &mut String, all: &[(&str, &EndpointSeries)]) {
    let states: Vec<_> = all.iter().filter_map(|(name, series)| Some((*name, series.states()?))).collect();
    head(out, &UPSTREAM_ENDPOINTS);
    for (name, found) in &states {
        for (state, count) in STATES.iter().zip(found.counts) {
            labelled(out, &UPSTREAM_ENDPOINTS, &[name, state], count);
        }
    }
    head(out, &UPSTREAM_PANIC);
    for (name, found) in &states {
        labelled(out, &UPSTREAM_PANIC, &[name], found.panics.into());
    }
    head(out, &HEALTH_CHECKS);
    for (name, series) in all {
        counts(out, &HEALTH_CHECKS, name, OUTCOMES, &series.checks);
    }
    head(out, &EJECTIONS);
    for (name, series) in all {
        counts(out, &EJECTIONS, name, REASONS, &series.ejections);
    }
}

/// Those of one upstream, once there is any.
fn counts<const N: usize>(out: &mut String, metric: &Metric, name: &str, labels: [&str; N], counts: &[AtomicU64; N]) {
    let counts = counts.each_ref().map(|count| count.load(Relaxed));
    if counts.iter().any(|count| *count > 0) {
        for (label, count) in labels.into_iter().zip(counts) {
            labelled(out, metric, &[name, label], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_the_first_who_is_still_there() {
        let series = EndpointSeries::default();
        let told = |available| Some(EndpointStates { counts: [available, 0, 0, 0], panics: false });
        let (here, gone) = (std::sync::Arc::new(()), std::sync::Arc::new(()));
        let weak = std::sync::Arc::downgrade(&gone);
        series.look_at(Box::new(move || weak.upgrade().and_then(|_| told(1))));
        let weak = std::sync::Arc::downgrade(&here);
        series.look_at(Box::new(move || weak.upgrade().and_then(|_| told(2))));
        assert_eq!(series.states(), told(1));
        drop(gone);
        assert_eq!(series.states(), told(2));
        drop(here);
        assert_eq!(series.states(), None);
    }
}
