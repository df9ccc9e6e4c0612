//! What ends a connection other than its client: time that runs out, a drain, and others that need its place.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pylon_core::connection::{Connection, Phase};
use tokio::sync::futures::Notified;

use super::now;
use crate::drain::Open;
use crate::limits::Limits;
use crate::timer::{self, Sleep};

/// How long a client is waited for that may be about to send a request when the drain begins. A connection that is closed
/// under a request loses it.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Why a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At once.
    Cut,
    /// Its head did not come in time.
    Slow,
    /// In good order, since nothing is under way.
    Drained,
}

/// Watches over one connection.
pub(super) struct Watch<'a, 'd> {
    open: &'a Open,
    connection: Arc<Connection>,
    /// The word that the drain begins.
    wanted: Pin<&'a mut Notified<'d>>,
    listens: bool,
    began: Instant,
    timer: Sleep,
}

impl<'a, 'd> Watch<'a, 'd> {
    pub(super) fn new(open: &'a Open, connection: &Arc<Connection>, wanted: Pin<&'a mut Notified<'d>>) -> Self {
        let (connection, began) = (Arc::clone(connection), now());
        let timer = timer::sleep_until(began + open.limits().head_time);
        Self { open, connection, wanted, listens: false, began, timer }
    }

    /// Ready when the connection has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.open.is_evicted(cx) {
            return Poll::Ready(End::Cut);
        }
        if !self.listens {
            self.listens = true;
            // Once is enough: the waker of a task stays the same for its life.
            let _ = self.wanted.as_mut().poll(cx);
        }
        let last_word = if self.open.drain().has_begun() { self.awaited() } else { None };
        if let Some(until) = last_word {
            if until <= now() && self.connection.activity.phase() == Phase::Idle {
                return Poll::Ready(End::Drained);
            }
            if until < self.timer.at() {
                self.timer.reset(until);
            }
        }
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let now = now();
            match deadline(&self.connection, self.open.limits(), now) {
                due if due > now => self.timer.reset(last_word.map_or(due, |until| until.min(due))),
                _ if self.connection.activity.phase() == Phase::Head => return Poll::Ready(End::Slow),
                _ => return Poll::Ready(End::Cut),
            }
        }
        Poll::Pending
    }

    /// Until when a request that the client may have sent is waited for, once the drain has begun. An answer that is under way may
    /// have told the client that there can be another one.
    fn awaited(&self) -> Option<Instant> {
        let activity = &self.connection.activity;
        match activity.phase() {
            Phase::Idle => Some(activity.since().max(self.began) + LAST_WORD),
            Phase::Head => Some(activity.since() + self.open.limits().head_time),
            Phase::Serving | Phase::Flushing => None,
        }
    }
}

/// When the connection, as it is at `now`, has run out of time.
fn deadline(connection: &Connection, limits: Limits, now: Instant) -> Instant {
    match connection.activity.phase() {
        Phase::Idle => connection.activity.since() + limits.idle,
        Phase::Head => connection.activity.since() + limits.head_time,
        // The deadlines of the exchange hold here.
        Phase::Serving | Phase::Flushing => now + limits.head_time,
    }
}
