//! Open connections of a worker, and the end of it: a drain that lets exchanges finish.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_observe::metrics::Metrics;
use pylon_observe::series::OpenConnection;
use tokio::sync::Notify;
use tokio::sync::futures::{Notified, OwnedNotified};

use crate::caps::Caps;
use crate::guests::{Guests, Seat};
use crate::limits::{InForce, Limits};
use crate::terms::{Over, Terms};
use crate::timer;

/// Open connections of a worker, and the word that no more are wanted.
///
/// First it may be said that the gateway is leaving, so that clients go elsewhere by themselves: answers of HTTP/1.1 say
/// that theirs is the last on this connection. Then the drain begins, which ends connections without the client's doing.
#[derive(Debug)]
pub struct Drain {
    leaving: AtomicBool,
    begun: AtomicBool,
    accepting: AtomicUsize,
    wanted: Arc<Notify>,
    open: AtomicUsize,
    accepted: AtomicUsize,
    pub(crate) guests: Arc<Guests>,
    limits: Arc<InForce>,
    /// Whether nothing new is served to its connections.
    withdrawn: Arc<AtomicBool>,
    /// Where this is a part of a worker's drain.
    part: Option<Part>,
    branches: Mutex<Vec<Weak<Drain>>>,
}

/// The part of a worker's drain for the terms of one listener.
#[derive(Debug)]
struct Part {
    whole: Arc<Drain>,
    number: u64,
    /// They are known for as long as somebody is under them.
    _terms: Arc<Terms>,
}

/// Numbers of parts.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Drain {
    /// No connection yet; `caps` say how many there may be, and `limits` what they may do.
    pub fn new(caps: Arc<Caps>, limits: Arc<InForce>) -> Self {
        Self::of(Arc::new(Guests::new(caps)), limits, None)
    }

    fn of(guests: Arc<Guests>, limits: Arc<InForce>, part: Option<Part>) -> Self {
        Self {
            leaving: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            accepting: AtomicUsize::new(0),
            wanted: Arc::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            guests,
            limits,
            withdrawn: Arc::default(),
            part,
            branches: Mutex::default(),
        }
    }

    /// A part of it, for these terms, which may end before the whole does and ends with it at the latest.
    pub(crate) fn branch(self: &Arc<Self>, terms: &Arc<Terms>) -> Arc<Self> {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let part = Part { whole: Arc::clone(self), number, _terms: Arc::clone(terms) };
        let branch = Arc::new(Self::of(Arc::clone(&self.guests), Arc::clone(&self.limits), Some(part)));
        let mut branches = self.branches.lock();
        branches.retain(|branch| branch.strong_count() > 0);
        branches.push(Arc::downgrade(&branch));
        if self.has_begun() {
            branch.begin();
        } else if self.is_leaving() {
            branch.leave();
        }
        branch
    }

    /// Ends this part.
    pub(crate) fn end(&self, over: Over) {
        if over == Over::Withdrawn {
            self.withdrawn.store(true, Ordering::Release);
        }
        self.begin();
    }

    /// Turns true when nothing new is to be served to its connections.
    pub(crate) fn withdrawn(&self) -> &Arc<AtomicBool> {
        &self.withdrawn
    }

    /// The number of this part.
    pub(crate) fn number(&self) -> u64 {
        self.part.as_ref().map_or(u64::MAX, |part| part.number)
    }

    /// Cuts the connections of this part. Answers how many there were.
    pub(crate) fn cut(&self) -> usize {
        self.guests.cut(self.number())
    }

    fn branches(&self) -> Vec<Arc<Self>> {
        self.branches.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// The limits that hold now.
    pub(crate) fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Closes all connections that are idle. Answers how many.
    pub fn clear(&self) -> usize {
        self.guests.clear()
    }

    /// Tells clients of HTTP/1.1 with each answer that they should come again by another connection.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.branches().iter().for_each(|branch| branch.leave());
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
        self.branches().iter().for_each(|branch| branch.begin());
    }

    /// Whether [`Drain::begin`] has been called.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits for [`Drain::begin`]; look at [`Drain::has_begun`] once this has been polled.
    pub fn wanted(&self) -> Notified<'_> {
        self.wanted.notified()
    }

    /// The same, for a task that owns all it has.
    pub fn wanted_owned(&self) -> OwnedNotified {
        Arc::clone(&self.wanted).notified_owned()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many connections were ever accepted.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn and_whole(&self) -> impl Iterator<Item = &Self> {
        self.part.iter().map(|part| &*part.whole).chain([self])
    }

    fn count(&self) {
        for drain in self.and_whole() {
            drain.open.fetch_add(1, Ordering::Relaxed);
            drain.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn uncount(&self) {
        for drain in self.and_whole() {
            drain.open.fetch_sub(1, Ordering::Relaxed);
        }
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
            timer::sleep(Duration::from_millis(10)).await;
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
#[derive(Debug)]
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
                drain.count();
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

    /// The limits that hold now.
    pub(crate) fn limits(&self) -> Limits {
        self.drain.limits()
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
        self.drain.uncount();
    }
}
