//! Passive ejection of outliers: an endpoint that does worse than it should is left out for a while, by how requests fare there.
//!
//! Workers tell each attempt (`tally`); a row of failures is judged at once, shares and times each second on the control runtime.
//! Who goes, for how long, and how many may be out is decided in [`judge`] alone, without a clock.

pub mod judge;
pub mod spec;
mod tally;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use pylon_core::carry::Carry;
use pylon_core::names::UpstreamName;
use pylon_core::spec::{FieldPath, SpecError};
use serde::Serialize;

use self::judge::{Change, Rules, Why};
use self::tally::{Slot, Tallies, Tally};
use crate::endpoint::{Endpoint, EndpointSet};
use crate::spec::UpstreamSpec;
use crate::upstream::shared::Shared;

/// What ejects endpoints of one upstream.
#[derive(Debug)]
pub(crate) struct Outliers {
    rules: Rules,
    tallies: Arc<Tallies>,
}

/// What one worker has of this at one endpoint.
#[derive(Debug)]
pub(crate) struct Watched {
    id: Arc<str>,
    /// How many failures in a row are too many.
    most: u32,
    tally: Arc<Tally>,
    slot: Arc<Slot>,
    /// Who is told when there are.
    upstream: Weak<Shared>,
}

/// The ejection of an endpoint at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EjectionView {
    /// Why it is left out: `failures` in a row, too many `errors`, or it is `slow`; none where it is not.
    pub because: Option<Why>,
    /// For how many seconds it is still left out.
    pub for_seconds: Option<u64>,
    /// How often it was, less what it has made good since.
    pub times: u32,
}

impl Outliers {
    /// Reads them out of a spec, where there are any.
    pub(crate) fn compile(
        spec: &UpstreamSpec,
        name: &UpstreamName,
        carry: &Carry,
    ) -> Result<Option<Self>, Vec<SpecError>> {
        let Some(outliers) = spec.outliers.as_deref() else { return Ok(None) };
        let below = |errors: Vec<SpecError>| {
            errors.into_iter().map(|error| error.below(&FieldPath::root().key("outliers"))).collect::<Vec<_>>()
        };
        let rules = spec::compile(outliers).map_err(below)?;
        // A document that is tried judges for itself: otherwise what it makes of a service would harm the one in force.
        let tallies = carry.own().keep(format!("outliers of {name}"), Tallies::default);
        Ok(Some(Self { rules, tallies }))
    }

    /// These are the endpoints now.
    pub(crate) fn follow(&self, set: &EndpointSet) {
        let ids: Vec<_> = set.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.id)).collect();
        self.tallies.these(&ids);
    }

    /// What the current worker tells of an endpoint.
    pub(crate) fn watch(&self, endpoint: &Endpoint, upstream: &Arc<Shared>) -> Option<Watched> {
        let tally = self.tallies.of(&endpoint.id);
        Some(Watched {
            id: endpoint.id.as_ref().into(),
            most: self.rules.failures.unwrap_or(u32::MAX),
            slot: Arc::clone(tally.mine()?),
            tally,
            upstream: Arc::downgrade(upstream),
        })
    }

    /// Too many attempts at an endpoint failed in a row.
    pub(crate) fn failed(&self, id: &Arc<str>, now: Instant) -> Option<Change> {
        self.tallies.judge.lock().eject(id, Why::Failures, now, &self.rules)
    }

    /// A second is over.
    pub(crate) fn second(&self, now: Instant) -> Vec<Change> {
        let changes = self.tallies.judge.lock().second(|id| self.tallies.news(id), now, &self.rules);
        for change in &changes {
            if let Change::Back { id } = change {
                self.tallies.of(id).forgive();
            }
        }
        changes
    }

    /// Whether an endpoint is left out.
    pub(crate) fn is_out(&self, endpoint: &Endpoint) -> bool {
        self.tallies.judge.lock().is_out(&endpoint.id)
    }

    /// What the admin API shows of an endpoint.
    pub(crate) fn view(&self, endpoint: &Endpoint, now: Instant) -> EjectionView {
        let judge = self.tallies.judge.lock();
        let record = judge.record(&endpoint.id);
        let out = record.and_then(|record| record.out);
        EjectionView {
            because: out.map(|out| out.why),
            for_seconds: out.map(|out| out.until.saturating_duration_since(now).as_secs()),
            times: record.map_or(0, |record| record.times),
        }
    }
}

impl Watched {
    /// An attempt was answered without a failure.
    pub(crate) fn passed(&self, took: Duration) {
        self.tally.passed(&self.slot, took);
    }

    /// An attempt failed.
    pub(crate) fn failed(&self) {
        // One word for all workers: whoever makes the row too long sees to it that it has an end.
        let row = self.tally.failed(&self.slot);
        if row >= self.most
            && row.checked_rem(self.most) == Some(0)
            && let Some(upstream) = self.upstream.upgrade()
        {
            upstream.too_many_failures(&self.id);
        }
    }
}
