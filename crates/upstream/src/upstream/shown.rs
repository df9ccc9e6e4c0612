//! What is shown of an upstream in the admin API, and where a request would go.

use std::sync::atomic::Ordering::Acquire;
use std::time::Instant;

use http::HeaderMap;
use pylon_core::exchange::Exchange;

use super::Upstream;
use crate::concurrency::Limited;
use crate::endpoint::Lane;
use crate::key::KeyBy;
use crate::view::{ChoiceView, EndpointView, TierView, UpstreamView};

/// What the workers make of the endpoints, in the order of the set.
#[derive(Debug, Default)]
struct Shown {
    /// What endpoints weigh now for each other.
    weights: Vec<f64>,
    /// The mean of what workers have measured, in milliseconds.
    latencies: Vec<Option<f64>>,
    /// Of one worker, where there are several tiers.
    tiers: Vec<TierView>,
}

impl Upstream {
    /// What the workers make of the endpoints of the newest set. Empty where none has taken it up yet.
    fn shown(&self, generation: u64, now: Instant) -> Shown {
        let mut shown = Shown::default();
        let mut measured: Vec<(f64, u32)> = Vec::new();
        self.workers.each(|_, worker| {
            if worker.generation != generation {
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
                shown.tiers = worker.shown_tiers();
            }
        });
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count) * 1000.0);
        shown.latencies = measured.into_iter().map(mean).collect();
        shown
    }

    /// What the admin API shows.
    pub fn view(&self) -> UpstreamView {
        let now = tokio::time::Instant::now().into_std();
        let set = self.shared.set.load();
        let shown = self.shown(self.shared.generation.load(Acquire), now);
        let endpoints = set.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let standing = self.shared.standings.of(&endpoint.id);
            let [attempts, connects, connect_failures, reuses] = endpoint.pool.counters();
            let mut view = EndpointView {
                endpoint: endpoint.shown(),
                addresses: if endpoint.path.is_some() { Vec::new() } else { endpoint.addrs.to_vec() },
                weight: endpoint.weight,
                effective_weight: shown.weights.get(index).copied().unwrap_or_else(|| f64::from(endpoint.weight)),
                latency_ms: shown.latencies.get(index).copied().flatten(),
                priority: endpoint.priority,
                barred: self.breakers.heed(standing.bars()).names(),
                breaker: self.breakers.view_of(&standing, now),
                zone: endpoint.whereabouts.zone.as_deref().map(str::to_owned),
                region: endpoint.whereabouts.region.as_deref().map(str::to_owned),
                source: endpoint.source,
                idle: endpoint.pool.idle(),
                connections: endpoint.pool.open(),
                in_flight: endpoint.pool.in_flight(),
                attempts,
                connects,
                connect_failures,
                reuses,
                health: None,
                ejection: None,
            };
            self.shared.judging.show(endpoint, &mut view, now);
            view
        });
        UpstreamView {
            name: self.shared.name.as_str().to_owned(),
            balance: self.method,
            by: self.key.as_ref().map(KeyBy::in_words),
            sticky: self.shared.sticky.as_ref().map(|sticky| sticky.cookie().to_owned()),
            concurrency: self.concurrency.as_ref().map(Limited::view),
            retry_budget: self.shared.budget.left(now, &self.budget),
            panic: self.shared.panics(),
            endpoints: endpoints.collect(),
            tiers: shown.tiers,
            breakers: self.breakers.view(now),
            sources: self.shared.sources.view(now),
            outbound: self.outbound.as_ref().map(|outbound| outbound.view(now)),
        }
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
