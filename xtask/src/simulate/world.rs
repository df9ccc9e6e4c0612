//! A world in which requests arrive, are sent where a balancer says, wait for a place there and are served: by events, in
//! simulated time, the same for the same seed.
//!
//! Each endpoint is a semaphore and a queue behind it; the time of a request is drawn (exponential, around the endpoint's mean). A
//! gateway has several workers, each with a balancer of its own, as in the real one.

#![expect(clippy::indexing_slicing, reason = "endpoints and workers are counted from 0, and none comes or goes")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use pylon_upstream::balance::Method;

use super::worker::Worker;

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;
/// How long a client waits, at the most.
pub(super) const PATIENCE: u64 = 5 * SECOND;
/// How many workers the gateway has.
const WORKERS: usize = 4;
/// From the gateway to an endpoint and back: probes take as long.
const ROUND_TRIP: u64 = 300_000;
/// What is not counted, while everybody learns.
pub(super) const WARM_UP: u64 = 15 * SECOND;

/// One endpoint as a scenario describes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    /// How many requests it serves at once.
    pub(super) places: u32,
    /// How long one takes on average, in milliseconds.
    pub(super) millis: f64,
    /// How many times slower it is in the middle third.
    pub(super) slows: f64,
}

/// What is simulated.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) sites: Vec<Site>,
    /// The part of the capacity that the requests take.
    pub(super) load: f64,
    /// How long, warm-up included.
    pub(super) seconds: u64,
}

impl Scenario {
    /// Requests a second that the endpoints can serve at the most.
    pub(super) fn capacity(&self) -> f64 {
        self.sites.iter().map(|site| f64::from(site.places) / site.millis * 1000.0).sum()
    }
}

/// How endpoints are chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) method: Method,
    /// Whether weights come of reports.
    pub(super) orca: bool,
}

/// What came of it: how long each counted request took, in nanoseconds, sorted; and how many were given up.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) times: Vec<u64>,
    pub(super) given_up: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    /// A place of an endpoint is free again.
    Done {
        site: usize,
        request: Request,
    },
    Probe {
        site: usize,
        worker: usize,
    },
    /// A second has passed.
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    worker: usize,
    arrived: u64,
    /// How many were in flight at the endpoint when it came there.
    met: usize,
}

/// One endpoint at work.
#[derive(Debug)]
pub(super) struct Endpoint {
    site: Site,
    busy: u32,
    queue: VecDeque<Request>,
    /// How long requests took lately, in seconds, by how many were in flight when they came.
    lately: Vec<f64>,
    /// Served in this second, and the time for which places were busy.
    served: u64,
    busy_nanos: u64,
}

impl Endpoint {
    /// Requests in flight: those that are served and those that wait.
    pub(super) fn rif(&self) -> u32 {
        self.busy + self.queue.len() as u32
    }

    fn learn(&mut self, met: usize, seconds: f64) {
        if self.lately.len() <= met {
            self.lately.resize(met + 1, 0.0);
        }
        let known = &mut self.lately[met];
        *known = if *known > 0.0 { *known + (seconds - *known) * 0.1 } else { seconds };
    }

    /// How long a request is expected to take that comes now: as those did which met as many in flight, or the next fewer of
    /// which something is known (§4 of the paper).
    fn latency(&self) -> f64 {
        let rif = self.rif() as usize;
        self.lately.iter().take(rif + 1).rev().find(|seconds| **seconds > 0.0).copied().unwrap_or(0.0)
    }

