//! Idle connections of one endpoint, kept for each worker apart, and how many exchanges are under way there; how many may be open.
//!
//! A worker takes the connection that it gave back last. Nothing waits on an idle connection: it is looked at when it
//! is taken and by a sweep each second, neither of which costs a system call where nothing happened. A connection goes
//! back only when its exchange ended cleanly; whoever holds it decides that (`h1`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::worker;
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::h1::conn::Conn;
use crate::h2;
use crate::pace::Pace;
use pylon_core::spare;

/// How long and how many connections may idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For each worker and endpoint.
    pub(crate) max_idle: usize,
    pub(crate) idle: Duration,
    pub(crate) lifetime: Duration,
    /// How many may be open to an endpoint, over all workers, and how long a request waits for one of them.
    pub(crate) most: Option<(u32, Duration)>,
}

/// The connections of one endpoint. Shared between snapshots through `Carry`.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Box<[Arc<Slot>]>,
    shared: Arc<Shared>,
}

/// What one worker has of a pool. Its reference count is written by that worker alone.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    idle: Mutex<VecDeque<Idle>>,
    /// Connections that carry many exchanges at once.
    pub(crate) multiplexed: h2::pool::Pool,
    in_flight: AtomicU32,
    pub(crate) counters: Counters,
    /// How long answers take.
    pub(crate) pace: Pace,
    shared: Arc<Shared>,
}

/// What all workers see of a pool, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shared {
    in_flight: AtomicU32,
    /// Rises when the addresses change; a connection of another epoch is compared with them.
    epoch: AtomicU32,
    addrs: ArcSwap<Vec<SocketAddr>>,
    allowing: Mutex<()>,
    /// Connections that are open or being made.
    open: AtomicU32,
    /// One was closed, or came back where not all may be open.
    freed: Notify,
    /// What the workers have, so that one can make room for another.
    slots: OnceLock<Box<[Weak<Slot>]>>,
}

/// A connection counts among those that are open to its endpoint until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, AcqRel);
        self.0.freed.notify_one();
    }
}

#[derive(Debug)]
struct Idle {
    conn: Conn,
    until: Instant,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let slot = |_| {
            Arc::new(Slot {
                idle: Mutex::default(),
                multiplexed: h2::pool::Pool::default(),
                in_flight: AtomicU32::new(0),
                counters: Counters::default(),
                pace: Pace::default(),
                shared: Arc::clone(&shared),
            })
        };
        let slots: Box<[Arc<Slot>]> = (0..=worker::count()).map(slot).collect();
        // Nobody else has set it: the pool is new.
        let _new = shared.slots.set(slots.iter().map(Arc::downgrade).collect());
        Self { slots, shared }
    }

    /// The slot of the current worker.
    pub(crate) fn mine(&self) -> Option<&Arc<Slot>> {
        let last = self.slots.len().saturating_sub(1);
        self.slots.get(worker::current().map_or(last, |id| id.min(last)))
    }

    /// Says which addresses the endpoint has. Connections to others are closed now, or when they come back. Answers
    /// with the epoch of these addresses.
    pub(crate) fn allow(&self, addrs: &[SocketAddr]) -> u32 {
        let _one_at_a_time = self.shared.allowing.lock();
        if self.shared.addrs.load().as_slice() == addrs {
            return self.shared.epoch.load(Relaxed);
        }
        self.shared.addrs.store(Arc::new(addrs.to_vec()));
        let epoch = self.shared.epoch.fetch_add(1, Relaxed).wrapping_add(1);
        for slot in &self.slots {
            slot.idle.lock().retain(|idle| addrs.contains(&idle.conn.life.addr));
            slot.multiplexed.allow(addrs);
        }
        epoch
    }

    /// How many connections idle, over all workers.
    pub(crate) fn idle(&self) -> usize {
        self.slots.iter().map(|slot| slot.idle.lock().len() + slot.multiplexed.idle()).sum()
    }

    /// How many connections are open or being made, over all workers.
    pub(crate) fn open(&self) -> u32 {
        self.shared.open.load(Relaxed)
    }

    /// How many exchanges are under way, over all workers.
    pub(crate) fn in_flight(&self) -> u32 {
        self.slots.iter().map(|slot| slot.in_flight.load(Relaxed)).sum()
    }

    /// The sum over all workers.
    pub(crate) fn counters(&self) -> [u64; 4] {
        self.slots.iter().map(|slot| slot.counters.read()).fold([0; 4], |sum, more| {
            let mut both = sum.into_iter().zip(more);
            std::array::from_fn(|_| both.next().map_or(0, |(a, b)| a.wrapping_add(b)))
        })
    }
}

