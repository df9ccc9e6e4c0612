//! The counts of one route: a shard for each worker, so that no request writes what another core reads. Those of an upstream
//! (`upstream.rs`) are made alike.
//!
//! A shard comes into being with its worker's first request. An idle route costs its series alone: about 200 bytes with
//! two workers, its id included, and 16 more for each further worker (`benches/finish.rs`: 1.85 MB for 10,000 routes and
//! one worker). A route in use costs about 600 bytes for each worker that serves it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pylon_core::exchange::StoodIn;
use pylon_core::names::RouteId;
use pylon_core::worker;

use crate::histogram::{Histogram, Totals};
use crate::json;
use crate::outcomes::{Evicted, Handshake, Mirrored, Refused};
use crate::tcp::TcpEnd;

/// The classes of status by the values of the label `status_class`.
pub(crate) const CLASSES: [&str; 7] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The counts of one route, held by the route itself; when the last holder drops it, it is no longer exposed.
#[derive(Debug)]
pub struct RouteSeries {
    route: RouteId,
    shards: Sharded<RouteShard>,
    process: Arc<Sharded<ProcessShard>>,
}

impl RouteSeries {
    pub(crate) fn new(route: RouteId, process: Arc<Sharded<ProcessShard>>) -> Self {
        Self { route, shards: Sharded::new(), process }
    }

    /// The route that is counted.
    pub fn route(&self) -> &RouteId {
        &self.route
    }

    /// The shard of the current worker. Cloning it writes no count that another worker writes too.
    pub fn mine(&self) -> &Arc<RouteShard> {
        self.shards.mine(|| RouteShard::new(self.route.as_str(), Arc::clone(self.process.mine(ProcessShard::default))))
    }

    pub(crate) fn total(&self) -> Total {
        let mut total = Total::default();
        self.shards.each(|shard| total.add(&shard.answers));
        total
    }

    /// How often fallbacks were met, in the order of [`StoodIn::NAMES`].
    pub(crate) fn fallbacks(&self) -> [u64; StoodIn::NAMES.len()] {
        let mut all = [0; StoodIn::NAMES.len()];
        self.shards.each(|shard| {
            for (sum, count) in all.iter_mut().zip(&shard.fallbacks) {
                *sum += count.load(Ordering::Relaxed);
            }
        });
        all
    }
}

/// One worker's counts of one route, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct RouteShard {
    answers: Answers,
    /// By [`StoodIn`].
    fallbacks: [AtomicU64; StoodIn::NAMES.len()],
    process: Arc<ProcessShard>,
    /// The worker's own copy of the route's id.
    route: Box<str>,
    /// `,"route":"…"`, ready for the log.
    logged: Box<[u8]>,
}

impl RouteShard {
    fn new(route: &str, process: Arc<ProcessShard>) -> Self {
        let mut logged = br#","route":"#.to_vec();
        json::string(&mut logged, route, usize::MAX);
        let (answers, fallbacks) = (Answers::default(), <[AtomicU64; _]>::default());
        Self { answers, fallbacks, process, route: route.into(), logged: logged.into() }
    }

    /// A request has begun: it is in flight until [`Observer::finish`](crate::Observer::finish) is called for it, once.
    pub fn begin(&self) {
        self.process.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// The id of the route.
    pub fn route(&self) -> &str {
        &self.route
    }

    pub(crate) fn logged(&self) -> &[u8] {
        &self.logged
    }

    /// A fallback was met.
    pub(crate) fn fell_back(&self, by: StoodIn) {
        if let Some(count) = self.fallbacks.get(by as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the end of a request.
    pub(crate) fn end(&self, status: u16, took: Duration) -> &ProcessShard {
        self.answers.count(class_of(status), took);
        self.process.ended.fetch_add(1, Ordering::Relaxed);
        &self.process
    }
}

/// An open connection of a client.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenConnection(pub(crate) Arc<ProcessShard>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Release);
    }
}

/// An open tunnel.
#[derive(Debug)]
#[must_use = "the tunnel counts as closed when this is dropped"]
pub struct OpenTunnel(pub(crate) Arc<ProcessShard>);

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels_closed.fetch_add(1, Ordering::Release);
    }
}

