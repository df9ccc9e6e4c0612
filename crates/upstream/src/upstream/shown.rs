//! What is shown of a choice: effective weights, latencies and tiers in the admin API, and where a request would go.

use std::time::Instant;

use http::HeaderMap;
use pylon_core::exchange::Exchange;

use super::Upstream;
use crate::endpoint::Lane;
use crate::key::KeyBy;
use crate::view::{ChoiceView, TierView};

/// What the workers make of the endpoints, in the order of the set.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// What endpoints weigh now for each other.
    pub(super) weights: Vec<f64>,
    /// The mean of what workers have measured, in milliseconds.
    pub(super) latencies: Vec<Option<f64>>,
    /// Of one worker, where there are several tiers.
    pub(super) tiers: Vec<TierView>,
}

impl Upstream {
    /// What the workers make of the endpoints of the newest set. Empty where none has taken it up yet.
    pub(super) fn shown(&self, generation: u64, now: Instant) -> Shown {
        let mut shown = Shown::default();
        let mut measured: Vec<(f64, u32)> = Vec::new();
        self.workers.each(|_, worker| {
            if worker.generation() != generation {
                return;
            }
            measured.resize(worker.lanes.len(), (0.0, 0));
            for ((sum, count), lane) in measured.iter_mut().zip(&worker.lanes) {
                let latency = lane.gauge.as_ref().map_or(0.0, |gauge| gauge.latency(now));
                if latency > 0.0 {
                    *sum += latency;
                    *count += 1;
                }
            }
            if shown.weights.is_empty() {
                shown.weights = worker.weights(self.slow_start.is_some() || self.orca.is_some());
                shown.tiers = worker.tiers();
            }
        });
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count) * 1000.0);
        shown.latencies = measured.into_iter().map(mean).collect();
        shown
    }

    /// Where a request would go, and why, where that is settled before it comes.
    pub fn choice(&self, headers: &HeaderMap, cx: &Exchange) -> ChoiceView {
        let (wish, now) = (self.wish(headers, cx), tokio::time::Instant::now().into_std());
        self.workers.with(|worker| {
            self.refresh(worker, now);
            let name = |index: usize| worker.lanes.get(index).map(|lane| lane.shown());
            let by_cookie = worker.at_home(self.home(headers), &[]);
            if let Some(endpoint) = by_cookie.and_then(name) {
                return ChoiceView { endpoint: Some(endpoint), why: "its cookie names it".to_owned() };
            }
            let mut free = (0..worker.lanes.len()).filter(|index| worker.is_free(*index, &[]));
            match (free.next(), free.next()) {
                (None, _) => return ChoiceView { endpoint: None, why: "no endpoint may be chosen".to_owned() },
                (Some(only), None) => {
                    return ChoiceView { endpoint: name(only), why: "no other may be chosen".to_owned() };
                }
                _ => {}
            }
            let by = self.key.as_ref().map(KeyBy::in_words);
            match by {
                Some(by) => {
                    let index = worker.choose(wish, true, &[], now);
                    let endpoint = index.and_then(|index| worker.lanes.get(index)).map(|lane| lane.shown());
                    ChoiceView { endpoint, why: format!("its key belongs there (by {by})") }
                }
                None => {
                    let why = format!("{} decides when the request comes", self.method.as_str());
                    ChoiceView { endpoint: None, why }
                }
            }
        })
    }
}

impl Lane {
    /// As the admin API names it.
    fn shown(&self) -> String {
        match &self.path {
            Some(path) => format!("unix:{path}"),
            None => String::from_utf8_lossy(self.authority.as_bytes()).into_owned(),
        }
    }
}
