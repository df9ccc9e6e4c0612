//! How a worker takes up what is new: another set of endpoints, other verdicts, and what endpoints weigh as time goes by.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use super::Upstream;
use super::choice::{Tier, WHOLE, Worker};
use crate::balance::tiers::{self, Trust};
use crate::balance::{Balancer, Method, orca, ramp};
use crate::endpoint::{Endpoint, Judged, Lane, Terms};
use crate::gauge::Gauge;
use crate::spec::ProtocolSpec;
use crate::standing::{Bar, Bars};
use crate::verdicts::Verdicts;

/// How often weights are told anew to balancers while an endpoint warms up.
const STEP: Duration = Duration::from_millis(100);
/// How often they are where endpoints report their load (gRFC A58).
const REPORTS: Duration = Duration::from_secs(1);

impl Upstream {
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
