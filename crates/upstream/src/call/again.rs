//! Whether a request is sent once more: what is safe in any case, what the route asks for, and what the budget allows.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use http_body::Body as _;
use pylon_core::Response;
use pylon_core::attempts::{Cause, Retried};
use pylon_core::exchange::Exchange;
use pylon_net::timer::sleep_until;

use super::outgoing::{Outgoing, is_idempotent};
use super::past::Past;
use super::retry::{Asked, Retry};
use super::{CallOptions, Wait};
use crate::error::{self, CallError, Step};
use crate::flight::Head;
use crate::upstream::Upstream;

/// As much of an answer that is not passed on is read, so that its connection can be used again.
const DRAINED: usize = 64 * 1024;

/// What speaks for another attempt.
struct Wish {
    cause: Cause,
    /// Whether the service has certainly not seen the request.
    unsent: bool,
    /// What the service asks for.
    asked: Option<Asked>,
}

impl Upstream {
    /// When the next attempt begins after one that brought no answer; none where there is none. `past.began` is now.
    pub(super) fn after_fault(
        &self,
        error: &CallError,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Option<Instant> {
        // An endpoint that could not be reached a moment ago is not asked again at once; another one is.
        let safe = past.again(error, out, cx);
        if let Some(cause) = safe.filter(|_| error.at != Step::Connect || self.endpoints() > past.tried().len()) {
            cx.trail.retries.push(cause);
            self.count(Retried::Safe);
            return Some(past.began);
        }
        let retry = options.retry.as_deref()?;
        let cause = retry.after_fault(&error.source)?;
        let unsent = past.unsent || error.retry == error::Retry::Always;
        self.wanted(retry, &Wish { cause, unsent, asked: None }, out, cx, options, past)
    }

    /// When the next attempt begins after an answer with this head; none where the answer is the client's.
    pub(super) fn after_answer(
        &self,
        head: &Head,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Option<Instant> {
        let retry = options.retry.as_deref()?;
        let status = head.status();
        if status < 400 && !cx.grpc {
            return None;
        }
        let cause = retry.after_answer(status, head.headers(), cx.grpc)?;
        let asked = Asked::by(head.headers(), cx.grpc, pylon_observe::clock::unix_now);
        self.wanted(retry, &Wish { cause, unsent: false, asked }, out, cx, options, past)
    }

    fn wanted(
        &self,
        retry: &Retry,
        wish: &Wish,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Option<Instant> {
        let may = wish.unsent || retry.any || is_idempotent(&out.method);
        if !may || past.retries >= retry.attempts {
            return None;
        }
        match self.verdict(retry, wish, out, cx, options, past) {
            Ok(at) => {
                out.restore();
                past.retries = past.retries.saturating_add(1);
                cx.trail.retries.push(wish.cause);
                self.count(Retried::Granted);
                Some(at)
            }
            Err(refused) => {
                cx.trail.retry_refused = Some(refused);
                self.count(refused);
                None
            }
        }
    }

    /// When the attempt may begin that is wanted, or why it may not. The budget is asked last, since it is spent by asking.
    fn verdict(
        &self,
        retry: &Retry,
        wish: &Wish,
        out: &Outgoing,
        cx: &Exchange,
        options: &CallOptions,
        past: &Past,
    ) -> Result<Instant, Retried> {
        let wait = retry.wait(past.retries, wish.asked, fastrand::f64()).ok_or(Retried::TooLate)?;
        let (at, response) = (past.began + wait, cx.started + options.timeouts.response);
        if at >= cx.deadline.map_or(response, |total| total.min(response)) {
            return Err(Retried::TooLate);
        }
        if !out.is_whole() {
            return Err(Retried::BodyGone);
        }
        if self.may_spend(past.began) { Ok(at) } else { Err(Retried::BudgetExhausted) }
    }

    fn count(&self, what: Retried) {
        if let Some(series) = &self.series {
            series.mine().retried(what);
        }
    }
}

/// Waits for the next attempt. Meanwhile what is left of an answer that nobody wants is read, and its connection goes back to
/// the pool where that was all; otherwise it ends here.
pub(super) fn pause(until: Instant, answer: Option<Response>) -> Wait {
    let mut body = answer.map(Response::into_body);
    let (mut left, mut sleep) = (DRAINED, sleep_until(until));
    Box::pin(poll_fn(move |task| {
        while let Some(rest) = &mut body {
            let frame = match Pin::new(rest).poll_frame(task) {
                Poll::Ready(frame) => frame,
                Poll::Pending => break,
            };
            let length = frame.and_then(Result::ok).map(|frame| frame.data_ref().map_or(0, bytes::Bytes::len));
            match length.and_then(|length| left.checked_sub(length)) {
                Some(still) => left = still,
                None => body = None,
            }
        }
        Pin::new(&mut sleep).poll(task)
    }))
}
