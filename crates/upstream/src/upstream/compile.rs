//! From what is written of an upstream to the upstream: its parts, each of which tells what is wrong with it, and what holds them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::names::UpstreamName;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_core::worker::PerWorker;
use pylon_observe::upstream::UpstreamSeries;

use super::choice::Worker;
use super::shared::Shared;
use super::{Building, Host, RETURN, Upstream};
use crate::breaker::scopes::Breakers;
use crate::call::budget::{Budget, Terms};
use crate::call::retry::Retry;
use crate::compile::Sources;
use crate::concurrency::Limited;
use crate::judging::Judging;
use crate::key::{self, KeyBy};
use crate::locality::LocalitySpec;
use crate::outbound::Outbound;
use crate::pool::Limits;
use crate::probe::Probes;
use crate::spec::{HostSpec, Speaks, UpstreamSpec};
use crate::standing::Standings;
use crate::sticky::{self, Sticky};

/// The parts of an upstream that may be written wrongly.
struct Parts {
    retry: Option<Retry>,
    probes: Option<Probes>,
    sticky: Option<Sticky>,
    sources: Sources,
    key: Option<KeyBy>,
    concurrency: Option<Limited>,
    judging: Judging,
    outbound: Option<Outbound>,
    breakers: Breakers,
}

impl Parts {
    /// Makes each of what is written for it; all that is wrong with any is told at once.
    fn compile(name: &UpstreamName, spec: &UpstreamSpec, cx: &Building<'_>) -> Result<Self, Vec<SpecError>> {
        let (here, mut wrong) = (FieldPath::root(), Vec::new());
        let at = |key: &str| FieldPath::root().key(key);
        let retry = spec.retry.as_ref().map_or(Ok(None), |retry| Retry::compile(retry));
        let retry = noted(&mut wrong, &at("retry"), retry);
        let probes = spec.balance.probe.as_ref().map(Probes::compile).transpose();
        let probes = noted(&mut wrong, &at("balance").key("probe"), probes.map_err(|error| vec![error]));
        let sticky = noted(&mut wrong, &here, sticky::compile(spec, cx).map_err(|error| vec![error]));
        let sources = noted(&mut wrong, &here, Sources::compile(spec, cx));
        let key = noted(&mut wrong, &here, key::compile(spec));
        let concurrency = noted(&mut wrong, &here, Limited::compile(name, spec, cx));
        let tls = sources.as_ref().and_then(|sources| sources.tls.as_ref());
        let judging = noted(&mut wrong, &here, Judging::compile(name, spec, tls, cx.carry));
        let outbound = spec.outbound.as_ref().map(|written| Outbound::compile(written, cx)).transpose();
        let outbound = noted(&mut wrong, &at("outbound"), outbound);
        let breaker = spec.breaker.as_ref().map(|breaker| &breaker.0);
        let breakers = noted(&mut wrong, &at("breaker"), Breakers::compile(name.as_str(), breaker, cx.carry));
        let made = || {
            Some(Self {
                retry: retry?,
                probes: probes?,
                sticky: sticky?,
                sources: sources?,
                key: key?,
                concurrency: concurrency?,
                judging: judging?,
                outbound: outbound?,
                breakers: breakers?,
            })
        };
        made().ok_or(wrong)
    }
}

/// Takes down what is wrong at `at`.
fn noted<T>(wrong: &mut Vec<SpecError>, at: &FieldPath, made: Result<T, Vec<SpecError>>) -> Option<T> {
    made.map_err(|errors| wrong.extend(errors.into_iter().map(|error| error.below(at)))).ok()
}

impl Upstream {
    /// Makes an upstream of what was written. All errors are told at once. No task runs before [`Upstream::start`].
    pub fn compile(name: UpstreamName, spec: &UpstreamSpec, cx: &Building<'_>) -> Result<Self, Vec<SpecError>> {
        let parts = Parts::compile(&name, spec, cx)?;
        let terms = Terms::new(&spec.retry_budget);
        let now = tokio::time::Instant::now().into_std();
        let budget = cx.carry.own().keep(format!("retry budget of {name}"), || Budget::new(&terms, now));
        let standings = cx.carry.own().keep(format!("standings of {name}"), Standings::default);
        let Parts { retry, probes, sticky, sources, key, concurrency, judging, outbound, breakers } = parts;
        let shared = Shared {
            name,
            method: spec.balance.method,
            locality: if spec.balance.nearest { cx.locality.clone() } else { LocalitySpec::default() },
            sticky,
            sources,
            set: ArcSwap::default(),
            generation: AtomicU64::new(0),
            standings,
            budget,
            judging,
            rebuilding: Mutex::default(),
        };
        shared.rebuild();
        Ok(Self {
            series: None,
            workers: PerWorker::new(|offset| Worker::new(shared.name.as_str(), offset)),
            timeout: spec.timeout.as_ref().map(|timeout| timeout.0.clone()),
            retry: retry.map(Arc::new),
            budget: terms,
            method: spec.balance.method,
            key,
            slow_start: spec.balance.slow_start.map(Span::duration),
            hold: spec.balance.return_after.map_or(RETURN, Span::duration),
            orca: spec.balance.bounds(),
            probes,
            shows_reports: spec.balance.shows_reports(),
            speaks: spec.speaks().unwrap_or(Speaks::Anything),
            protocol: spec.protocol,
            breakers,
            tells: spec.proxy_protocol,
            concurrency,
            limits: Limits {
                // A connection that begins with a client's address is for no other client.
                max_idle: if spec.proxy_protocol.is_some() { 0 } else { spec.pool.max_idle as usize },
                idle: spec.pool.idle.duration(),
                lifetime: spec.pool.lifetime.duration(),
                most: spec.pool.most(),
            },
            host: match &spec.host {
                HostSpec::Keep => Host::Keep,
                HostSpec::Endpoint => Host::Endpoint,
                HostSpec::Name(name) => Host::Name(name.clone()),
            },
            outbound: outbound.map(Box::new),
            tasks: Mutex::default(),
            shared: Arc::new(shared),
        })
    }

    /// Counts what happens here in `series`. To be said before the first call.
    #[must_use]
    pub fn counted_in(mut self, series: Arc<UpstreamSeries>) -> Self {
        self.breakers.counted_in(&series);
        self.series = Some(series);
        self
    }
}
