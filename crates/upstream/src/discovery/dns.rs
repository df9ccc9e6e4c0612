//! Names that are resolved again when their TTL is over, the last good answer being kept while that fails.
//!
//! TTLs are bounded to 1 s and 5 min; a little is added by lot, so that names do not all ask at once. After a failure
//! the next try comes after 1 s, then 2 s, and so on up to 30 s.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_net::resolve::{ResolveError, Resolved, Resolver};
use pylon_net::tls::client::Towards;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::endpoint::{Endpoint, Place};
use crate::pool::Pool;

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
    keep: Duration,
    resolver: Resolver,
    known: watch::Sender<Known>,
    /// The pools of its addresses, where each of them is an endpoint.
    pools: Mutex<HashMap<SocketAddr, Arc<Pool>>>,
    task: Mutex<Option<AbortHandle>>,
}

/// What is known of a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) addrs: Vec<IpAddr>,
    /// When `addrs` were last confirmed.
    pub(crate) at: Option<Instant>,
    /// Why the last lookup failed; none when it did not.
    pub(crate) error: Option<String>,
    /// Whether there has been an answer at all, good or bad.
    pub(crate) asked: bool,
}

impl Name {
    pub(crate) fn new(place: Place, keep: Duration, resolver: Resolver) -> Self {
        let known = watch::Sender::new(Known::default());
        Self { place, keep, resolver, known, pools: Mutex::default(), task: Mutex::default() }
    }

    /// Begins to resolve on `handle`, once.
    pub(crate) fn start(self: &Arc<Self>, handle: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let work = follow(Arc::downgrade(self), self.place.host.clone(), self.resolver.clone());
            *task = Some(handle.spawn(work).abort_handle());
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn known(&self) -> Known {
        self.known.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// The present addresses.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.known.borrow().addrs.iter().map(|ip| SocketAddr::new(*ip, self.place.port)).collect()
    }

    /// One endpoint for each present address. Connections to addresses that are gone are closed.
    pub(crate) fn endpoints(&self, tls: Option<&Towards>) -> Vec<Endpoint> {
        let addrs = self.addrs();
        let mut pools = self.pools.lock();
        pools.retain(|addr, pool| {
            let stays = addrs.contains(addr);
            if !stays {
                pool.allow(&[]);
            }
            stays
        });
        let endpoint = |addr: SocketAddr| {
            let pool = pools.entry(addr).or_insert_with(|| Arc::new(Pool::new()));
            let epoch = pool.allow(&[addr]);
            Endpoint {
                path: None,
                authority: self.place.authority.clone(),
                addrs: Arc::from([addr]),
                weight: 1,
                source: "dns",
                tls: tls.cloned(),
                pool: Arc::clone(pool),
                epoch,
            }
        };
        addrs.into_iter().map(endpoint).collect()
    }

    /// Takes in an answer, and says when to ask again. `failures` counts those in a row.
    fn learn(&self, answer: Result<Resolved, ResolveError>, failures: &mut u32, now: Instant) -> Duration {
        match answer {
            Ok(Resolved { mut addrs, ttl }) => {
                *failures = 0;
                addrs.sort_unstable();
                let next = Known { addrs, at: Some(now), error: None, asked: true };
                self.known.send_if_modified(|known| {
                    let news = known.addrs != next.addrs || !known.asked;
                    *known = next;
                    news
                });
                let ttl = ttl.clamp(SHORTEST, LONGEST);
                ttl + ttl.mul_f64(0.05).min(Duration::from_millis(500)).mul_f64(fastrand::f64())
            }
            Err(error) => {
                let wait = FIRST_RETRY.saturating_mul(1_u32 << (*failures).min(5)).min(LAST_RETRY);
                *failures = failures.saturating_add(1);
                self.known.send_if_modified(|known| {
                    let mut news = !known.asked;
                    known.asked = true;
                    known.error = Some(error.to_string());
                    if known.at.is_some_and(|at| now.saturating_duration_since(at) > self.keep) {
                        news |= !known.addrs.is_empty();
                        known.addrs.clear();
                    }
                    news
                });
                wait
            }
        }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

async fn follow(name: Weak<Name>, host: String, resolver: Resolver) {
    let mut failures = 0;
    loop {
        let answer = tokio::time::timeout(LOOKUP, resolver.lookup_ip(&host)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(ResolveError::Lookup(host.clone(), "no answer within 10 s".to_owned())));
        let now = tokio::time::Instant::now();
        let Some(wait) = name.upgrade().map(|name| name.learn(answer, &mut failures, now.into_std())) else { return };
        tokio::time::sleep_until(now + wait).await;
    }
}
