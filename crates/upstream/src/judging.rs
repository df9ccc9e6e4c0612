//! Who judges the endpoints of an upstream: lays bars by what checks found, each second and at each change of a verdict.
//!
//! Runs on the control runtime. Where several documents in a row have an upstream of the same name, the newest that lives has the
//! say ([`Standings::claim`](crate::standing::Standings::claim)), so that bars of one that is gone do not stay.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Percent;
use pylon_net::tls::client::ClientTls;
use pylon_observe::endpoints::EndpointStates;
use pylon_observe::series::UpstreamSeries;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::endpoint::Endpoint;
use crate::health::Checks;
use crate::spec::UpstreamSpec;
use crate::standing::{Bar, Bars, Say, is_panic};
use crate::upstream::Shared;
use crate::view::EndpointView;

/// How often endpoints are judged where nothing calls for it.
const TICK: Duration = Duration::from_secs(1);

/// What judges the endpoints of one upstream.
#[derive(Debug)]
pub(crate) struct Judging {
    checks: Option<Checks>,
    /// The share of endpoints below which verdicts are doubted.
    pub(crate) panic: Percent,
    /// Told of new sets and new verdicts.
    news: Arc<Notify>,
    say: Mutex<Option<Say>>,
    /// Whether panic was in force when it was last looked at.
    panicked: AtomicBool,
}

impl Judging {
    pub(crate) fn compile(
        spec: &UpstreamSpec,
        tls: Option<&Arc<ClientTls>>,
        carry: &Carry,
    ) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let checks = Checks::compile(spec, tls, carry).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            None
        });
        if spec.panic.is_some() && spec.health.is_none() {
            let error = SpecError::new(FieldPath::root().key("panic"), "nothing keeps requests from an endpoint here");
            errors.push(error.help("write `health` beside it, or leave it out"));
        }
        let panic = spec.panic.unwrap_or(Percent::from_basis_points(5000));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { checks, panic, news: Arc::default(), say: Mutex::default(), panicked: AtomicBool::new(false) })
    }

    /// There is another set of endpoints.
    pub(crate) fn poke(&self) {
        self.news.notify_one();
    }

    /// Has the say from now on: a document with this upstream comes into force.
    pub(crate) fn claim(&self, shared: &Shared) {
        *self.say.lock() = Some(shared.standings.claim());
        if self.checks.is_none() {
            // What a document before this one has found is not lifted by anybody else.
            self.lay(shared);
        }
    }

    /// Judges for as long as the upstream lives. None where there is nothing to judge by.
    pub(crate) fn start(
        &self,
        shared: &Arc<Shared>,
        series: Option<Arc<UpstreamSeries>>,
        handle: &Handle,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        self.checks.is_some().then(|| judge(Arc::downgrade(shared), series, handle.clone()))
    }

    /// Completes what the admin API shows of an endpoint.
    pub(crate) fn show(&self, endpoint: &Endpoint, view: &mut EndpointView, now: Instant) {
        view.health = self.checks.as_ref().map(|checks| checks.view(endpoint, now));
    }

    fn lay(&self, shared: &Shared) {
        let Some(say) = self.say.lock().clone() else { return };
        let set = shared.set.load();
        let name = shared.name.as_str();
        shared.standings.by(&say, || {
            for endpoint in &set.endpoints {
                let standing = shared.standings.of(&endpoint.id);
                let unhealthy = self.checks.as_ref().is_some_and(|checks| checks.is_unhealthy(endpoint));
                if !standing.bar(Bar::Unhealthy, unhealthy) {
                    continue;
                }
                let endpoint_id = &*endpoint.id;
                match &self.checks {
                    Some(checks) if unhealthy => {
                        let error = checks.view(endpoint, now()).last_error.unwrap_or_default();
                        tracing::warn!(upstream = name, endpoint = endpoint_id, error, "an endpoint is unhealthy");
                    }
                    Some(_) => tracing::info!(upstream = name, endpoint = endpoint_id, "an endpoint is healthy again"),
                    None => tracing::info!(upstream = name, endpoint = endpoint_id, "an endpoint is checked no more"),
                }
            }
        });
    }

    fn tell_panic(&self, shared: &Shared) {
        let panics = shared.panics();
        if self.panicked.swap(panics, Relaxed) != panics {
            let (upstream, below) = (shared.name.as_str(), self.panic);
            if panics {
                tracing::warn!(upstream, %below, "too few endpoints are left: what was found out about the others is ignored");
            } else {
                tracing::info!(upstream, "enough endpoints are left again");
            }
        }
    }
}

impl Shared {
    /// The bars on the endpoints of the present set.
    fn bars(&self) -> Vec<Bars> {
        self.set.load().endpoints.iter().map(|endpoint| self.standings.of(&endpoint.id).bars()).collect()
    }

    /// Whether so few endpoints are left that verdicts are ignored.
    pub(crate) fn panics(&self) -> bool {
        is_panic(&self.bars(), self.judging.panic)
    }

    /// How many endpoints are in which state, for the metrics.
    pub(crate) fn census(&self) -> EndpointStates {
        let bars = self.bars();
        let mut states = EndpointStates { panics: is_panic(&bars, self.judging.panic), ..EndpointStates::default() };
        for bars in &bars {
            // The first bar counts, in the order of the names.
            let first = Bar::ALL.into_iter().position(|bar| bars.has(bar)).map_or(0, |at| at.saturating_add(1));
            if let Some(count) = states.counts.get_mut(first) {
                *count = count.saturating_add(1);
            }
        }
        states
    }
}

async fn judge(shared: Weak<Shared>, series: Option<Arc<UpstreamSeries>>, handle: Handle) {
    let mut generation = 0;
    loop {
        let news = {
            let Some(shared) = shared.upgrade() else { return };
            let judging = &shared.judging;
            if let Some(checks) = &judging.checks {
                let newest = shared.generation();
                if newest != generation {
                    generation = newest;
                    checks.follow(&shared.set.load(), &judging.news, &handle);
                }
                if let Some(series) = &series {
                    checks.count_in(series);
                }
            }
            judging.lay(&shared);
            judging.tell_panic(&shared);
            Arc::clone(&judging.news)
        };
        // Either way it is time.
        let _ = tokio::time::timeout(TICK, news.notified()).await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
