//! A named service: compiled from its spec, kept current by tasks on the control runtime, read by the workers.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::names::UpstreamName;
use pylon_core::secret::Reveal;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_core::worker::PerWorker;
use pylon_net::proxy_protocol::Version;
use pylon_net::resolve::Resolver;
use pylon_net::tls::client::ClientTls;
use pylon_observe::series::UpstreamSeries;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::balance::Method;
use crate::balance::orca::Bounds;
use crate::breaker::scopes::Breakers;
use crate::call::CallOptions;
use crate::call::budget::{Budget, Terms};
use crate::call::hedge::Hedge;
use crate::call::retry::Retry;
use crate::compile::Sources;
use crate::concurrency::Limited;
use crate::discovery::agents::Agents;
use crate::discovery::file::ReadYaml;
use crate::discovery::ledger::Known;
use crate::discovery::source::Source;
use crate::discovery::static_list::Member;
use crate::endpoint::{Endpoint, EndpointSet, UNDER_TLS};
use crate::judging::Judging;
use crate::key::{self, KeyBy};
use crate::locality::LocalitySpec;
use crate::outbound::Outbound;
use crate::pool::Limits;
use crate::probe::Probes;
use crate::spec::{HostSpec, ProtocolSpec, Speaks, UpstreamSpec};
use crate::standing::Standings;
use crate::sticky::{self, Sticky};
use crate::timeouts::{TimeoutSpec, Timeouts, deadline_field};
use crate::view::{EndpointView, UpstreamView};

use self::choice::Worker;

mod barred;
pub(crate) mod choice;
mod heads;
mod shown;

/// How long endpoints must be well again before requests return to them, where nothing is written.
const RETURN: Duration = Duration::from_secs(10);
/// How often the files of TLS are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What a route says of its calls, where it says anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct OfRoute<'a> {
    /// Its `timeout`.
    pub timeout: Option<&'a TimeoutSpec>,
    /// Its `retry`, compiled: none where that is `off`.
    pub retry: Option<&'a Option<Arc<Retry>>>,
    /// Its `hedge`, or that of `defaults`.
    pub hedge: Option<&'a Arc<Hedge>>,
}

/// What an upstream is compiled with.
#[derive(Debug, Clone, Copy)]
pub struct Building<'a> {
    /// Where pools and resolved names live on from the snapshot before.
    pub carry: &'a Carry,
    /// Who resolves host names.
    pub resolver: &'a Resolver,
    /// Reads files of YAML.
    pub yaml: ReadYaml,
    /// Where the gateway stands.
    pub locality: &'a LocalitySpec,
    /// Reads secrets from where they are kept.
    pub secrets: Reveal,
    /// Who is asked for endpoints.
    pub agents: &'a Agents,
}

/// A named service behind the gate.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    timeout: Option<TimeoutSpec>,
    retry: Option<Arc<Retry>>,
    budget: Terms,
    method: Method,
    /// Which key of a request decides, where one does.
    key: Option<KeyBy>,
    slow_start: Option<Duration>,
    /// How long endpoints must be well again before requests return to them.
    hold: Duration,
    /// For how long reports of load count, where they do.
    orca: Option<Bounds>,
    probes: Option<Probes>,
    shows_reports: bool,
    protocol: ProtocolSpec,
    limits: Limits,
    speaks: Speaks,
    tells: Option<Version>,
    pub(crate) breakers: Breakers,
    pub(crate) concurrency: Option<Limited>,
    pub(crate) host: Host,
    pub(crate) outbound: Option<Box<Outbound>>,
    pub(crate) series: Option<Arc<UpstreamSeries>>,
    workers: PerWorker<Worker>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The `Host` that the service sees.
#[derive(Debug)]
pub(crate) enum Host {
    Keep,
    Endpoint,
    Name(HeaderValue),
}

/// What the discovery tasks write and the workers read.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: UpstreamName,
    method: Method,
    /// Where the gateway stands, as far as that counts here.
    locality: LocalitySpec,
    sticky: Option<Sticky>,
    sources: Sources,
    pub(crate) set: ArcSwap<EndpointSet>,
    /// Rises with each new set.
    generation: AtomicU64,
    pub(crate) standings: Arc<Standings>,
    budget: Arc<Budget>,
    pub(crate) judging: Judging,
    rebuilding: Mutex<()>,
}

