//! Names that are resolved again when their TTL is over, the last good answer being kept while that fails.
//!
//! TTLs are bounded to 1 s and 5 min; a little is added by lot, so that names do not all ask at once. After a failure
//! the next try comes after about 1 s, then 2 s, and so on up to 30 s.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pylon_net::resolve::{ResolveError, Resolved, Resolver};
use pylon_net::timer::{sleep, timeout};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::ledger::{Backoff, Known, Ledger};
use super::source::Report;
use super::target::Target;
use crate::endpoint::Place;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long one lookup may take, whatever the servers' own timeouts.
const LOOKUP: Duration = Duration::from_secs(10);

/// A name that is resolved for as long as someone holds it. Shared between upstreams and snapshots through `Carry`.
#[derive(Debug)]
pub(crate) struct Name {
    place: Place,
    resolver: Resolver,
    ledger: Arc<Ledger<IpAddr>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Name {
    pub(crate) fn new(place: Place, keep: Duration, resolver: Resolver) -> Self {
        Self { place, resolver, ledger: Arc::new(Ledger::new(Some(keep))), task: Mutex::default() }
    }

    /// Begins to resolve on `handle`, once.
    pub(crate) fn start(&self, handle: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let (host, resolver, ledger) = (self.place.host.clone(), self.resolver.clone(), Arc::clone(&self.ledger));
            let work = async move {
                let tell = |answer: Result<Vec<IpAddr>, String>| match answer {
                    Ok(addrs) => ledger.learn(addrs, None, now()),
                    Err(error) => ledger.fail(error, now()),
                };
                follow(&host, || addresses(&resolver, &host), tell).await;
            };
            *task = Some(handle.spawn(work).abort_handle());
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn known(&self) -> Known<IpAddr> {
        self.ledger.known()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Known<IpAddr>> {
        self.ledger.watch()
    }

    /// The present addresses.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.ledger.found().into_iter().map(|ip| SocketAddr::new(ip, self.place.port)).collect()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

/// A name whose every address is an endpoint: `discover: { dns: users.internal:8080 }`.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) target: Target,
    pub(crate) resolver: Resolver,
}

impl Addresses {
    pub(crate) async fn follow(&self, report: &Report) {
        let endpoints = |addrs: Vec<IpAddr>| {
            addrs.into_iter().map(|addr| Target { addr: Some(addr), ..self.target.clone() }).collect()
        };
        let tell = |answer: Result<Vec<IpAddr>, String>| match answer {
            Ok(addrs) => report.found(endpoints(addrs), None),
            Err(error) => report.failed(error),
        };
        follow(&self.target.host, || addresses(&self.resolver, &self.target.host), tell).await;
    }
}

async fn addresses(resolver: &Resolver, host: &str) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
    resolver.lookup_ip(host).await.map(|Resolved { addrs, ttl }| (addrs, ttl))
}

/// Looks `name` up again and again, when the TTL of the last answer is over or the time after a failure.
pub(crate) async fn follow<T, F>(name: &str, look: impl Fn() -> F, mut tell: impl FnMut(Result<T, String>))
where
    F: Future<Output = Result<(T, Duration), ResolveError>>,
{
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        let answer = timeout(LOOKUP, look()).await;
        let answer =
            answer.unwrap_or_else(|_| Err(ResolveError::Lookup(name.to_owned(), "no answer within 10 s".to_owned())));
        let wait = match answer {
            Ok((found, ttl)) => {
                backoff.reset();
                tell(Ok(found));
                let ttl = ttl.clamp(SHORTEST, LONGEST);
                ttl + ttl.mul_f64(0.05).min(Duration::from_millis(500)).mul_f64(fastrand::f64())
            }
            Err(error) => {
                tell(Err(error.to_string()));
                backoff.next(fastrand::f64())
            }
        };
        sleep(wait).await;
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
