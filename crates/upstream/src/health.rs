//! Active health checks: the gateway asks each endpoint whether it is well, and passes over those that are not.
//!
//! What is found is known to the whole process: checks run on the control runtime, and lay or lift a bar that all workers read
//! before they choose (`standing.rs`). What is thought of an endpoint is decided in [`state`] alone, without a clock or a socket.

pub(crate) mod checked;
mod grpc;
pub(crate) mod probe;
pub mod spec;
pub mod state;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::tls::client::ClientTls;
use pylon_observe::upstream::UpstreamSeries;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use self::checked::{Checked, Registry};
use self::probe::Probe;
use self::spec::{HealthSpec, Schedule};
use self::state::Verdict;
use crate::endpoint::{Endpoint, EndpointSet};
use crate::spec::UpstreamSpec;

/// The checks of one upstream.
#[derive(Debug)]
pub(crate) struct Checks {
    probe: Arc<Probe>,
    schedule: Schedule,
    registry: Arc<Registry>,
    /// The endpoints that are checked, by their ids.
    followed: Mutex<HashMap<Arc<str>, Followed>>,
}

#[derive(Debug)]
struct Followed {
    checked: Arc<Checked>,
    /// The checks that have been counted in the metrics.
    seen: [u64; 2],
}

/// The health of an endpoint at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthView {
    /// `unknown`, `healthy` or `unhealthy`.
    pub state: Verdict,
    /// For how many seconds it has been that; none while it is unknown.
    pub for_seconds: Option<u64>,
    /// How many checks in a row have passed.
    pub passed_in_a_row: u32,
    /// How many checks in a row have failed.
    pub failed_in_a_row: u32,
    /// Why the last check that failed did so, even where others passed since.
    pub last_error: Option<String>,
    /// Checks that passed, in all.
    pub passed: u64,
    /// Checks that failed, in all, repeated ones too.
    pub failed: u64,
}

impl Checks {
    /// Reads them out of a spec, where there are any. Endpoints that are asked the same are checked once.
    pub(crate) fn compile(
        spec: &UpstreamSpec,
        tls: Option<&Arc<ClientTls>>,
        carry: &Carry,
    ) -> Result<Option<Self>, Vec<SpecError>> {
        let Some(health) = spec.health.as_deref() else { return Ok(None) };
        let below = |errors: Vec<SpecError>| {
            errors.into_iter().map(|error| error.below(&FieldPath::root().key("health"))).collect::<Vec<_>>()
        };
        let (probe, schedule) = spec::compile(health, spec).map_err(below)?;
        let usual = HealthSpec::default();
        let HealthSpec { every, timeout, rise, fall, .. } = usual;
        let asked = HealthSpec { every, timeout, rise, fall, ..health.clone() };
        let tls = tls.map(|tls| tls.identity()).unwrap_or_default();
        let key = format!("checks {asked:?} {:?} {:?} {:?} {tls}", spec.host, spec.protocol, spec.proxy_protocol);
        let registry = carry.keep(key, Registry::default);
        Ok(Some(Self { probe: Arc::new(probe), schedule, registry, followed: Mutex::default() }))
    }

    /// Checks these endpoints and no others; those that stay keep what was found. `news` is told of changed verdicts.
    pub(crate) fn follow(&self, set: &EndpointSet, news: &Arc<Notify>, handle: &Handle) {
        let ids: HashSet<&str> = set.endpoints.iter().map(|endpoint| &*endpoint.id).collect();
        let mut followed = self.followed.lock();
        followed.retain(|id, _| ids.contains(&**id));
        for endpoint in &set.endpoints {
            let one = followed.entry(Arc::clone(&endpoint.id)).or_insert_with(|| {
                let checked = self.registry.of(endpoint, &self.probe, self.schedule, news);
                let seen = checked.counts();
                Followed { checked, seen }
            });
            one.checked.aim(endpoint);
            one.checked.start(handle);
        }
    }

    /// What is thought of an endpoint.
    pub(crate) fn verdict(&self, endpoint: &Endpoint) -> Verdict {
        self.followed.lock().get(&endpoint.id).map_or(Verdict::Unknown, |one| one.checked.verdict())
    }

    /// Counts the checks since the last time.
    pub(crate) fn count_in(&self, series: &UpstreamSeries) {
        for one in self.followed.lock().values_mut() {
            let now = one.checked.counts();
            let [passed, failed] = [0, 1].map(|at: usize| {
                let of = |counts: &[u64; 2]| counts.get(at).copied().unwrap_or_default();
                of(&now).saturating_sub(of(&one.seen))
            });
            one.seen = now;
            series.checked(passed, failed);
        }
    }

    /// What the admin API shows of an endpoint.
    pub(crate) fn view(&self, endpoint: &Endpoint, now: Instant) -> HealthView {
        let followed = self.followed.lock();
        let checked = followed.get(&endpoint.id).map(|one| &one.checked);
        let state = checked.map(|checked| checked.state()).unwrap_or_default();
        let [passed, failed] = checked.map(|checked| checked.counts()).unwrap_or_default();
        let (passed_in_a_row, failed_in_a_row) = state.in_a_row();
        HealthView {
            state: state.verdict,
            for_seconds: state.since.map(|since| now.saturating_duration_since(since).as_secs()),
            passed_in_a_row,
            failed_in_a_row,
            last_error: state.error,
            passed,
            failed,
        }
    }
}
