//! A worker's connections of HTTP/2 to one endpoint: a stream on one of them, or leave to open another.
//!
//! Where many requests come before the first connection stands, one of them dials and the others wait for it; but not
//! for long, since a dial that hangs must not hold up all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::conn::{Conn, Place};

/// How many requests wait for one dial.
const WAITING: usize = 100;
/// How long a request waits for another's dial before it dials for itself.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);

/// The connections, and who is opening more.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    shared: Mutex<Shared>,
    /// Whether the endpoint agreed on HTTP/2 the last time.
    known: AtomicBool,
    dialled: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Shared {
    conns: Vec<Arc<Conn>>,
    /// The addresses that the endpoint has.
    allowed: Vec<SocketAddr>,
    dialling: usize,
    waiting: usize,
}

/// What a request without a place is to do.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// Open a connection.
    Dial(Dial<'a>),
    /// Wait for [`Pool::dialled`], for [`PATIENCE`] at the most.
    Wait(Wait<'a>),
}

/// A dial under way; over when dropped.
#[derive(Debug)]
pub(crate) struct Dial<'a>(&'a Pool);

/// A request that waits; it no longer does when dropped.
#[derive(Debug)]
pub(crate) struct Wait<'a>(&'a Pool);

impl Pool {
    /// Whether the endpoint is known to speak HTTP/2.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }

    /// A stream on a connection that has room.
    pub(crate) fn take(&self, now: Instant) -> Option<Place> {
        let mut shared = self.shared.lock();
        if shared.conns.iter().any(|conn| !conn.is_of_use(now)) {
            shared.conns.retain(|conn| conn.is_of_use(now));
        }
        shared.conns.iter().find_map(Conn::place)
    }

    /// What to do where there was no place.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let mut shared = self.shared.lock();
        if shared.waiting < shared.dialling.saturating_mul(WAITING) {
            shared.waiting = shared.waiting.saturating_add(1);
            return Turn::Wait(Wait(self));
        }
        drop(shared);
        Turn::Dial(self.dial())
    }

    /// Counts a dial.
    pub(crate) fn dial(&self) -> Dial<'_> {
        let mut shared = self.shared.lock();
        shared.dialling = shared.dialling.saturating_add(1);
        Dial(self)
    }

    /// Closes connections that idle for `idle` or are of no more use.
    pub(crate) fn sweep(&self, now: Instant, idle: Duration) {
        self.shared.lock().conns.retain(|conn| conn.is_of_use(now) && !conn.has_idled(now, idle));
    }

    /// Closes one that carries nothing, where there is one.
    pub(crate) fn close_one(&self) -> bool {
        let now = tokio::time::Instant::now().into_std();
        let mut shared = self.shared.lock();
        let idle = shared.conns.iter().position(|conn| conn.has_idled(now, Duration::ZERO));
        idle.map(|index| shared.conns.swap_remove(index)).is_some()
    }

    /// Uses only connections to these addresses from now on.
    pub(crate) fn allow(&self, addrs: &[SocketAddr]) {
        let mut shared = self.shared.lock();
        shared.conns.retain(|conn| addrs.contains(&conn.addr));
        shared.allowed = addrs.to_vec();
    }

    /// How many connections there are without a stream.
    pub(crate) fn idle(&self) -> usize {
        let now = tokio::time::Instant::now().into_std();
        self.shared.lock().conns.iter().filter(|conn| conn.has_idled(now, Duration::ZERO)).count()
    }
}

impl Dial<'_> {
    /// The connection stands and is there for all, unless its address has gone meanwhile.
    pub(crate) fn done(self, conn: &Arc<Conn>) {
        self.0.known.store(true, Relaxed);
        let mut shared = self.0.shared.lock();
        if shared.allowed.contains(&conn.addr) {
            shared.conns.push(Arc::clone(conn));
        }
    }

    /// The endpoint did not agree on HTTP/2, whatever it did before.
    pub(crate) fn without_http2(self) {
        self.0.known.store(false, Relaxed);
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        let mut shared = self.0.shared.lock();
        shared.dialling = shared.dialling.saturating_sub(1);
        drop(shared);
        self.0.dialled.notify_waiters();
    }
}

impl Wait<'_> {
    /// Waits until a dial is over, well or not.
    pub(crate) async fn dialled(&self) {
        self.0.dialled.notified().await;
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut shared = self.0.shared.lock();
        shared.waiting = shared.waiting.saturating_sub(1);
    }
}