impl Slot {
    /// The connection given back last that is still good, if any.
    pub(crate) fn take(&self, now: Instant) -> Option<Conn> {
        let mut idle = self.idle.lock();
        while let Some(Idle { mut conn, until }) = idle.pop_back() {
            if now < until && conn.stream.is_quiet() {
                return Some(conn);
            }
        }
        None
    }

    /// Closes what has idled or lived too long, and what the peer closed.
    pub(crate) fn sweep(&self, now: Instant, limits: &Limits) {
        self.multiplexed.sweep(now, limits.idle);
        self.idle.lock().retain_mut(|idle| now < idle.until && idle.conn.stream.is_quiet());
    }

    /// Exchanges under way as all workers see them; only kept where the balancer asks for it.
    pub(crate) fn load(&self) -> u32 {
        self.shared.in_flight.load(Relaxed)
    }

    /// Exchanges of this worker under way.
    pub(crate) fn own_load(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Counts an exchange that begins. `shared` says that all workers must see it.
    pub(crate) fn begin(&self, shared: bool) {
        self.in_flight.fetch_add(1, Relaxed);
        if shared {
            self.shared.in_flight.fetch_add(1, Relaxed);
        }
    }

    /// Counts an exchange that ends, the same way as it began.
    pub(crate) fn end(&self, shared: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        if shared {
            self.shared.in_flight.fetch_sub(1, Relaxed);
        }
    }

    /// Room for one more connection, where fewer than `most` are open.
    pub(crate) fn place(&self, most: u32) -> Option<Place> {
        let more = |open: u32| (open < most).then(|| open.saturating_add(1));
        self.shared.open.fetch_update(AcqRel, Acquire, more).ok().map(|_| Place(Arc::clone(&self.shared)))
    }

    /// Closes a connection that idles at some worker, this one's last.
    pub(crate) fn close_one(&self) {
        let slots = self.shared.slots.get().into_iter().flatten().filter_map(Weak::upgrade);
        let (own, others): (Vec<_>, Vec<_>) = slots.partition(|slot| std::ptr::addr_eq(Arc::as_ptr(slot), self));
        let _closed = others.iter().chain(&own).any(|slot| slot.close_oldest());
    }

    fn close_oldest(&self) -> bool {
        let oldest = self.idle.lock().pop_front();
        oldest.is_some() || self.multiplexed.close_one()
    }

    /// Waits until a connection has been closed, or came back.
    pub(crate) async fn freed(&self) {
        self.shared.freed.notified().await;
    }

    /// Takes a clean connection back.
    pub(crate) fn give(&self, conn: Conn, now: Instant, limits: &Limits) {
        self.keep(conn, now, limits);
        if limits.most.is_some() {
            self.shared.freed.notify_one();
        }
    }

    fn keep(&self, mut conn: Conn, now: Instant, limits: &Limits) {
        let mut idle = self.idle.lock();
        // Under the lock: either this sees the epoch of new addresses, or `allow` sees the connection.
        let epoch = self.shared.epoch.load(Relaxed);
        if conn.life.epoch != epoch {
            if !self.shared.addrs.load().contains(&conn.life.addr) {
                return;
            }
            conn.life.epoch = epoch;
        }
        let until = conn.life.expires.min(now + limits.idle);
        spare::give_read(std::mem::take(&mut conn.buf));
        if idle.len() >= limits.max_idle {
            idle.pop_front();
        }
        if limits.max_idle > 0 && now < until {
            idle.push_back(Idle { conn, until });
        }
    }
}
