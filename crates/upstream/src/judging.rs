//! Who judges the endpoints of an upstream: lays bars by what checks found, each second and at each change of a verdict.
//!
//! Runs on the control runtime. Where several documents in a row have an upstream of the same name, the newest that lives has the
//! say ([`Standings::claim`](crate::standing::Standings::claim)), so that bars of one that is gone do not stay.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::names::UpstreamName;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use pylon_net::timer::timeout_at;
use pylon_net::tls::client::ClientTls;
use pylon_observe::insight::EndpointStates;
use pylon_observe::upstream::UpstreamSeries;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::endpoint::{Endpoint, EndpointSet};
use crate::health::Checks;
use crate::health::state::Verdict;
use crate::outliers::judge::Change;
use crate::outliers::{Outliers, Watched};
use crate::spec::UpstreamSpec;
use crate::standing::{Bar, Bars, Say};
use crate::upstream::shared::Shared;
use crate::verdicts::Verdicts;
use crate::view::EndpointView;

/// How often endpoints are judged where nothing calls for it.
const TICK: Duration = Duration::from_secs(1);

/// What judges the endpoints of one upstream.
#[derive(Debug)]
pub(crate) struct Judging {
    checks: Option<Checks>,
    pub(crate) outliers: Option<Outliers>,
    /// The share of endpoints below which verdicts are doubted.
    pub(crate) panic: Percent,
    /// Told of new sets and new verdicts.
    news: Arc<Notify>,
    /// Where checks run, once they do.
    handle: OnceLock<Handle>,
    say: Mutex<Option<Say>>,
    series: OnceLock<Arc<UpstreamSeries>>,
    /// Whether panic was in force when it was last looked at.
    panicked: AtomicBool,
}

