//! What one worker has of an upstream, and how it chooses an endpoint for an attempt.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::Instant;

use http::HeaderMap;
use pylon_core::exchange::{Exchange, Trail};

use super::Upstream;
use crate::balance::{Balancer, Endpoints, Method};
use crate::endpoint::{Endpoint, EndpointSet, Judged, Lane, Lease, Terms};
use crate::error::Fault;
use crate::gauge::Gauge;
use crate::key;
use crate::spec::ProtocolSpec;
use crate::standing::{Bar, barred};

/// What one worker has of an upstream.
#[derive(Debug)]
pub(super) struct Worker {
    /// Its own copy of the name, for the log.
    pub(super) name: Arc<str>,
    generation: u64,
    /// The news of standings that `barred` is of.
    news: u64,
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Which lanes are not to be chosen.
    pub(super) barred: Vec<bool>,
    /// Whether the breaker of one is open, so that it may need a probe.
    open: bool,
    balancer: Balancer,
    offset: usize,
    /// Requests that have not been told to the retry budget yet.
    pub(super) requests: u32,
}

impl Worker {
    pub(super) fn new(name: &str, offset: usize) -> Self {
        Self {
            name: Arc::from(name),
            generation: 0,
            news: 0,
            lanes: Vec::new(),
            barred: Vec::new(),
            open: false,
            balancer: Balancer::new(Method::RoundRobin, [], offset),
            offset,
            requests: 0,
        }
    }
}

/// What a request says of where it is to go. Nothing, where nobody asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The hash of the key that decides.
    key: u64,
}

/// The lanes of a worker, as its balancer sees them.
struct Seen<'a> {
    lanes: &'a [Arc<Lane>],
    barred: &'a [bool],
    tried: &'a [usize],
    now: Instant,
}

impl Endpoints for Seen<'_> {
    fn is_barred(&self, index: usize) -> bool {
        self.barred.get(index).copied().unwrap_or(false)
    }

    fn was_tried(&self, index: usize) -> bool {
        !self.tried.is_empty() && self.lanes.get(index).is_some_and(|lane| self.tried.contains(&lane.id()))
    }

    fn load(&self, index: usize) -> u32 {
        self.lanes.get(index).map_or(0, |lane| lane.load())
    }

    fn latency(&self, index: usize) -> f64 {
        self.lanes.get(index).and_then(|lane| lane.gauge.as_ref()).map_or(0.0, |gauge| gauge.latency(self.now))
    }
}

impl Upstream {
    /// Names this upstream in the trail of an exchange that comes no further.
    pub(crate) fn name_in(&self, trail: &mut Trail) {
        trail.upstream = Some(self.workers.with(|worker| Arc::clone(&worker.name)));
    }

    /// What a request says of where it is to go.
    pub(crate) fn wish(&self, headers: &HeaderMap, cx: &Exchange) -> Wish {
        self.key.as_ref().map_or_else(Wish::default, |by| Wish { key: by.hash(headers, cx) })
    }

    /// What a connection says that carries no request.
    pub(crate) fn wish_of(&self, client: IpAddr) -> Wish {
        self.key.as_ref().map_or_else(Wish::default, |_| Wish { key: key::of_client(client) })
    }

    /// Chooses an endpoint, one that was not `tried` where there is one.
    pub(crate) fn pick(&self, wish: Wish, tried: &[usize], now: Instant, trail: &mut Trail) -> Result<Lease, Fault> {
        let lease = self.workers.with(|worker| {
            self.refresh(worker, now);
            if trail.upstream.is_none() {
                trail.upstream = Some(Arc::clone(&worker.name));
            }
            if tried.is_empty() {
                worker.requests = worker.requests.saturating_add(1);
            }
            if worker.open
                && let Some(lease) = worker.probe(tried, now)
            {
                return Some(lease);
            }
            let Worker { lanes, barred, balancer, .. } = worker;
            let index = balancer.pick(&Seen { lanes, barred, tried, now }, wish.key, || fastrand::u64(..))?;
            lanes.get(index).map(Lease::begin)
        });
        let lease = lease.ok_or_else(|| self.nobody(now))?;
        lease.lane.slot.counters.attempt();
        Ok(lease)
    }

    /// How many endpoints this worker knows.
    pub(crate) fn endpoints(&self) -> usize {
        self.workers.with(|worker| worker.lanes.len())
    }

    /// Brings a worker up to the newest set and the newest verdicts. Two loads where nothing changed.
    pub(super) fn refresh(&self, worker: &mut Worker, now: Instant) {
        let (generation, news) = (self.shared.generation.load(Acquire), self.shared.standings.news());
        if worker.generation != generation {
            self.take_up(worker, generation, now);
        } else if worker.news == news {
            return;
        }
        worker.news = news;
        let bars: Vec<_> = worker.lanes.iter().map(|lane| self.breakers.heed(lane.standing.bars())).collect();
        worker.open = bars.iter().any(|bars| bars.has(Bar::Open));
        worker.barred = barred(&bars, self.shared.judging.panic);
    }

    /// Takes up the newest set.
    fn take_up(&self, worker: &mut Worker, generation: u64, now: Instant) {
        let set = self.shared.set.load();
        worker.generation = generation;
        let before = std::mem::take(&mut worker.lanes);
        worker.lanes = set.endpoints.iter().filter_map(|endpoint| self.lane(endpoint, &before, now)).collect();
        worker.balancer = self.balancer(&set, worker.offset);
    }

    /// The current worker's lane to an endpoint. What it has measured stays.
    fn lane(&self, endpoint: &Endpoint, before: &[Arc<Lane>], now: Instant) -> Option<Arc<Lane>> {
        let standing = self.shared.standings.of(&endpoint.id);
        let fuses = self.breakers.fuses(&endpoint.id, &standing, self.series.as_ref());
        let watched = self.shared.judging.watch(endpoint, &self.shared);
        let judged = Judged { standing, fuses, watched };
        let metrics = self.series.as_ref().map(|series| series.mine());
        let slot = endpoint.pool.mine()?;
        let measured = before.iter().find(|lane| Arc::ptr_eq(&lane.slot, slot)).map(|lane| lane.gauge.clone());
        let new = || (self.method == Method::Ewma).then(|| Arc::new(Gauge::new(now)));
        let terms = Terms {
            limits: self.limits,
            shared: self.method == Method::LeastRequest,
            http2: self.protocol == ProtocolSpec::Http2,
            tells: self.tells,
        };
        Some(Lane::of(endpoint, slot, judged, metrics, measured.unwrap_or_else(new), terms))
    }

    fn balancer(&self, set: &EndpointSet, offset: usize) -> Balancer {
        let weights = set.endpoints.iter().map(|endpoint| endpoint.weight);
        Balancer::new(self.method, weights, offset).with_table(set.table.clone())
    }
}
