//! The registry of what is counted: series of routes and upstreams, held weakly, and the counts of the process.
//!
//! Handles are taken when a snapshot is compiled, never on the path of a request. A series lives as long as somebody
//! holds it: routes and upstreams of a document that is gone are no longer exposed, and what they counted is forgotten.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use pylon_core::names::{RouteId, UpstreamName};
use pylon_core::rejection;
use pylon_core::worker::PerWorker;

use crate::clock::unix_now;
use crate::insight::{Supplies, SupplyLook, SupplyReading};
use crate::outcomes::{Evicted, Handshake, Mirrored, Refused};
use crate::reloads::Reloads;
use crate::render;
use crate::series::{OpenConnection, OpenTunnel, ProcessShard, RouteSeries, Sharded};
use crate::tcp::{TcpEnd, TcpRecord};
use crate::upgrades::Upgrades;
use crate::upstream::UpstreamSeries;

/// All counts of the process: made once, after [`worker::set_count`](pylon_core::worker::set_count).
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    routes: Registry<RouteId, RouteSeries>,
    upstreams: Registry<UpstreamName, UpstreamSeries>,
    process: Arc<Sharded<ProcessShard>>,
    shadowed: PerWorker<HashMap<Shadowed, u64>>,
    log: Arc<LogCounts>,
    snapshot: Mutex<Option<Snapshot>>,
    certificates: Mutex<Vec<Certificate>>,
    supplies: SupplyLook,
    shedding: AtomicBool,
    most_connections: AtomicU64,
    /// What became of reloads of the document.
    pub reloads: Reloads,
    /// What became of upgrades.
    pub upgrades: Upgrades,
}

/// Key of the policy and code of the refusal: both from tables of the program, so there are few.
pub(crate) type Shadowed = (&'static str, &'static str);

/// A certificate of a listener, the roots that its clients are verified by, or what is revoked of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The file that it comes from.
    pub cert: String,
    /// Whether it is a list of what is revoked.
    pub is_list: bool,
    /// When it ends, or the first of several, in seconds since 1970.
    pub expires: i64,
    /// Whether its files have changed and cannot be used.
    pub stale: bool,
}

/// The document in force.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) hash: String,
    pub(crate) since: Instant,
}