impl Upstream {
    /// Makes an upstream of what was written. All errors are told at once. No task runs before [`Upstream::start`].
    pub fn compile(name: UpstreamName, spec: &UpstreamSpec, cx: &Building<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let at = FieldPath::root().key("retry");
        let retry = spec.retry.as_ref().map_or(Ok(None), |retry| Retry::compile(retry));
        let retry =
            retry.map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at)))).unwrap_or(None);
        let probes = spec.balance.probe.as_ref().map(Probes::compile).transpose().map_err(|error| {
            errors.push(error.below(&FieldPath::root().key("balance").key("probe")));
        });
        let probes = probes.ok().flatten();
        let sticky = sticky::compile(spec, cx).map_err(|error| errors.push(error)).ok().flatten();
        let (sources, key, concurrency) =
            (Sources::compile(spec, cx), key::compile(spec), Limited::compile(&name, spec, cx));
        let tls = sources.as_ref().ok().and_then(|sources| sources.tls.as_ref());
        let judging = Judging::compile(&name, spec, tls, cx.carry).map_err(|found| errors.extend(found));
        let (sources, key, concurrency, judging) = match (sources, key, concurrency, judging) {
            (Ok(sources), Ok(key), Ok(concurrency), Ok(judging)) if errors.is_empty() => {
                (sources, key, concurrency, judging)
            }
            (sources, key, concurrency, _) => {
                let found = sources.err().into_iter().chain(key.err()).chain(concurrency.err());
                return Err(found.flatten().chain(errors).collect());
            }
        };
        let outbound = spec.outbound.as_ref().map(|written| Outbound::compile(written, cx));
        let outbound = outbound.transpose().map_err(|errors| {
            let at = FieldPath::root().key("outbound");
            errors.into_iter().map(|error| error.below(&at)).collect::<Vec<_>>()
        })?;
        let breaker = spec.breaker.as_ref().map(|breaker| &breaker.0);
        let breakers = Breakers::compile(name.as_str(), breaker, cx.carry).map_err(|errors| {
            errors.into_iter().map(|error| error.below(&FieldPath::root().key("breaker"))).collect::<Vec<_>>()
        })?;
        let terms = Terms::new(&spec.retry_budget);
        let now = tokio::time::Instant::now().into_std();
        let budget = cx.carry.own().keep(format!("retry budget of {name}"), || Budget::new(&terms, now));
        let standings = cx.carry.own().keep(format!("standings of {name}"), Standings::default);
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
        let shared = Arc::downgrade(&self.shared);
        let sources = Weak::clone(&shared);
        series.look_at(move || shared.upgrade().map(|shared| shared.census()));
        let read = move |now| sources.upgrade().map(|shared| shared.sources.readings(now));
        series.sources_told_by(Box::new(read), tokio::time::Instant::now().into_std());
        self.series = Some(series);
        self
    }

    /// Begins to resolve names on `handle`, the control runtime. The tasks end when the upstream is dropped.
    pub fn start(&self, handle: &Handle) {
        if let Some(concurrency) = &self.concurrency {
            concurrency.start(handle, self.series.as_deref());
        }
        self.shared.judging.claim(&self.shared);
        let mut tasks = self.tasks.lock();
        if !tasks.is_empty() {
            return;
        }
        let sources = &self.shared.sources;
        for name in sources.names() {
            name.start(handle);
            tasks.push(handle.spawn(follow(Arc::downgrade(&self.shared), name.watch())).abort_handle());
        }
        if let Some(source) = &sources.discovered {
            source.start(handle);
            tasks.push(handle.spawn(follow(Arc::downgrade(&self.shared), source.watch())).abort_handle());
        }
        if let Some(outbound) = &self.outbound {
            tasks.extend(outbound.start(&self.shared.name, handle));
        }
        let judge = self.shared.judging.start(&self.shared, self.series.clone(), handle);
        tasks.extend(judge.map(|judge| handle.spawn(judge).abort_handle()));
        if let Some(tls) = &self.shared.sources.tls {
            let look = look_after(self.shared.name.clone(), Arc::clone(tls));
            tasks.push(handle.spawn(look).abort_handle());
        }
    }

    /// Waits until each name and source has had a first answer, good or bad. Bound it: servers may be silent for seconds.
    pub async fn settle(&self) {
        let sources = &self.shared.sources;
        if let Some(source) = &sources.discovered {
            first_answer(source.watch()).await;
            self.shared.rebuild();
            for name in source.names() {
                first_answer(name.watch()).await;
            }
        }
        for name in sources.names() {
            first_answer(name.watch()).await;
        }
        self.shared.rebuild();
        if let Some(outbound) = &self.outbound {
            outbound.settle().await;
        }
    }

    /// The name in the document.
    pub fn name(&self) -> &UpstreamName {
        &self.shared.name
    }

    /// Whether it has a limit of requests under way.
    pub fn counts_requests(&self) -> bool {
        self.concurrency.is_some()
    }

    /// What its endpoints speak.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// How long connections may take that listeners carry.
    pub fn timeouts(&self) -> Timeouts {
        Timeouts::resolve(None, self.timeout.as_ref())
    }

    /// The options of calls from a route that says so much; `max_head` is `limits.response_headers` in bytes.
    pub fn options(&self, route: &OfRoute<'_>, max_head: usize) -> CallOptions {
        let upstream = self.timeout.as_ref();
        CallOptions {
            timeouts: Timeouts::resolve(route.timeout, upstream),
            deadline: deadline_field(route.timeout, upstream),
            retry: route.retry.unwrap_or(&self.retry).clone(),
            hedge: route.hedge.cloned(),
            max_head,
            breaker: None,
        }
    }

    /// Closes idle connections of the current worker that are over their time or closed by the peer. For each second.
    pub fn sweep(&self, now: Instant) {
        self.workers.with(|worker| {
            self.refresh(worker, now);
            for lane in &worker.lanes {
                lane.slot.sweep(now, &lane.limits);
            }
            self.shared.budget.put(std::mem::take(&mut worker.requests), now, &self.budget);
        });
    }

    /// What the admin API shows.
    pub fn view(&self) -> UpstreamView {
        let now = tokio::time::Instant::now().into_std();
        let set = self.shared.set.load();
        let shown = self.shown(self.shared.generation.load(Acquire), now);
        let endpoints = set.endpoints.iter().enumerate().map(|(index, endpoint)| {
            let standing = self.shared.standings.of(&endpoint.id);
            let [attempts, connects, connect_failures, reuses] = endpoint.pool.counters();
            let mut view = EndpointView {
                endpoint: endpoint.shown(),
                addresses: if endpoint.path.is_some() { Vec::new() } else { endpoint.addrs.to_vec() },
                weight: endpoint.weight,
                effective_weight: shown.weights.get(index).copied().unwrap_or_else(|| f64::from(endpoint.weight)),
                latency_ms: shown.latencies.get(index).copied().flatten(),
                priority: endpoint.priority,
                barred: self.breakers.heed(standing.bars()).names(),
                breaker: self.breakers.view_of(&standing, now),
                zone: endpoint.zone.as_deref().map(str::to_owned),
                region: endpoint.region.as_deref().map(str::to_owned),
                source: endpoint.source,
                idle: endpoint.pool.idle(),
                connections: endpoint.pool.open(),
                in_flight: endpoint.pool.in_flight(),
                attempts,
                connects,
                connect_failures,
                reuses,
                health: None,
                ejection: None,
            };
            self.shared.judging.show(endpoint, &mut view, now);
            view
        });
        UpstreamView {
            name: self.shared.name.as_str().to_owned(),
            balance: self.method,
            by: self.key.as_ref().map(KeyBy::in_words),
            sticky: self.shared.sticky.as_ref().map(|sticky| sticky.cookie().to_owned()),
            concurrency: self.concurrency.as_ref().map(Limited::view),
            retry_budget: self.shared.budget.left(now, &self.budget),
            panic: self.shared.panics(),
            endpoints: endpoints.collect(),
            tiers: shown.tiers,
            breakers: self.breakers.view(now),
            sources: self.shared.sources.view(now),
            outbound: self.outbound.as_ref().map(|outbound| outbound.view(now)),
        }
    }

    /// Spends one of the further attempts that the retry budget allows. Says whether there was one.
    pub(crate) fn may_spend(&self, now: Instant) -> bool {
        let requests = self.workers.with(|worker| std::mem::take(&mut worker.requests));
        self.shared.budget.take(requests, now, &self.budget)
    }
}