    /// What it reports of the last second: requests, and the part of its places that were busy.
    pub(super) fn report(&mut self) -> (f64, f64) {
        let places = u64::from(self.site.places) * SECOND;
        let used = self.busy_nanos as f64 / places as f64;
        let served = std::mem::take(&mut self.served);
        self.busy_nanos = 0;
        (served as f64, used)
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Breaks ties, so that a run is the same each time.
    number: u64,
    now: u64,
    random: fastrand::Rng,
    endpoints: Vec<Endpoint>,
    workers: Vec<Worker>,
    outcome: Outcome,
}

/// Plays a scenario through.
pub(super) fn run(scenario: &Scenario, way: Way, seed: u64) -> Outcome {
    let endpoint = |site: &Site| Endpoint {
        site: *site,
        busy: 0,
        queue: VecDeque::new(),
        lately: Vec::new(),
        served: 0,
        busy_nanos: 0,
    };
    let mut world = World {
        scenario,
        events: BinaryHeap::new(),
        number: 0,
        now: 0,
        random: fastrand::Rng::with_seed(seed),
        endpoints: scenario.sites.iter().map(endpoint).collect(),
        workers: (0..WORKERS).map(|worker| Worker::new(way, scenario.sites.len(), worker)).collect(),
        outcome: Outcome { times: Vec::new(), given_up: 0 },
    };
    world.later(0, Event::Arrival);
    world.later(SECOND, Event::Tick);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        if at > scenario.seconds * SECOND {
            break;
        }
        world.now = at;
        world.happen(event);
    }
    // Who still waits has waited for so long.
    let waiting: Vec<Request> = world.endpoints.iter().flat_map(|endpoint| endpoint.queue.iter().copied()).collect();
    for request in waiting {
        world.count(request);
    }
    world.outcome.times.sort_unstable();
    world.outcome
}

impl World<'_> {
    fn later(&mut self, span: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + span, self.number, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Done { site, request } => self.done(site, request),
            Event::Probe { site, worker } => {
                let (rif, latency) = (self.endpoints[site].rif(), self.endpoints[site].latency());
                self.workers[worker].learn(site, rif, latency, self.now);
            }
            Event::Tick => {
                let reports: Vec<_> = self.endpoints.iter_mut().map(Endpoint::report).collect();
                let now = self.now;
                self.workers.iter_mut().for_each(|worker| worker.tick(&reports, now));
                self.later(SECOND, Event::Tick);
            }
        }
    }

    /// A request arrives, and the next one is drawn (exponential pauses).
    fn arrive(&mut self) {
        let rate = self.scenario.capacity() * self.scenario.load;
        let pause = -(1.0 - self.random.f64()).ln() / rate;
        self.later((pause * SECOND as f64) as u64, Event::Arrival);
        let worker = self.random.usize(0..WORKERS);
        let request = Request { worker, arrived: self.now, met: 0 };
        let loads: Vec<u32> = (0..self.endpoints.len())
            .map(|site| self.workers.iter().map(|worker| worker.under_way(site)).sum())
            .collect();
        let random = &mut self.random;
        let Some(site) = self.workers[worker].choose(&loads, self.now, || random.u64(..)) else { return };
        for _ in 0..self.workers[worker].probes() {
            let probed = self.random.usize(0..self.endpoints.len());
            self.later(ROUND_TRIP, Event::Probe { site: probed, worker });
        }
        let endpoint = &mut self.endpoints[site];
        let met = endpoint.rif() as usize;
        endpoint.queue.push_back(Request { met, ..request });
        self.serve(site);
    }

    /// Begins with what waits, for as long as places are free.
    fn serve(&mut self, site: usize) {
        loop {
            let (now, total) = (self.now, self.scenario.seconds * SECOND);
            let endpoint = &mut self.endpoints[site];
            if endpoint.busy >= endpoint.site.places {
                return;
            }
            let Some(request) = endpoint.queue.pop_front() else { return };
            endpoint.busy += 1;
            let middle = now * 3 > total && now * 3 < total * 2;
            let slows = if middle { endpoint.site.slows } else { 1.0 };
            let mean = endpoint.site.millis * slows / 1000.0;
            let took = (-(1.0 - self.random.f64()).ln() * mean * SECOND as f64) as u64;
            endpoint.busy_nanos += took;
            self.later(took, Event::Done { site, request });
        }
    }

    fn done(&mut self, site: usize, request: Request) {
        let took = self.now - request.arrived;
        let endpoint = &mut self.endpoints[site];
        endpoint.busy -= 1;
        endpoint.served += 1;
        endpoint.learn(request.met, took as f64 / SECOND as f64);
        self.workers[request.worker].done(site, took, self.now);
        self.count(request);
        self.serve(site);
    }

    fn count(&mut self, request: Request) {
        if request.arrived < WARM_UP {
            return;
        }
        let took = self.now.saturating_sub(request.arrived);
        self.outcome.given_up += usize::from(took > PATIENCE);
        self.outcome.times.push(took.min(PATIENCE));
    }
}