impl Judging {
    pub(crate) fn compile(
        name: &UpstreamName,
        spec: &UpstreamSpec,
        tls: Option<&Arc<ClientTls>>,
        carry: &Carry,
    ) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let checks = Checks::compile(spec, tls, carry).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            None
        });
        let outliers = Outliers::compile(spec, name, carry).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            None
        });
        if spec.panic.is_some() && spec.health.is_none() && spec.outliers.is_none() {
            let error = SpecError::new(FieldPath::root().key("panic"), "nothing keeps requests from an endpoint here");
            errors.push(error.help("write `health` or `outliers` beside it, or leave it out"));
        }
        let panic = spec.panic.unwrap_or(Percent::from_basis_points(5000));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            checks,
            outliers,
            panic,
            news: Arc::default(),
            handle: OnceLock::new(),
            say: Mutex::default(),
            series: OnceLock::new(),
            panicked: AtomicBool::new(false),
        })
    }

    /// These are the endpoints from now on. Nothing is asked of them before [`Judging::start`].
    ///
    /// At once, and not when the task that judges has its turn: what the document before has found lives for as long as it or
    /// this one holds it, and the one before may be gone by then.
    pub(crate) fn these(&self, set: &EndpointSet) {
        let Some(handle) = self.handle.get() else { return };
        if let Some(checks) = &self.checks {
            checks.follow(set, &self.news, handle);
        }
        // A source that has not answered yet says nothing about those whom the document before knows.
        if let Some(outliers) = self.outliers.as_ref().filter(|_| !set.endpoints.is_empty()) {
            outliers.follow(set);
        }
        self.news.notify_one();
    }

    /// Has the say from now on: a document with this upstream comes into force.
    pub(crate) fn claim(&self, shared: &Shared) {
        *self.say.lock() = Some(shared.standings.claim());
        if self.checks.is_none() && self.outliers.is_none() {
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
        if let Some(series) = series {
            self.series.get_or_init(|| series);
        }
        self.handle.get_or_init(|| handle.clone());
        shared.judge_all();
        let judges = self.checks.is_some() || self.outliers.is_some();
        judges.then(|| judge(Arc::downgrade(shared)))
    }

    /// Completes what the admin API shows of an endpoint.
    pub(crate) fn show(&self, endpoint: &Endpoint, view: &mut EndpointView, now: Instant) {
        view.health = self.checks.as_ref().map(|checks| checks.view(endpoint, now));
        view.ejection = self.outliers.as_ref().map(|outliers| outliers.view(endpoint, now));
    }

    /// What the current worker tells of an endpoint, where that is judged.
    pub(crate) fn watch(&self, endpoint: &Endpoint, upstream: &Arc<Shared>) -> Option<Watched> {
        self.outliers.as_ref()?.watch(endpoint, upstream)
    }

    /// A second is over: endpoints are ejected, and let back in.
    fn second(&self, shared: &Shared) {
        let say = self.say.lock().clone();
        let (Some(outliers), Some(say)) = (&self.outliers, say) else { return };
        let mut changes = Vec::new();
        // Two that count what came would each see a part of it.
        shared.standings.by(&say, || changes = outliers.second(now()));
        for change in &changes {
            self.tell(shared, change);
        }
    }

    fn tell(&self, shared: &Shared, change: &Change) {
        let upstream = shared.name.as_str();
        match change {
            Change::Ejected { id, why, span } => {
                if let Some(series) = self.series.get() {
                    series.ejected(*why as usize);
                }
                let (because, span) = (why.words(), Span::from_millis(span.as_millis().try_into().unwrap_or(u64::MAX)));
                tracing::warn!(upstream, endpoint = &**id, because, %span, "an endpoint is ejected");
            }
            Change::Back { id } => {
                tracing::info!(upstream, endpoint = &**id, "an endpoint that was ejected is tried again");
            }
        }
    }

    fn lay(&self, shared: &Shared) {
        let Some(say) = self.say.lock().clone() else { return };
        let set = shared.set.load();
        let name = shared.name.as_str();
        shared.standings.by(&say, || {
            for endpoint in &set.endpoints {
                let standing = shared.standings.of(&endpoint.id);
                standing.bar(Bar::Ejected, self.outliers.as_ref().is_some_and(|outliers| outliers.is_out(endpoint)));
                let verdict = self.checks.as_ref().map(|checks| checks.verdict(endpoint));
                let unhealthy = match verdict {
                    // Checks that ask something new have yet to find out: until then what others found holds.
                    Some(Verdict::Unknown) => continue,
                    verdict => verdict == Some(Verdict::Unhealthy),
                };
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
    /// So many attempts at an endpoint failed in a row that it is ejected at once, by whichever worker saw the last of them.
    pub(crate) fn too_many_failures(&self, id: &Arc<str>) {
        let judging = &self.judging;
        let Some(change) = judging.outliers.as_ref().and_then(|outliers| outliers.failed(id, now())) else { return };
        let say = judging.say.lock().clone();
        if let Some(say) = say {
            self.standings.by(&say, || _ = self.standings.of(id).bar(Bar::Ejected, true));
        }
        judging.tell(self, &change);
        judging.news.notify_one();
    }

    /// The bars on the endpoints of the present set.
    fn bars(&self) -> Vec<Bars> {
        self.set.load().endpoints.iter().map(|endpoint| self.standings.of(&endpoint.id).bars()).collect()
    }

    fn verdicts(&self, bars: &[Bars]) -> Verdicts {
        let set = self.set.load();
        let weight = |index: usize| set.endpoints.get(index).map_or(1, |endpoint| endpoint.weight);
        Verdicts::new(&set.levels, weight, bars, self.judging.panic)
    }

    /// Whether so few endpoints are left that verdicts are ignored.
    pub(crate) fn panics(&self) -> bool {
        self.verdicts(&self.bars()).panics
    }

    /// How many endpoints are in which state, for the metrics.
    pub(crate) fn census(&self) -> EndpointStates {
        let bars = self.bars();
        let mut states = EndpointStates { panics: self.verdicts(&bars).panics, ..EndpointStates::default() };
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

async fn judge(shared: Weak<Shared>) {
    let mut next = now() + TICK;
    loop {
        let news = {
            let Some(shared) = shared.upgrade() else { return };
            let judging = &shared.judging;
            if now() >= next {
                next = now() + TICK;
                judging.second(&shared);
            }
            if let (Some(checks), Some(series)) = (&judging.checks, judging.series.get()) {
                checks.count_in(series);
            }
            judging.lay(&shared);
            judging.tell_panic(&shared);
            Arc::clone(&judging.news)
        };
        // Either way it is time.
        let _ = timeout_at(Some(next), news.notified()).await;
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
