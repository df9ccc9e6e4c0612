//! One worker of the simulated gateway: the real balancer, fed as the real gateway feeds it.

#![expect(clippy::indexing_slicing, reason = "endpoints and workers are counted from 0, and none comes or goes")]

use std::time::Duration;

use pylon_upstream::balance::ewma::Ewma;
use pylon_upstream::balance::orca::{self, Bounds, Earned, Report};
use pylon_upstream::balance::prequal::{PROBES, Probe};
use pylon_upstream::balance::{Balancer, Endpoints, Method};

use super::world::Way;

const BOUNDS: Bounds = Bounds { blackout: Duration::from_secs(10), expiry: Duration::from_secs(180) };

pub(super) struct Worker {
    way: Way,
    balancer: Balancer,
    under_way: Vec<u32>,
    latencies: Vec<Ewma>,
    earned: Vec<Earned>,
}

/// Endpoints as the balancer sees them.
struct Seen<'a> {
    loads: &'a [u32],
    latencies: &'a [Ewma],
    now: u64,
}

impl Endpoints for Seen<'_> {
    fn is_barred(&self, _: usize) -> bool {
        false
    }

    fn was_tried(&self, _: usize) -> bool {
        false
    }

    fn load(&self, index: usize) -> u32 {
        self.loads[index]
    }

    fn latency(&self, index: usize) -> f64 {
        self.latencies[index].now(self.now)
    }
}

impl Worker {
    pub(super) fn new(way: Way, endpoints: usize, number: usize) -> Self {
        Self {
            way,
            balancer: Balancer::new(way.method, vec![1; endpoints], number),
            under_way: vec![0; endpoints],
            latencies: vec![Ewma::default(); endpoints],
            earned: vec![Earned::default(); endpoints],
        }
    }

    pub(super) fn under_way(&self, site: usize) -> u32 {
        self.under_way[site]
    }

    /// How many probes each request sends.
    pub(super) fn probes(&self) -> u32 {
        if self.way.method == Method::Prequal { PROBES } else { 0 }
    }

    /// Where a request goes. `all` is what all workers have under way.
    pub(super) fn choose(&mut self, all: &[u32], now: u64, random: impl FnMut() -> u64) -> Option<usize> {
        let loads = if self.way.method == Method::LeastRequest { all } else { &self.under_way };
        let seen = Seen { loads, latencies: &self.latencies, now };
        self.balancer.age(now);
        let site = self.balancer.pick(&seen, 0, random)?;
        self.under_way[site] += 1;
        Some(site)
    }

    pub(super) fn learn(&mut self, index: usize, rif: u32, latency: f64, at: u64) {
        self.balancer.learn(Probe { index, rif, latency, at });
    }

    pub(super) fn done(&mut self, site: usize, took: u64, now: u64) {
        self.under_way[site] -= 1;
        self.latencies[site] = self.latencies[site].observe(Duration::from_nanos(took), now);
    }

    /// A second has passed: requests and use of each endpoint.
    pub(super) fn tick(&mut self, reports: &[(f64, f64)], now: u64) {
        if !self.way.orca {
            return;
        }
        for (earned, (requests, used)) in self.earned.iter_mut().zip(reports) {
            let text = format!("TEXT rps_fractional={requests},application_utilization={used}");
            if let Some(report) = Report::parse(text.as_bytes()) {
                *earned = earned.report(&report, BOUNDS, now);
            }
        }
        let known: Vec<_> = self.earned.iter().map(|earned| earned.now(BOUNDS, now)).collect();
        if let Some(weights) = orca::weights(&known) {
            self.balancer.reweigh(weights.into_iter().map(|weight| weight as u32));
        }
    }
}
