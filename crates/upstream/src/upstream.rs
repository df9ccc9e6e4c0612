//! A named service: compiled from its spec, kept current by tasks on the control runtime, read by the workers.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use pylon_core::carry::Carry;
use pylon_core::names::UpstreamName;
use pylon_core::secret::Reveal;
use pylon_core::worker::PerWorker;
use pylon_net::proxy_protocol::Version;
use pylon_net::resolve::Resolver;
use pylon_net::timer::sleep;
use pylon_net::tls::client::ClientTls;
use pylon_observe::insight::{Inside, Insight};
use pylon_observe::upstream::UpstreamSeries;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::balance::Method;
use crate::balance::orca::Bounds;
use crate::breaker::scopes::Breakers;
use crate::call::CallOptions;
use crate::call::budget::Terms;
use crate::call::hedge::Hedge;
use crate::call::retry::Retry;
use crate::concurrency::Limited;
use crate::discovery::agents::Agents;
use crate::discovery::file::ReadYaml;
use crate::discovery::ledger::Known;
use crate::key::KeyBy;
use crate::locality::LocalitySpec;
use crate::outbound::Outbound;
use crate::pool::Limits;
use crate::probe::Probes;
use crate::spec::{ProtocolSpec, Speaks};
use crate::timeouts::{TimeoutSpec, Timeouts, deadline_field};

use self::choice::Worker;
use self::shared::{Shared, follow};

mod barred;
pub(crate) mod choice;
mod compile;
mod heads;
pub(crate) mod shared;
mod shown;
mod uptake;

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

impl Upstream {
    /// Comes into force: its tasks begin on `handle`, the control runtime, where they do not run yet, and end when it is dropped.
    pub fn start(self: &Arc<Self>, handle: &Handle) {
        if let Some(series) = &self.series {
            let inside: Weak<Self> = Arc::downgrade(self);
            series.open_to(inside);
        }
        if let Some(concurrency) = &self.concurrency {
            concurrency.start(handle);
        }
        self.start_probes(handle);
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

    /// Whether HTTP/2 may be spoken to it: as is written, or as is agreed on under TLS.
    pub fn may_speak_http2(&self) -> bool {
        match self.protocol {
            ProtocolSpec::Http2 => true,
            ProtocolSpec::Auto => self.shared.sources.tls.is_some(),
            ProtocolSpec::Http1 => false,
        }
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

impl Inside for Upstream {
    fn look(&self, now: Instant) -> Insight {
        Insight {
            endpoints: self.shared.census(),
            sources: self.shared.sources.readings(now),
            crowd: self.concurrency.as_ref().map(Limited::crowd),
            token: self.outbound.as_ref().and_then(|outbound| outbound.reading(now)),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
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
        sleep(LOOK).await;
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
