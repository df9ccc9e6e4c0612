//! Open connections of a worker, and the end of it: a drain that lets exchanges finish.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pylon_observe::metrics::Metrics;
use pylon_observe::series::OpenConnection;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::caps::Caps;
use crate::guests::{Guests, Seat};

/// Open connections of a worker, and the word that no more are wanted.
///
/// First it may be said that the gateway is leaving, so that clients go elsewhere by themselves: answers of HTTP/1.1 say
/// that theirs is the last on this connection. Then the drain begins, which ends connections without the client's doing.
#[derive(Debug, Default)]
pub struct Drain {
    leaving: AtomicBool,
    begun: AtomicBool,
    accepting: AtomicUsize,
    wanted: Notify,
    open: AtomicUsize,
    accepted: AtomicUsize,
    pub(crate) guests: Guests,
}

impl Drain {
    /// No connection yet; `caps` say how many there may be.
    pub fn new(caps: Arc<Caps>) -> Self {
        Self { guests: Guests::new(caps), ..Self::default() }
    }

    /// Closes all connections that are idle. Answers how many.
    pub fn clear(&self) -> usize {
        self.guests.clear()
    }

    /// Tells clients of HTTP/1.1 with each answer that they should come again by another connection.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether [`Drain::leave`] or [`Drain::begin`] has been called.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Tells every connection to end after the exchange it is in.
    pub fn begin(&self) {
        self.leave();
        self.begun.store(true, Ordering::Relaxed);
        self.wanted.notify_waiters();
    }

    /// Whether [`Drain::begin`] has been called.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits for [`Drain::begin`]; look at [`Drain::has_begun`] once this has been polled.
    pub fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Counts a listening socket of the worker for as long as the answer lives.
    pub(crate) fn accepting(self: &Arc<Self>) -> Accepting {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        Accepting(Arc::clone(self))
    }

    /// Whether a socket listens still, or a connection is open.
    fn is_busy(&self) -> bool {
        self.accepting.load(Ordering::Relaxed) > 0 || self.open() > 0
    }

    /// Waits until no socket listens and no connection is open, at most until `until`. Answers how many are left.
    pub async fn finished(&self, until: Instant) -> usize {
        while self.is_busy() && tokio::time::Instant::now().into_std() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.open()
    }
}

/// A listening socket of a worker.
pub(crate) struct Accepting(Arc<Drain>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as open for as long as it lives.
pub(crate) struct Open {
    drain: Arc<Drain>,
    pub(crate) seat: Arc<Seat>,
    #[expect(dead_code, reason = "counts by being dropped")]
    counted: OpenConnection,
}

impl Open {
    /// A place for a connection of `peer` that was accepted at `now`, if it may have one.
    pub(crate) fn begin(drain: &Arc<Drain>, metrics: &Metrics, peer: Option<IpAddr>, now: Instant) -> Option<Self> {
        match drain.guests.seat(peer, now) {
            Ok((seat, evicted)) => {
                if let Some(which) = evicted {
                    metrics.evicted(which, 1);
                }
                drain.open.fetch_add(1, Ordering::Relaxed);
                drain.accepted.fetch_add(1, Ordering::Relaxed);
                Some(Self { drain: Arc::clone(drain), seat, counted: metrics.connected() })
            }
            Err(why) => {
                metrics.refused(why);
                None
            }
        }
    }

    /// The worker's word that no further request is wanted.
    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    /// Whether the connection has to make room for another. Until then `cx` will be woken when it has to.
    pub(crate) fn is_evicted(&self, cx: &Context<'_>) -> bool {
        self.seat.is_evicted(cx)
    }

    /// Waits for `future`, unless the connection has to go before it is ready.
    pub(crate) async fn while_seated<T>(&self, future: impl Future<Output = Option<T>>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| if self.is_evicted(cx) { Poll::Ready(None) } else { future.as_mut().poll(cx) }).await
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drain.guests.leave(&self.seat);
        self.drain.open.fetch_sub(1, Ordering::Relaxed);
    }
}
