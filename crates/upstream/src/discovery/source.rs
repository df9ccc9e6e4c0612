//! What `discover` names: a source that is followed for as long as someone holds it, and the endpoints that it makes.
//!
//! Shared between upstreams and snapshots through `Carry`, with the pools of its endpoints. A finder follows one kind of
//! source and reports what it finds; it never ends by itself.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_net::resolve::Resolver;
use pylon_net::tls::client::{ClientTls, Towards};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::consul;
use super::dns::{self, Name};
use super::etcd;
use super::file;
use super::kubernetes;
use super::ledger::{Known, Ledger};
use super::srv;
use super::target::{Key, Target};
use crate::endpoint::{Endpoint, Place};
use crate::pool::Pool;
use crate::spec::one_hour;

/// Follows one kind of source.
#[derive(Debug)]
pub(crate) enum Finder {
    Dns(dns::Addresses),
    Srv(srv::Records),
    File(file::Listed),
    Consul(consul::Service),
    Etcd(etcd::Prefix),
    Kubernetes(kubernetes::Slices),
}

impl Finder {
    /// The word for it in a document.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Srv(_) => "srv",
            Self::File(_) => "file",
            Self::Consul(_) => "consul",
            Self::Etcd(_) => "etcd",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    async fn follow(&self, report: &Report) {
        match self {
            Self::Dns(finder) => finder.follow(report).await,
            Self::Srv(finder) => finder.follow(report).await,
            Self::File(finder) => finder.follow(report).await,
            Self::Consul(finder) => finder.follow(report).await,
            Self::Etcd(finder) => finder.follow(report).await,
            Self::Kubernetes(finder) => finder.follow(report).await,
        }
    }
}

/// Where endpoints are found at run time.
#[derive(Debug)]
pub(crate) struct Source {
    finder: Arc<Finder>,
    /// What is looked for, as it is written.
    what: String,
    ledger: Ledger<Target>,
    resolver: Resolver,
    /// None in cleartext.
    tls: Option<Arc<ClientTls>>,
    held: Mutex<HashMap<Key, Held>>,
    control: OnceLock<Handle>,
    task: Mutex<Option<AbortHandle>>,
}

/// What lives as long as an endpoint is named.
#[derive(Debug)]
struct Held {
    place: Place,
    tls: Option<Towards>,
    pool: Arc<Pool>,
    named: Option<Named>,
}

/// A host name that is resolved for an endpoint, and the task that passes its news on.
#[derive(Debug)]
struct Named {
    name: Arc<Name>,
    task: AbortHandle,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    /// `keep` says for how long the last good answer is used; without it, until there is another.
    pub(crate) fn new(
        finder: Finder,
        what: String,
        keep: Option<Duration>,
        resolver: Resolver,
        tls: Option<Arc<ClientTls>>,
    ) -> Self {
        Self {
            finder: Arc::new(finder),
            what,
            ledger: Ledger::new(keep),
            resolver,
            tls,
            held: Mutex::default(),
            control: OnceLock::new(),
            task: Mutex::default(),
        }
    }

    /// Begins to look on `handle`, once.
    pub(crate) fn start(self: &Arc<Self>, handle: &Handle) {
        let mut task = self.task.lock();
        if task.is_none() {
            let handle = self.control.get_or_init(|| handle.clone());
            let (finder, report) = (Arc::clone(&self.finder), Report(Arc::downgrade(self)));
            *task = Some(handle.spawn(async move { finder.follow(&report).await }).abort_handle());
        }
    }

