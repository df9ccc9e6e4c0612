//! When the head of an answer must be here, and the timer that says so.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::Method;
use pylon_core::exchange::{Exchange, Timer};
use pylon_net::timer::sleep_until;

use super::{CallOptions, key, now};
use crate::error::Fault;
use crate::flight::{Flight, Head};
use crate::h1::exchange::Asked;
use crate::timeouts::Timeouts;

/// Drives a flight until the head of its answer is here, or a timer fires. `sent` is when it was launched.
pub(super) fn await_head<'a>(
    flight: &'a mut Option<Flight>,
    method: &'a Method,
    cx: &'a mut Exchange,
    options: &'a CallOptions,
    sent: Instant,
) -> impl Future<Output = Result<Head, Fault>> + Send + 'a {
    let mut sleep = sleep_until(HeadDeadline::new(cx, sent, &options.timeouts, None).at);
    poll_fn(move |task| {
        // Borrowed alone: an exchange may be sent to another thread, but not shared with one.
        let (Some(flight), cx) = (&mut *flight, &mut *cx) else { return Poll::Pending };
        let asked = Asked {
            method,
            max_head: options.max_head,
            interim: &cx.connection.interim,
            version: cx.version,
            key: key(cx),
        };
        if let Poll::Ready(head) = flight.poll_head(task, &asked) {
            return Poll::Ready(head);
        }
        loop {
            ready!(Pin::new(&mut sleep).poll(task));
            let later = HeadDeadline::new(cx, sent, &options.timeouts, flight.moved());
            if later.timer != Timer::Total && flight.awaits_client() {
                // The upstream has not got the whole request yet: it is the client that is late, and has a timer.
                let (now, total) = (now(), cx.deadline);
                if let Some(at) = total.filter(|at| *at <= now) {
                    let span = at.saturating_duration_since(cx.started);
                    return Poll::Ready(Err(Fault::Timeout(Timer::Total, span)));
                }
                let at = now + later.span;
                sleep.reset(total.map_or(at, |total| at.min(total)));
                continue;
            }
            if later.at <= sleep.at() {
                return Poll::Ready(Err(Fault::Timeout(later.timer, later.span)));
            }
            sleep.reset(later.at);
        }
    })
}

/// When the head must be here, and the timer that says so.
struct HeadDeadline {
    at: Instant,
    timer: Timer,
    span: Duration,
}

impl HeadDeadline {
    /// `moved` is when an upload last made progress: `first_byte` and `response` run from there.
    fn new(cx: &Exchange, sent: Instant, timeouts: &Timeouts, moved: Option<Instant>) -> Self {
        let (started, total) = (cx.started, cx.deadline);
        let from = |at: Instant| moved.map_or(at, |moved| moved.max(at));
        let mut first = Self { at: from(started) + timeouts.response, timer: Timer::Response, span: timeouts.response };
        if let Some(span) = timeouts.first_byte {
            let at = from(sent) + span;
            if at < first.at {
                first = Self { at, timer: Timer::FirstByte, span };
            }
        }
        if let Some(at) = total
            && at < first.at
        {
            first = Self { at, timer: Timer::Total, span: at.saturating_duration_since(started) };
        }
        first
    }
}
