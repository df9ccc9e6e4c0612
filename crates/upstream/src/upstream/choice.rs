//! What one worker has of an upstream, and how it chooses an endpoint for an attempt.
//!
//! Endpoints stand in tiers, by priority and by how far they are; each tier has a balancer of its own. Which tiers are asked, and
//! what endpoints weigh, changes with verdicts and, where something warms up or is waited for, with time: `due` says when.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use http::HeaderMap;
use pylon_core::exchange::{Exchange, Trail};

use super::Upstream;
use crate::balance::prequal::Probe;
use crate::balance::tiers::{self, Shares, Trust};
use crate::balance::{Balancer, Endpoints, Method, orca, ramp};
use crate::endpoint::{Endpoint, Judged, Lane, Lease, Level, Terms};
use crate::error::Fault;
use crate::gauge::Gauge;
use crate::key;
use crate::probe::Probes;
use crate::spec::ProtocolSpec;
use crate::standing::{Bar, Bars};
use crate::sticky::Name;
use crate::verdicts::Verdicts;
use crate::view::TierView;

/// How often weights are told anew to balancers while an endpoint warms up.
const STEP: Duration = Duration::from_millis(100);
/// How often they are where endpoints report their load (gRFC A58).
const REPORTS: Duration = Duration::from_secs(1);
/// What a written weight of 1 is where parts of it count.
const WHOLE: f64 = orca::SCALE;

/// What one worker has of an upstream.
#[derive(Debug)]
pub(super) struct Worker {
    /// Its own copy of the name, for the log.
    pub(super) name: Arc<str>,
    generation: u64,
    /// The news of standings that `barred` is of.
    news: u64,
    /// When something changes by itself.
    due: Option<Instant>,
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Which lanes are not to be chosen.
    pub(super) barred: Vec<bool>,
    /// Whether the breaker of one is open, so that it may need a probe.
    open: bool,
    /// Since when lanes are there that have not warmed up.
    warming: Vec<Option<Instant>>,
    tiers: Vec<Tier>,
    shares: Shares,
    offset: usize,
    /// Requests that have not been told to the retry budget yet.
    pub(super) requests: u32,
}

/// The endpoints of one priority that are equally far.
#[derive(Debug)]
struct Tier {
    level: Arc<Level>,
    balancer: Balancer,
    trust: Trust,
}

/// What a request says of where it is to go. Nothing, where nobody asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The hash of the key that decides.
    key: u64,
}

/// The lanes of a tier, as its balancer sees them.
struct Seen<'a> {
    members: &'a [usize],
    lanes: &'a [Arc<Lane>],
    barred: &'a [bool],
    tried: &'a [usize],
    now: Instant,
}

impl Seen<'_> {
    fn lane(&self, index: usize) -> Option<&Lane> {
        self.lanes.get(*self.members.get(index)?).map(|lane| &**lane)
    }
}

impl Endpoints for Seen<'_> {
    fn is_barred(&self, index: usize) -> bool {
        self.members.get(index).is_none_or(|member| self.barred.get(*member).copied().unwrap_or(true))
    }

    fn was_tried(&self, index: usize) -> bool {
        !self.tried.is_empty() && self.lane(index).is_some_and(|lane| self.tried.contains(&lane.id()))
    }

    fn load(&self, index: usize) -> u32 {
        self.lane(index).map_or(0, Lane::load)
    }

    fn latency(&self, index: usize) -> f64 {
        self.lane(index).and_then(|lane| lane.gauge.as_ref()).map_or(0.0, |gauge| gauge.latency(self.now))
    }
}

impl Worker {
    pub(super) fn new(name: &str, offset: usize) -> Self {
        Self {
            name: Arc::from(name),
            generation: 0,
            news: 0,
            due: None,
            lanes: Vec::new(),
            barred: Vec::new(),
            open: false,
            warming: Vec::new(),
            tiers: Vec::new(),
            shares: Shares::default(),
            offset,
            requests: 0,
        }
    }

    /// The generation of the set that it has taken up.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What endpoints weigh now, in the order of the set.
    pub(super) fn weights(&self, in_parts: bool) -> Vec<f64> {
        let unit = if in_parts { WHOLE } else { 1.0 };
        let mut all = vec![0.0; self.lanes.len()];
        for Tier { level, balancer, .. } in &self.tiers {
            for (member, weight) in level.members.iter().zip(balancer.weights()) {
                all.get_mut(*member).into_iter().for_each(|place| *place = f64::from(*weight) / unit);
            }
        }
        all
    }

    /// Takes in what endpoints have answered to probes.
    fn hear(&mut self, probes: &Probes, now: Instant) {
        let (tiers, own) = (&mut self.tiers, self.generation);
        probes.collect(|generation, probe| {
            for Tier { level, balancer, .. } in tiers.iter_mut().filter(|_| generation == own) {
                if let Ok(index) = level.members.binary_search(&probe.index) {
                    balancer.learn(Probe { index, ..probe });
                }
            }
        });
        let now = probes.nanos(now);
        for tier in tiers.iter_mut() {
            tier.balancer.age(now);
        }
    }