impl Metrics {
    /// Nothing counted yet; `now` is the start of the process.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            routes: Registry::default(),
            upstreams: Registry::default(),
            process: Arc::new(Sharded::new()),
            shadowed: PerWorker::default(),
            log: Arc::default(),
            snapshot: Mutex::new(None),
            certificates: Mutex::default(),
            supplies: SupplyLook::default(),
            shedding: AtomicBool::new(false),
            most_connections: AtomicU64::new(0),
            reloads: Reloads::new(unix_now()),
            upgrades: Upgrades::default(),
        }
    }

    /// The living series of a route, or a new one.
    pub fn route(&self, route: &RouteId) -> Arc<RouteSeries> {
        self.routes.get(route, || RouteSeries::new(route.clone(), Arc::clone(&self.process)))
    }

    /// The living series of an upstream, or a new one.
    pub fn upstream(&self, upstream: &UpstreamName) -> Arc<UpstreamSeries> {
        self.upstreams.get(upstream, || UpstreamSeries::new(upstream.clone()))
    }

    /// A client's connection was accepted; it counts as open until what this returns is dropped.
    pub fn connected(&self) -> OpenConnection {
        let shard = self.process.mine(ProcessShard::default);
        shard.accepted.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(shard))
    }

    /// A connection has switched protocols; its tunnel counts as open until what this returns is dropped.
    pub fn tunnelled(&self) -> OpenTunnel {
        let shard = self.process.mine(ProcessShard::default);
        shard.tunnels_opened.fetch_add(1, Ordering::Relaxed);
        OpenTunnel(Arc::clone(shard))
    }

    /// A TLS handshake with a client is over.
    pub fn shaken(&self, how: Handshake) {
        if let Some(count) = self.process.mine(ProcessShard::default).handshakes.get(how as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A connection that was carried byte by byte is over.
    pub(crate) fn tcp_ended(&self, record: &TcpRecord<'_>) {
        let shard = self.process.mine(ProcessShard::default);
        if let Some(count) = shard.tcp_ends.get(record.end as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        for (count, bytes) in shard.tcp_bytes.iter().zip([record.received, record.sent]) {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// A connection that had to begin with a PROXY header was closed, since there was none that could be used.
    pub fn proxy_header_refused(&self) {
        self.process.mine(ProcessShard::default).proxy_headers_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's connection was turned away.
    pub fn refused(&self, why: Refused) {
        if let Some(count) = self.process.mine(ProcessShard::default).refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request was to be mirrored.
    pub fn mirrored(&self, outcome: Mirrored) {
        if let Some(count) = self.process.mine(ProcessShard::default).mirrored.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many connections of clients were closed before their time.
    pub fn evicted(&self, which: Evicted, many: usize) {
        if let Some(count) = self.process.mine(ProcessShard::default).evicted.get(which as usize) {
            count.fetch_add(many as u64, Ordering::Relaxed);
        }
    }

    /// Whether new work is turned away since memory is short.
    pub fn sheds(&self, whether: bool) {
        self.shedding.store(whether, Ordering::Relaxed);
    }

    pub(crate) fn is_shedding(&self) -> bool {
        self.shedding.load(Ordering::Relaxed)
    }

    /// There may be so many connections of clients.
    pub fn connections_at_most(&self, most: usize) {
        self.most_connections.store(most as u64, Ordering::Relaxed);
    }

    pub(crate) fn most_connections(&self) -> u64 {
        self.most_connections.load(Ordering::Relaxed)
    }

    /// These are the certificates in force.
    pub fn certificates_in_force(&self, certificates: Vec<Certificate>) {
        *self.certificates.lock() = certificates;
    }

    /// How many exchanges have ended since the start of the process.
    pub fn served(&self) -> u64 {
        let mut served = 0;
        self.process.each(|shard| served += shard.ended.load(Ordering::Relaxed));
        served
    }

    /// How many exchanges have begun and not ended.
    pub fn in_flight(&self) -> u64 {
        let mut in_flight = 0;
        self.process.each(|shard| {
            let ended = shard.ended.load(Ordering::Acquire);
            in_flight += shard.begun.load(Ordering::Relaxed).saturating_sub(ended);
        });
        in_flight
    }

    /// A document came into force at `now`; `hash` is that of its content.
    pub fn snapshot_in_force(&self, hash: impl Into<String>, now: Instant) {
        *self.snapshot.lock() = Some(Snapshot { hash: hash.into(), since: now });
    }

    /// By this is looked at what policies of the document in force rest on.
    pub fn supplies_in_force(&self, look: Box<Supplies>) {
        self.supplies.set(look);
    }

    /// What policies of the document in force rest on.
    pub fn supplies(&self, now: Instant) -> Vec<SupplyReading> {
        self.supplies.look(now)
    }

    /// Appends all metrics in the Prometheus text format (version 0.0.4). `now` is the present.
    ///
    /// With 10,000 routes in use that is some 24 MB of text and 35 ms (`benches/finish.rs`): for the control plane, never for a worker.
    pub fn render(&self, now: Instant, out: &mut String) {
        render::render(self, now, out);
    }

    /// The counts of the access log, for the log itself.
    pub(crate) fn log(&self) -> &Arc<LogCounts> {
        &self.log
    }

    /// A policy in shadow would have refused.
    pub(crate) fn shadow(&self, shadowed: Shadowed) {
        self.shadowed.with(|counts| *counts.entry(shadowed).or_default() += 1);
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot.lock().clone()
    }

    pub(crate) fn certificates(&self) -> Vec<Certificate> {
        self.certificates.lock().clone()
    }

    pub(crate) fn routes(&self) -> Vec<Arc<RouteSeries>> {
        self.routes.living()
    }

    pub(crate) fn upstreams(&self) -> Vec<Arc<UpstreamSeries>> {
        self.upstreams.living()
    }

    /// What the shadows of all workers come to, in order.
    pub(crate) fn shadows(&self) -> Vec<(Shadowed, u64)> {
        let mut all = HashMap::<Shadowed, u64>::new();
        self.shadowed.each(|_, counts| {
            for (shadowed, count) in counts {
                *all.entry(*shadowed).or_default() += *count;
            }
        });
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_unstable();
        all
    }

    /// What the shards of all workers come to.
    pub(crate) fn totals(&self) -> ProcessTotals {
        let mut totals = ProcessTotals { rejections: vec![0; rejection::ALL.len()], ..ProcessTotals::default() };
        self.process.each(|shard| {
            // The end before the beginning: what begins in between must not make the difference negative.
            let (ended, closed) = (shard.ended.load(Ordering::Acquire), shard.closed.load(Ordering::Acquire));
            let accepted = shard.accepted.load(Ordering::Relaxed);
            let left = shard.tunnels_closed.load(Ordering::Acquire);
            totals.tunnels += shard.tunnels_opened.load(Ordering::Relaxed).saturating_sub(left);
            totals.in_flight += shard.begun.load(Ordering::Relaxed).saturating_sub(ended);
            totals.open += accepted.saturating_sub(closed);
            totals.accepted += accepted;
            totals.client_aborts += shard.client_aborts.load(Ordering::Relaxed);
            totals.proxy_headers_refused += shard.proxy_headers_refused.load(Ordering::Relaxed);
            for (total, count) in totals.tcp_ends.iter_mut().zip(&shard.tcp_ends) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.tcp_bytes.iter_mut().zip(&shard.tcp_bytes) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.handshakes.iter_mut().zip(&shard.handshakes) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.faults.iter_mut().zip(&shard.faults) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.mirrored.iter_mut().zip(&shard.mirrored) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.refused.iter_mut().zip(&shard.refused) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.evicted.iter_mut().zip(&shard.evicted) {
                *total += count.load(Ordering::Relaxed);
            }
            for (total, count) in totals.rejections.iter_mut().zip(&shard.rejections) {
                *total += count.load(Ordering::Relaxed);
            }
        });
        totals
    }
}

/// What the workers have counted beside routes and upstreams.
#[derive(Debug, Default)]
pub(crate) struct ProcessTotals {
    pub(crate) in_flight: u64,
    pub(crate) accepted: u64,
    pub(crate) open: u64,
    pub(crate) tunnels: u64,
    pub(crate) client_aborts: u64,
    pub(crate) proxy_headers_refused: u64,
    pub(crate) tcp_ends: [u64; TcpEnd::NAMES.len()],
    pub(crate) tcp_bytes: [u64; 2],
    pub(crate) handshakes: [u64; Handshake::NAMES.len()],
    pub(crate) faults: [u64; 2],
    pub(crate) mirrored: [u64; Mirrored::NAMES.len()],
    pub(crate) refused: [u64; Refused::NAMES.len()],
    pub(crate) evicted: [u64; Evicted::NAMES.len()],
    pub(crate) rejections: Vec<u64>,
}

/// Lines of the access log.
#[derive(Debug, Default)]
pub(crate) struct LogCounts {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Living things by name, kept by their users.
#[derive(Debug)]
struct Registry<K, T>(Mutex<Entries<K, T>>);

#[derive(Debug)]
struct Entries<K, T> {
    by_name: HashMap<K, Weak<T>>,
    /// At this size the dead are swept out, so that sweeping costs little for each that is added.
    sweep_at: usize,
}

impl<K, T> Default for Registry<K, T> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_name: HashMap::new(), sweep_at: 64 }))
    }
}

impl<K: Eq + Hash + Clone, T> Registry<K, T> {
    fn get(&self, name: &K, make: impl FnOnce() -> T) -> Arc<T> {
        let mut entries = self.0.lock();
        if let Some(living) = entries.by_name.get(name).and_then(Weak::upgrade) {
            return living;
        }
        if entries.by_name.len() >= entries.sweep_at {
            entries.sweep();
        }
        let new = Arc::new(make());
        entries.by_name.insert(name.clone(), Arc::downgrade(&new));
        new
    }

    /// All that live, in no order; the dead are forgotten.
    fn living(&self) -> Vec<Arc<T>> {
        let mut entries = self.0.lock();
        entries.sweep();
        entries.by_name.values().filter_map(Weak::upgrade).collect()
    }
}

impl<K: Eq + Hash, T> Entries<K, T> {
    fn sweep(&mut self) {
        self.by_name.retain(|_, weak| weak.strong_count() > 0);
        self.sweep_at = (self.by_name.len() * 2).max(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn the_same_route_keeps_its_series_over_a_reload_and_a_dropped_one_is_forgotten() {
        let metrics = Metrics::new(monotonic());
        let before = metrics.route(&"a".into());
        let after = metrics.route(&"a".into());
        assert!(Arc::ptr_eq(&before, &after));
        drop(before);
        assert!(Arc::ptr_eq(&after, &metrics.route(&"a".into())));
        drop(after);
        assert!(metrics.routes().is_empty());
        assert!(metrics.routes.0.lock().by_name.is_empty());
    }

    #[test]
    fn a_thousand_reloads_with_new_routes_leave_the_registry_small() {
        let metrics = Metrics::new(monotonic());
        for n in 0..100_000 {
            drop(metrics.route(&format!("route {n}").into()));
        }
        assert!(metrics.routes.0.lock().by_name.len() <= 64);
    }
}
