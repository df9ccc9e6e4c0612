//! When the head of an answer must be here, the timer that says so, and what the service is told of it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};
use pylon_core::exchange::{Exchange, Timer};
use pylon_net::timer::sleep_until;

use super::attempt::key;
use super::outgoing::Outgoing;
use super::{CallOptions, now};
use crate::error::{CallError, Fault};
use crate::flight::{Flight, Head};
use crate::h1::exchange::Asked;

/// When an attempt began, and when its request was launched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times<'a> {
    /// By reference, since it lives with each call that waits.
    pub(super) began: &'a Instant,
    pub(super) sent: Instant,
}

/// Drives a flight until the head of its answer is here, or a timer fires.
pub(super) fn await_head<'a>(
    flight: &'a mut Option<Flight>,
    method: &'a Method,
    cx: &'a mut Exchange,
    options: &'a CallOptions,
    times: Times<'a>,
) -> impl Future<Output = Result<Head, Fault>> + Send + 'a {
    let mut sleep = sleep_until(HeadDeadline::new(cx, times, options, None).at);
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
            let later = HeadDeadline::new(cx, times, options, flight.moved());
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
    /// `moved` is when an upload last made progress: all but `total` run from there.
    fn new(cx: &Exchange, times: Times<'_>, options: &CallOptions, moved: Option<Instant>) -> Self {
        let (started, total, timeouts) = (cx.started, cx.deadline, &options.timeouts);
        let from = |at: Instant| moved.map_or(at, |moved| moved.max(at));
        let mut first = Self { at: from(started) + timeouts.response, timer: Timer::Response, span: timeouts.response };
        if let Some(span) = timeouts.first_byte {
            let at = from(times.sent) + span;
            if at < first.at {
                first = Self { at, timer: Timer::FirstByte, span };
            }
        }
        if let Some(span) = options.per_try() {
            let at = from(*times.began) + span;
            if at < first.at {
                first = Self { at, timer: Timer::PerTry, span };
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

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The client's own word is left as it is for so long: in this time nothing has passed that a service would notice.
const FRESH: Duration = Duration::from_millis(1);

/// Sets the bound of the whole exchange: the shortest of what the client says and what the route does.
pub(super) fn bound(out: &Outgoing, cx: &mut Exchange, options: &CallOptions) {
    let asked = options.deadline.as_ref().and_then(|name| millis(out.headers.get(name)?));
    for span in options.timeouts.total.into_iter().chain(asked) {
        let at = cx.started + span;
        cx.deadline = Some(cx.deadline.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Whether there is still time for an attempt that begins now.
pub(super) fn check(cx: &mut Exchange, now: Instant) -> Result<(), CallError> {
    match cx.deadline.filter(|at| *at <= now) {
        None => Ok(()),
        Some(at) => {
            cx.trail.timer = Some(Timer::Total);
            Err(Fault::Timeout(Timer::Total, at.saturating_duration_since(cx.started)).into_error())
        }
    }
}

/// Tells the service how much of the time is left, in the words in which it is used to be told.
pub(super) fn tell(out: &mut Outgoing, cx: &Exchange, options: &CallOptions, now: Instant) {
    let Some(at) = cx.deadline else { return };
    let left = at.saturating_duration_since(now);
    if let Some(name) = &options.deadline {
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        out.headers.insert(name.clone(), HeaderValue::from(left));
    }
    if cx.grpc {
        let fresh = now.saturating_duration_since(cx.started) < FRESH && options.timeouts.total.is_none();
        if fresh && options.deadline.is_none() && out.headers.contains_key(GRPC_TIMEOUT) {
            return;
        }
        if let Ok(mut value) = HeaderValue::try_from(grpc_timeout(left)) {
            // HTTP/2 shall not remember it for later messages: it hardly comes again.
            value.set_sensitive(true);
            out.headers.insert(GRPC_TIMEOUT, value);
        }
    }
}

/// A span in whole milliseconds; none where it is no such number, or longer than a day.
fn millis(value: &HeaderValue) -> Option<Duration> {
    let digits = value.as_bytes();
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Duration::from_millis)
}

/// At most eight digits and a unit, never more than `left` but where nothing is left.
fn grpc_timeout(left: Duration) -> String {
    for (number, unit) in [(left.as_micros(), 'u'), (left.as_millis(), 'm'), (u128::from(left.as_secs()), 'S')] {
        if number <= 99_999_999 {
            return format!("{}{unit}", number.max(1));
        }
    }
    "99999999S".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_grpc_has_eight_digits_and_is_never_longer_than_what_is_left() {
        for (left, told) in [
            (Duration::ZERO, "1u"),
            (Duration::from_micros(1500), "1500u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(u64::MAX), "99999999S"),
        ] {
            assert_eq!(grpc_timeout(left), told);
        }
    }

    #[test]
    fn a_deadline_in_a_field_is_whole_milliseconds() {
        let read = |text: &str| millis(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read("250"), Some(Duration::from_millis(250)));
        assert_eq!(read("0"), Some(Duration::ZERO));
        for bad in ["", "-1", "1.5", "250ms", "100000000", "soon"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