    /// The tiers, where there are several.
    pub(super) fn tiers(&self) -> Vec<TierView> {
        let parts = self.shares.parts.iter().copied().chain(std::iter::repeat(0));
        let view = |(tier, requests): (&Tier, u32)| TierView {
            priority: tier.level.rank.0,
            distance: tier.level.rank.1,
            endpoints: tier.level.members.len(),
            trusted: tier.trust.counted(),
            requests,
        };
        if self.tiers.len() < 2 { Vec::new() } else { self.tiers.iter().zip(parts).map(view).collect() }
    }

    /// The lane of the endpoint that a request was at before, if it may go there.
    pub(super) fn at_home(&self, home: Option<Name>, tried: &[usize]) -> Option<usize> {
        let name = home?;
        let index = self.lanes.iter().position(|lane| lane.name == Some(name))?;
        self.is_free(index, tried).then_some(index)
    }

    /// The lane for an attempt.
    pub(super) fn choose(&mut self, wish: Wish, keyed: bool, tried: &[usize], now: Instant) -> Option<usize> {
        let lot = match self.shares.only() {
            Some(_) => 0,
            // A key stays in its tier as long as the parts stand.
            None if keyed => wish.key.rotate_left(17),
            None => fastrand::u64(..),
        };
        let first = self.shares.tier(lot);
        let picked = self.pick_in(first, wish, tried, now);
        if self.tiers.len() < 2 || picked.is_some_and(|index| self.is_free(index, tried)) {
            return picked;
        }
        // What was tried comes last, that of other tiers included.
        let mut others = (0..self.tiers.len()).filter(|tier| *tier != first);
        let other =
            others.find_map(|tier| self.pick_in(tier, wish, tried, now).filter(|index| self.is_free(*index, tried)));
        other.or(picked)
    }

    fn pick_in(&mut self, tier: usize, wish: Wish, tried: &[usize], now: Instant) -> Option<usize> {
        let Self { tiers, lanes, barred, .. } = self;
        let Tier { level, balancer, .. } = tiers.get_mut(tier)?;
        let members = &level.members;
        let index = balancer.pick(&Seen { members, lanes, barred, tried, now }, wish.key, || fastrand::u64(..))?;
        members.get(index).copied()
    }