#[cfg(test)]
impl Upstream {
    /// Lays a bar on an endpoint, or lifts it, as those do who judge endpoints.
    pub(crate) fn bar(&self, endpoint: &str, bar: crate::standing::Bar, lies: bool) {
        self.shared.standings.of(&endpoint.into()).bar(bar, lies);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl Shared {
    /// Makes a new set where the addresses changed.
    fn rebuild(&self) {
        let _one_at_a_time = self.rebuilding.lock();
        let written = self.sources.members.iter().filter_map(Member::endpoint);
        let found = self.sources.discovered.iter().flat_map(Source::endpoints);
        let mut next: Vec<Endpoint> = written.chain(found).collect();
        tell_apart(&mut next);
        if self.generation.load(Acquire) == 0 || self.set.load().endpoints != next {
            if let Some(sticky) = &self.sticky {
                for one in &mut next {
                    one.name = Some(sticky.name(self.name.as_str(), &one.id));
                }
            }
            join(&self.set.load().endpoints, &mut next);
            let next = EndpointSet::new(next, self.method, &self.locality);
            self.standings.retain(|id| next.endpoints.iter().any(|endpoint| *endpoint.id == *id));
            self.set.store(Arc::new(next));
            self.generation.fetch_add(1, Release);
            self.judging.these(&self.set.load());
        }
    }

    /// Has the present set judged.
    pub(crate) fn judge_all(&self) {
        let _no_other_meanwhile = self.rebuilding.lock();
        self.judging.these(&self.set.load());
    }

    /// For the log: what names and sources say.
    fn why_empty(&self) -> String {
        self.sources.why_empty().into_iter().fold(String::new(), |all, why| format!("{all}: {why}"))
    }
}

/// One place that is reached both in cleartext and under TLS is two endpoints: what is found out about one is not the other's.
fn tell_apart(endpoints: &mut [Endpoint]) {
    let cleartext: HashSet<Arc<str>> =
        endpoints.iter().filter(|one| one.tls.is_none()).map(|one| Arc::clone(&one.id)).collect();
    for one in endpoints.iter_mut().filter(|one| one.tls.is_some() && cleartext.contains(&one.id)) {
        one.id = format!("{UNDER_TLS}{}", one.id).into();
    }
}

/// Notes when endpoints come to others that are there already. Those of the beginning are equally cold.
fn join(before: &[Endpoint], next: &mut [Endpoint]) {
    let now = tokio::time::Instant::now().into_std();
    let before: HashMap<&str, Option<Instant>> = before.iter().map(|one| (&*one.id, one.joined)).collect();
    for one in next {
        one.joined = before.get(&*one.id).copied().unwrap_or_else(|| (!before.is_empty()).then_some(now));
    }
}

/// Makes a new set of endpoints when there is news.
async fn follow<T>(shared: Weak<Shared>, mut news: watch::Receiver<Known<T>>) {
    loop {
        match shared.upgrade() {
            Some(shared) => shared.rebuild(),
            None => return,
        }
        if news.changed().await.is_err() {
            return;
        }
    }
}

async fn first_answer<T>(mut news: watch::Receiver<Known<T>>) {
    // An error means that the name is gone, and with it the question.
    let _gone = news.wait_for(|known| known.asked).await.is_err();
}

/// Takes in renewed roots and certificates.
async fn look_after(upstream: UpstreamName, tls: Arc<ClientTls>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = Arc::clone(&tls);
        // Files may stand on a disk that is slow.
        let news = tokio::task::spawn_blocking(move || looked.refresh(pylon_observe::clock::unix_now())).await;
        match news {
            Ok(Some(Ok(()))) => tracing::info!(upstream = upstream.as_str(), "renewed TLS files are in force"),
            Ok(Some(Err(trouble))) => {
                tracing::warn!(upstream = upstream.as_str(), %trouble, "the TLS files before stay in force");
            }
            Ok(None) | Err(_) => {}
        }
    }
}
