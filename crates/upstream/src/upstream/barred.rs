//! Endpoints whose breaker is open: when one is given a probe, and what is told where no other is left.

use std::sync::Arc;
use std::time::Instant;

use pylon_core::exchange::Trail;

use super::Upstream;
use super::choice::Worker;
use crate::breaker::spec::Scope;
use crate::endpoint::{Endpoint, Lease};
use crate::error::Fault;
use crate::standing::{Bar, Bars, Standings};

impl Worker {
    /// An endpoint whose breaker lets a probe through now. Who was elsewhere before is no probe, unless nobody else is left.
    pub(super) fn probe(&self, tried: &[usize], now: Instant) -> Option<Lease> {
        if !tried.is_empty() && self.barred.iter().any(|barred| !barred) {
            return None;
        }
        self.lanes.iter().find_map(|lane| {
            let fuse = lane.fuses.first()?.as_ref()?;
            let bars = lane.standing.bars();
            if !bars.has(Bar::Open) || bars.any_but(Bars::OPEN) || tried.contains(&lane.id()) {
                return None;
            }
            let probe = fuse.admit(now).ok()?;
            let mut lease = Lease::begin(lane);
            if let Some(probe) = probe {
                lease.pass.probe(probe);
            }
            Some(lease)
        })
    }
}

impl Upstream {
    /// Why none can be chosen.
    pub(super) fn nobody(&self, now: Instant) -> Fault {
        let soonest = self.workers.with(|worker| {
            let open = worker.lanes.iter().filter(|lane| self.breakers.heed(lane.standing.bars()).has(Bar::Open));
            let states = open.filter_map(|lane| lane.fuses.first()?.as_ref()).map(|fuse| fuse.state());
            let spans = states.map(|state| state.opens_in(state.word(), now));
            spans.reduce(|one, other| one.into_iter().chain(other).min())
        });
        match soonest {
            Some(after) => self.refused(Scope::Endpoint, after),
            None => Fault::NoEndpoint(self.shared.why_empty()),
        }
    }

    /// Notes which upstream was to be called.
    pub(crate) fn note(&self, trail: &mut Trail) {
        if trail.upstream.is_none() {
            trail.upstream = Some(self.workers.with(|worker| Arc::clone(&worker.name)));
        }
    }

    pub(crate) fn standings(&self) -> &Standings {
        &self.shared.standings
    }

    /// The id of an endpoint in use, by that or as it is shown.
    pub(crate) fn endpoint_id(&self, name: &str) -> Option<Arc<str>> {
        let set = self.shared.set.load();
        let is = |endpoint: &&Endpoint| *endpoint.id == *name || endpoint.shown() == name;
        set.endpoints.iter().find(is).map(|endpoint| Arc::clone(&endpoint.id))
    }
}