/// One worker's counts that belong to no route and no upstream.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ProcessShard {
    pub(crate) begun: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) client_aborts: AtomicU64,
    pub(crate) proxy_headers_refused: AtomicU64,
    pub(crate) tunnels_opened: AtomicU64,
    pub(crate) tunnels_closed: AtomicU64,
    /// By [`TcpEnd`].
    pub(crate) tcp_ends: [AtomicU64; TcpEnd::NAMES.len()],
    /// From clients and to clients, on connections that are carried byte by byte.
    pub(crate) tcp_bytes: [AtomicU64; 2],
    /// By [`Handshake`].
    pub(crate) handshakes: [AtomicU64; Handshake::NAMES.len()],
    /// Faults injected: delays and aborts.
    pub(crate) faults: [AtomicU64; 2],
    /// By [`Mirrored`].
    pub(crate) mirrored: [AtomicU64; Mirrored::NAMES.len()],
    /// By [`Refused`].
    pub(crate) refused: [AtomicU64; Refused::NAMES.len()],
    /// By [`Evicted`].
    pub(crate) evicted: [AtomicU64; Evicted::NAMES.len()],
    /// By [`Reason::index`](pylon_core::rejection::Reason::index).
    pub(crate) rejections: Box<[AtomicU64]>,
}

impl Default for ProcessShard {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            begun: zero(),
            ended: zero(),
            accepted: zero(),
            closed: zero(),
            client_aborts: zero(),
            proxy_headers_refused: zero(),
            tunnels_opened: zero(),
            tunnels_closed: zero(),
            tcp_ends: std::array::from_fn(|_| zero()),
            tcp_bytes: [zero(), zero()],
            handshakes: std::array::from_fn(|_| zero()),
            faults: [zero(), zero()],
            mirrored: std::array::from_fn(|_| zero()),
            refused: std::array::from_fn(|_| zero()),
            evicted: std::array::from_fn(|_| zero()),
            rejections: pylon_core::rejection::ALL.iter().map(|_| zero()).collect(),
        }
    }
}

/// Answers by class of status and by duration.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    classes: [AtomicU64; CLASSES.len()],
    durations: Histogram,
}

impl Answers {
    /// How many there were.
    pub(crate) fn sum(&self) -> u64 {
        self.classes.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn count(&self, class: usize, took: Duration) {
        if let Some(count) = self.classes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.durations.observe(took);
    }
}

/// What the shards of a series come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Total {
    pub(crate) classes: [u64; CLASSES.len()],
    pub(crate) durations: Totals,
}

impl Total {
    pub(crate) fn add(&mut self, answers: &Answers) {
        for (total, class) in self.classes.iter_mut().zip(&answers.classes) {
            *total += class.load(Ordering::Relaxed);
        }
        self.durations.add(&answers.durations);
    }

    /// Whether anything was ever counted.
    pub(crate) fn is_used(&self) -> bool {
        self.classes.iter().any(|&n| n > 0)
    }
}

/// A `T` for each worker, made by its first use, and one for all threads that are no worker.
#[derive(Debug)]
pub(crate) struct Sharded<T> {
    workers: Box<[OnceLock<Arc<T>>]>,
    others: OnceLock<Arc<T>>,
}

impl<T> Sharded<T> {
    pub(crate) fn new() -> Self {
        Self { workers: (0..worker::count()).map(|_| OnceLock::new()).collect(), others: OnceLock::new() }
    }

    /// The shard of the current worker.
    pub(crate) fn mine(&self, make: impl FnOnce() -> T) -> &Arc<T> {
        let slot = worker::current().and_then(|id| self.workers.get(id)).unwrap_or(&self.others);
        slot.get_or_init(|| Arc::new(make()))
    }

    /// Looks at every shard that is in use.
    pub(crate) fn each(&self, mut look: impl FnMut(&T)) {
        for slot in self.workers.iter().chain(std::iter::once(&self.others)) {
            if let Some(shard) = slot.get() {
                look(shard);
            }
        }
    }
}

pub(crate) fn class_of(status: u16) -> usize {
    match status {
        100..600 => usize::from(status / 100),
        _ => CLASSES.len() - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_belongs_to_the_class_of_its_first_digit() {
        for (status, class) in
            [(100, "1xx"), (200, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx"), (600, "other"), (0, "other")]
        {
            assert_eq!(CLASSES[class_of(status)], class);
        }
    }

    #[test]
    fn shards_of_two_workers_share_no_cache_line() {
        assert!(align_of::<RouteShard>() >= 128 && align_of::<ProcessShard>() >= 128);
    }

    #[test]
    fn idle_and_busy_routes_cost_what_the_module_says() {
        // Two workers; the text of the id, the entry in the registry and the allocator's own bytes come on top.
        assert!(size_of::<RouteSeries>() + 2 * size_of::<OnceLock<Arc<RouteShard>>>() <= 128);
        assert!(128 + size_of::<RouteShard>() <= 640, "{}", size_of::<RouteShard>());
    }

    #[test]
    fn workers_count_apart_and_are_added_up() {
        let series = RouteSeries::new("r".into(), Arc::new(Sharded::new()));
        series.mine().end(200, Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                worker::enter(0);
                series.mine().end(503, Duration::from_millis(9));
            });
        });
        let total = series.total();
        assert_eq!(total.classes, [0, 0, 1, 0, 0, 1, 0]);
        assert_eq!(total.durations.sum, 10_000_000);
    }
}