    /// Whether a lane may be chosen and was not tried.
    pub(super) fn is_free(&self, index: usize, tried: &[usize]) -> bool {
        let barred = self.barred.get(index).copied().unwrap_or(true);
        !barred && (tried.is_empty() || self.lanes.get(index).is_some_and(|lane| !tried.contains(&lane.id())))
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

    /// The endpoint that a client is to stay at. Not kept from one attempt to the next, since what lives across a wait is counted for
    /// every connection.
    pub(crate) fn home(&self, headers: &HeaderMap) -> Option<Name> {
        self.shared.sticky.as_ref()?.find(headers)
    }

    /// Chooses an endpoint, one that was not `tried` where there is one; that at `home` before all others.
    pub(crate) fn pick(
        &self,
        wish: Wish,
        home: Option<Name>,
        tried: &[usize],
        now: Instant,
        trail: &mut Trail,
    ) -> Result<Lease, Fault> {
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
            if let Some(probes) = &self.probes {
                worker.hear(probes, now);
            }
            let index = worker.at_home(home, tried).or_else(|| worker.choose(wish, self.key.is_some(), tried, now))?;
            worker.lanes.get(index).map(Lease::begin)
        });
        let lease = lease.ok_or_else(|| self.nobody(now))?;
        lease.lane.slot.counters.attempt();
        Ok(lease)
    }

    /// How endpoints are probed, where they are.
    pub(crate) fn probes(&self) -> Option<&Probes> {
        self.probes.as_ref()
    }

    /// An endpoint that may be chosen, by lot, with the generation of the set and its index there: for a probe.
    pub(crate) fn any_lane(&self) -> Option<(u64, usize, Arc<Lane>)> {
        self.workers.with(|worker| {
            self.refresh(worker, tokio::time::Instant::now().into_std());
            let index = fastrand::usize(..worker.lanes.len().max(1));
            let lane = worker.lanes.get(index).filter(|_| worker.is_free(index, &[]))?;
            Some((worker.generation, index, Arc::clone(lane)))
        })
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
        } else if worker.news == news && worker.due.is_none_or(|due| now < due) {
            return;
        }
        worker.news = news;
        self.judge(worker, now);
        self.weigh(worker, now);
    }

    /// Takes up the newest set.
    fn take_up(&self, worker: &mut Worker, generation: u64, now: Instant) {
        let set = self.shared.set.load();
        worker.generation = generation;
        let before = std::mem::take(&mut worker.lanes);
        let known = |lane: &Lane| before.iter().position(|other| Arc::ptr_eq(&other.slot, &lane.slot));
        worker.lanes = set.endpoints.iter().filter_map(|endpoint| self.lane(endpoint, &before, now)).collect();
        let warming = worker.lanes.iter().map(|lane| match known(lane) {
            Some(index) => worker.warming.get(index).copied().flatten(),
            None => lane.joined,
        });
        worker.warming = warming.collect();
        let barred = worker.lanes.iter().map(|lane| known(lane).and_then(|index| worker.barred.get(index).copied()));
        worker.barred = barred.map(|barred| barred.unwrap_or(false)).collect();
        let tiers = set.levels.iter().map(|level| {
            let weights = level.members.iter().map(|member| set.endpoints.get(*member).map_or(1, |one| one.weight));
            let balancer = Balancer::new(self.method, weights, worker.offset).with_table(level.table.clone());
            // A tier that was there before has the trust that it had.
            let same = worker.tiers.iter().find(|tier| tier.level.rank == level.rank);
            Tier { level: Arc::clone(level), balancer, trust: same.map_or_else(|| Trust::new(100), |tier| tier.trust) }
        });
        worker.tiers = tiers.collect();
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
        let measures = self.method == Method::Ewma || self.orca.is_some();
        let new = || measures.then(|| Arc::new(Gauge::new(now)));
        let terms = Terms {
            limits: self.limits,
            shared: self.method == Method::LeastRequest,
            http2: self.protocol == ProtocolSpec::Http2,
            tells: self.tells,
        };
        Some(Lane::of(endpoint, slot, judged, metrics, measured.unwrap_or_else(new), terms))
    }

    /// Says which lanes are not to be chosen, and which tiers are asked.
    fn judge(&self, worker: &mut Worker, now: Instant) {
        let bars: Vec<Bars> = worker.lanes.iter().map(|lane| self.breakers.heed(lane.standing.bars())).collect();
        worker.open = bars.iter().any(|bars| bars.has(Bar::Open));
        let levels: Vec<_> = worker.tiers.iter().map(|tier| Arc::clone(&tier.level)).collect();
        let weight = |index: usize| worker.lanes.get(index).map_or(1, |lane| lane.weight);
        let Verdicts { barred, there, mut shares, .. } =
            Verdicts::new(&levels, weight, &bars, self.shared.judging.panic);
        for (tier, there) in worker.tiers.iter_mut().zip(&there) {
            tier.trust.update(*there, now, self.hold);
        }
        if shares.enough && worker.tiers.len() > 1 {
            let trusted: Vec<u32> = worker.tiers.iter().map(|tier| tier.trust.counted()).collect();
            // Whom nobody trusts yet is better than nobody.
            shares = Some(tiers::shares(&trusted)).filter(|shares| shares.enough).unwrap_or(shares);
        }
        worker.shares = shares;
        let before = std::mem::replace(&mut worker.barred, barred);
        for ((warming, was), is) in worker.warming.iter_mut().zip(before).zip(&worker.barred) {
            if was && !is {
                *warming = Some(now);
            }
        }
        let waits = worker.tiers.iter().filter_map(|tier| tier.trust.due(self.hold));
        worker.due = waits.min().filter(|_| worker.tiers.len() > 1);
    }

    /// Tells the balancers what endpoints weigh now, where that changes with time.
    fn weigh(&self, worker: &mut Worker, now: Instant) {
        if self.slow_start.is_none() && self.orca.is_none() {
            return;
        }
        let mut warms = false;
        let Worker { lanes, warming, tiers, .. } = worker;
        let span = self.slow_start.unwrap_or_default();
        for warming in warming.iter_mut() {
            *warming = warming.filter(|since| now.saturating_duration_since(*since) < span);
            warms |= warming.is_some();
        }
        for Tier { level, balancer, .. } in tiers {
            let lane = |member: &usize| lanes.get(*member);
            let reported = self.orca.and_then(|bounds| {
                let earned = |member| lane(member)?.gauge.as_ref()?.earned(bounds, now);
                orca::weights(&level.members.iter().map(earned).collect::<Vec<_>>())
            });
            let weights = level.members.iter().enumerate().map(|(index, member)| {
                let written = || lane(member).map_or(1.0, |lane| f64::from(lane.weight)) * WHOLE;
                let whole = reported.as_ref().and_then(|all| all.get(index).copied()).unwrap_or_else(written);
                let since = warming.get(*member).copied().flatten();
                (whole * since.map_or(1.0, |since| ramp::part(now.saturating_duration_since(since), span))) as u32
            });
            balancer.reweigh(weights);
        }
        let next = [warms.then_some(STEP), self.orca.map(|_| REPORTS)].into_iter().flatten().min();
        worker.due = [worker.due, next.map(|step| now + step)].into_iter().flatten().min();
    }
}