    /// The word for its kind in a document.
    pub(crate) fn kind(&self) -> &'static str {
        self.finder.kind()
    }

    /// What is looked for, as it is written.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn known(&self) -> Known<Target> {
        self.ledger.known()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Known<Target>> {
        self.ledger.watch()
    }

    /// The names that endpoints have in place of addresses.
    pub(crate) fn names(&self) -> Vec<Arc<Name>> {
        self.held.lock().values().filter_map(|held| held.named.as_ref()).map(|named| Arc::clone(&named.name)).collect()
    }

    /// The endpoints that are there now. Idle connections to those that are gone are closed, others when they come back.
    pub(crate) fn endpoints(self: &Arc<Self>) -> Vec<Endpoint> {
        let found = self.ledger.found();
        let keys: HashSet<Key> = found.iter().map(Target::key).collect();
        let mut held = self.held.lock();
        held.retain(|key, held| {
            let stays = keys.contains(key);
            if !stays {
                held.pool.allow(&[]);
            }
            stays
        });
        let mut endpoints = Vec::with_capacity(found.len());
        for target in found {
            let key = target.key();
            if !held.contains_key(&key) {
                let Some(new) = self.hold(&target) else { continue };
                held.insert(key.clone(), new);
            }
            endpoints.extend(held.get(&key).and_then(|held| held.endpoint(&target, self.kind())));
        }
        endpoints
    }

    /// Logs the beginning and the end of trouble, and not each try.
    fn note(&self, trouble: Option<&str>) {
        let before = self.known();
        let (kind, what) = (self.kind(), self.what());
        match (before.error, trouble) {
            (None, Some(error)) => {
                tracing::warn!(source = kind, what, error, "discovery fails; the endpoints before stay in use");
            }
            (Some(_), None) => tracing::info!(source = kind, what, "discovery works again"),
            _ => {}
        }
    }

    /// Whether a certificate can be for this host.
    fn is_reachable(&self, target: &Target) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.towards(&target.host).is_some())
    }

    fn hold(self: &Arc<Self>, target: &Target) -> Option<Held> {
        let place = target.place(self.tls.is_some())?;
        let tls = match &self.tls {
            Some(tls) => Some(tls.towards(&target.host)?),
            None => None,
        };
        let named = (target.addr.is_none() && place.literal().is_none()).then(|| self.name(&place));
        Some(Held { place, tls, pool: Arc::new(Pool::new()), named: named.flatten() })
    }

    fn name(self: &Arc<Self>, place: &Place) -> Option<Named> {
        let control = self.control.get()?;
        let name = Arc::new(Name::new(place.clone(), one_hour().duration(), self.resolver.clone()));
        name.start(control);
        let (mut news, source) = (name.watch(), Arc::downgrade(self));
        let pass_on = async move {
            while news.changed().await.is_ok() {
                let Some(source) = source.upgrade() else { return };
                source.ledger.poke();
            }
        };
        Some(Named { name, task: control.spawn(pass_on).abort_handle() })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Held {
    /// None while a host name has no address.
    fn endpoint(&self, target: &Target, source: &'static str) -> Option<Endpoint> {
        let fixed = target.addr.map(|addr| SocketAddr::new(addr, target.port)).or_else(|| self.place.literal());
        let addrs: Vec<SocketAddr> = match &self.named {
            Some(named) => named.name.addrs(),
            None => fixed.into_iter().collect(),
        };
        let epoch = self.pool.allow(&addrs);
        (!addrs.is_empty()).then(|| Endpoint {
            joined: None,
            id: target.to_string().into(),
            path: None,
            authority: self.place.authority.clone(),
            addrs: addrs.into(),
            weight: target.weight,
            whereabouts: target.whereabouts.clone(),
            priority: target.priority,
            name: None,
            source,
            tls: self.tls.clone(),
            pool: Arc::clone(&self.pool),
            epoch,
        })
    }
}

/// Where a finder tells what it found.
#[derive(Debug)]
pub(crate) struct Report(Weak<Source>);

impl Report {
    /// These are the endpoints; `trouble` names what of the answer is of no use.
    pub(crate) fn found(&self, mut targets: Vec<Target>, mut trouble: Option<String>) {
        let Some(source) = self.0.upgrade() else { return };
        targets.retain(|target| {
            let stays = source.is_reachable(target);
            if !stays {
                trouble = Some(format!(
                    "no certificate can be for `{}`: write which name it is for, `tls: {{ server_name: … }}`",
                    target.host
                ));
            }
            stays
        });
        targets.sort_unstable();
        targets.dedup_by_key(|target| target.key());
        source.note(trouble.as_deref());
        source.ledger.learn(targets, trouble, now());
    }

    /// The endpoints are still those that were found last.
    pub(crate) fn confirmed(&self) {
        if let Some(source) = self.0.upgrade() {
            source.ledger.confirm(now());
        }
    }

    /// There was no answer, or none that can be used: those that were found last stay.
    pub(crate) fn failed(&self, error: String) {
        let Some(source) = self.0.upgrade() else { return };
        source.note(Some(&error));
        source.ledger.fail(error, now());
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
