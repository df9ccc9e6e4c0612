//! What one worker has of an upstream, and how it chooses an endpoint for an attempt.
//!
//! Endpoints stand in tiers, by priority and by how far they are; each tier has a balancer of its own. Which tiers are asked, and
//! what endpoints weigh, changes with verdicts and, where something warms up or is waited for, with time: `due` says when.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use pylon_core::exchange::{Exchange, Trail};

use super::Upstream;
use crate::balance::prequal::Probe;
use crate::balance::tiers::{Shares, Trust};
use crate::balance::{Balancer, Endpoints, orca};
use crate::endpoint::{Lane, Lease, Level};
use crate::error::Fault;
use crate::key;
use crate::probe::Probes;
use crate::sticky::Name;
use crate::view::TierView;

/// What a written weight of 1 is where parts of it count.
pub(super) const WHOLE: f64 = orca::SCALE;

/// What one worker has of an upstream.
#[derive(Debug)]
pub(super) struct Worker {
    /// Its own copy of the name, for the log.
    pub(super) name: Arc<str>,
    pub(super) generation: u64,
    /// The news of standings that `barred` is of.
    pub(super) news: u64,
    /// When something changes by itself.
    pub(super) due: Option<Instant>,
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Which lanes are not to be chosen.
    pub(super) barred: Vec<bool>,
    /// Whether the breaker of one is open, so that it may need a probe.
    pub(super) open: bool,
    /// Since when lanes are there that have not warmed up.
    pub(super) warming: Vec<Option<Instant>>,
    pub(super) tiers: Vec<Tier>,
    pub(super) shares: Shares,
    pub(super) offset: usize,
    /// Requests that have not been told to the retry budget yet.
    pub(super) requests: u32,
}

/// The endpoints of one priority that are equally far.
#[derive(Debug)]
pub(super) struct Tier {
    pub(super) level: Arc<Level>,
    pub(super) balancer: Balancer,
    pub(super) trust: Trust,
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
    pub(super) fn shown_tiers(&self) -> Vec<TierView> {
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
}
