//! The attempt loop: pick an endpoint → connection from the pool or dial → send → judge → again?
//!
//! Deadlines are instants and descend; at most two reads of the clock on the warm path, no lock but the worker's own.
//! Dropping the future (the client is gone) drops the connection with it.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::{Exchange, Trail};
use pylon_core::{Request, Response};

use self::again::pause;
use self::hedge::Hedge;
use self::outcome::Missed;
use self::outgoing::Outgoing;
use self::past::Past;
use self::retry::Retry;
use crate::breaker::lease::Said;
use crate::breaker::scopes::Breaker;
use crate::clocks::Clocks;
use crate::endpoint::{Lane, Lease};
use crate::error::{CallError, Fault};
use crate::flight::{Flight, Head};
use crate::timeouts::Timeouts;
use crate::upstream::Upstream;

mod again;
mod attempt;
pub mod budget;
mod deadline;
mod entry;
pub mod hedge;
mod outcome;
mod outgoing;
mod past;
pub mod retry;

/// What a route says about its calls.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// The field in which a client says how long it waits, and in which the service is told what is left.
    pub deadline: Option<HeaderName>,
    /// When a request is sent once more; none where only what is safe is done.
    pub retry: Option<Arc<Retry>>,
    /// When a second attempt is made beside one that is late.
    pub hedge: Option<Arc<Hedge>>,
    /// The longest head of an answer, in bytes: the key `limits.response_headers`.
    pub max_head: usize,
    /// The breaker of the route's calls.
    pub breaker: Option<Arc<Breaker>>,
}

impl Default for CallOptions {
    fn default() -> Self {
        let timeouts = Timeouts::default();
        Self { timeouts, deadline: None, retry: None, hedge: None, max_head: 64 * 1024, breaker: None }
    }
}

impl CallOptions {
    /// How long each attempt may take.
    pub(crate) fn per_try(&self) -> Option<Duration> {
        self.retry.as_ref()?.per_try
    }

    /// Takes away all that would send a request twice.
    pub fn once(&mut self) {
        (self.retry, self.hedge) = (None, None);
    }
}

/// The time until the next attempt.
type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What came of an attempt.
type Came = Result<(Flight, Head), Fault>;

impl Upstream {
    /// Sends `request` and answers with the head of the response; its body streams. Fills `cx.trail`.
    ///
    /// What is sent is `cx.sent_path()` with the method, fields and body of `request`; hop-by-hop fields must be gone
    /// already. `Transfer-Encoding` of the answer is consumed, all other fields are as the upstream sent them.
    pub fn call<'a>(
        &'a self,
        request: Request,
        cx: &'a mut Exchange,
        options: &'a CallOptions,
    ) -> impl Future<Output = Result<Response, CallError>> + Send + 'a {
        let mut out = Outgoing::new(request);
        async move { self.attempts(&mut out, cx, options).await }
    }

    /// One request of the gateway's own to one endpoint. No other is tried, and nobody judges the endpoint by it.
    pub(crate) async fn ask(
        &self,
        lane: &Arc<Lane>,
        request: Request,
        cx: &mut Exchange,
        options: &CallOptions,
    ) -> Result<Response, CallError> {
        let (mut out, lease) = (Outgoing::new(request), Lease::begin(lane));
        let mut past = Past::new(self.wish(&out.headers, cx), now(), cx.started);
        let asked = self.attempt(&lease.lane, &mut out, cx, options, &mut past).await;
        let (flight, head) = asked.map_err(Fault::into_error)?;
        let clocks = Clocks { idle: Some(options.timeouts.idle), total: cx.deadline };
        flight.answer(head, lease, clocks, now()).map_err(Fault::into_error)
    }

    async fn attempts(
        &self,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
    ) -> Result<Response, CallError> {
        deadline::bound(out, cx, options);
        let mut began = now();
        let permit = self.permit(cx, &mut began, options).await.map_err(Fault::into_error)?;
        let mut past = Past::new(self.wish(&out.headers, cx), began, cx.started);
        past.permit = permit;
        loop {
            deadline::check(cx, past.began)?;
            let lease = match self.lease(&out.headers, &past, &mut cx.trail, options) {
                Ok(lease) => lease,
                // What an attempt came to tells more than that nobody is left to ask.
                Err(fault) => {
                    let Some(last) = past.last else { return Err(self.nowhere(fault, past.began)) };
                    cx.trail.retries.pop();
                    return *last;
                }
            };
            let hedge = options.hedge.as_deref().filter(|_| past.tried().is_empty() && Hedge::fits(out, cx));
            past.remember(&lease.lane);
            deadline::tell(out, cx, options, past.began);
            // In one piece, so that nothing of an attempt lives across the wait for the next.
            let wait = {
                let (lease, came) = match hedge {
                    None => {
                        let came = self.attempt(&lease.lane, out, cx, options, &mut past).await;
                        (lease, came)
                    }
                    // Boxed, so that requests of other routes need no room for it.
                    Some(hedge) => Box::pin(self.hedged(hedge, lease, out, cx, options, &mut past)).await,
                };
                match self.judged(lease, came, out, cx, options, &mut past) {
                    ControlFlow::Continue(wait) => wait,
                    ControlFlow::Break(end) => return end,
                }
            };
            if let Some(wait) = wait {
                wait.await;
                past.began = now();
            }
        }
    }

    /// An endpoint, where no breaker forbids it.
    fn lease(
        &self,
        headers: &HeaderMap,
        past: &Past,
        trail: &mut Trail,
        options: &CallOptions,
    ) -> Result<Lease, Fault> {
        let pass = self.admit(options.breaker.as_deref(), trail, past.began)?;
        let mut lease = self.pick(past.wish, self.home(headers), past.tried(), past.began, trail)?;
        lease.pass.join(pass);
        Ok(lease)
    }

    /// What an attempt came to: the wait for another one, or the end.
    fn judged(
        &self,
        lease: Lease,
        came: Came,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> ControlFlow<Result<Response, CallError>, Option<Wait>> {
        match came {
            Ok((flight, head)) => self.answered(lease, flight, head, out, cx, options, past),
            Err(fault) => self.missed(lease, fault, out, cx, options, past),
        }
    }

    /// There was no answer.
    fn missed(
        &self,
        mut lease: Lease,
        fault: Fault,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> ControlFlow<Result<Response, CallError>, Option<Wait>> {
        let stale = past.is_stale(&fault, &out.method, cx);
        let (error, now) = (fault.into_error(), now());
        lease.missed(Missed::of(&error, stale, has_own_deadline(cx, options)), past.began, now);
        past.began = now;
        if let (Some(permit), Fault::Timeout(..)) = (&past.permit, &error.source) {
            permit.timed_out();
        }
        drop(lease);
        if let Fault::Timeout(timer, _) | Fault::Body(BodyError::Timeout(timer)) = error.source {
            cx.trail.timer = Some(timer);
        }
        let Some(until) = self.after_fault(&error, out, cx, options, past) else {
            return ControlFlow::Break(Err(error));
        };
        past.last = Some(Box::new(Err(error)));
        ControlFlow::Continue((until > past.began).then(|| pause(until, None)))
    }

    /// The head of an answer is here.
    #[expect(clippy::too_many_arguments, reason = "an attempt, what came of it, and what a call consists of")]
    fn answered(
        &self,
        mut lease: Lease,
        flight: Flight,
        head: Head,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> ControlFlow<Result<Response, CallError>, Option<Wait>> {
        let now = now();
        if let (401, Some(outbound)) = (head.status(), &self.outbound) {
            outbound.refused(&out.headers);
        }
        lease.heard(Said::of(cx.grpc, head.status(), head.headers()), past.began, now, has_own_deadline(cx, options));
        let began = std::mem::replace(&mut past.began, now);
        let again = self.after_answer(&head, out, cx, options, past);
        match again {
            None => lease.permit = past.permit.take().and_then(|permit| permit.heard(&head, &flight, began, now)),
            Some(_) => past.permit.iter().for_each(|permit| permit.answered(head.status(), began, now)),
        }
        let clocks = Clocks { idle: Some(options.timeouts.idle), total: cx.deadline };
        cx.trail.upstream_time = Some(past.took(cx.started));
        let lane = self.reads_heads().then(|| Arc::clone(&lease.lane));
        let mut answer = flight.answer(head, lease, clocks, now).map_err(Fault::into_error);
        if let (Some(lane), Ok(answer)) = (lane, &mut answer) {
            self.read_head(answer.headers_mut(), &lane, &out.headers, cx, now);
        }
        let Some(until) = again else { return ControlFlow::Break(answer) };
        match answer {
            Ok(answer) if matches!(answer.body(), Body::Stream(_)) => {
                past.last = None;
                ControlFlow::Continue(Some(pause(until, Some(answer))))
            }
            // One that is here as a whole is the client's after all, where nobody can be asked any more.
            whole => {
                past.last = Some(Box::new(whole));
                ControlFlow::Continue((until > now).then(|| pause(until, None)))
            }
        }
    }

    /// There is no endpoint, which counts as a failed attempt unless a breaker wills it so.
    fn nowhere(&self, fault: Fault, began: Instant) -> CallError {
        if let Some(series) = self.series.as_ref().filter(|_| !matches!(fault, Fault::Open { .. })) {
            series.mine().failed(now().saturating_duration_since(began));
        }
        fault.into_error()
    }
}

/// Whether the time that is left was set by the client, and not by the document.
fn has_own_deadline(cx: &Exchange, options: &CallOptions) -> bool {
    cx.deadline != options.timeouts.total.map(|total| cx.started + total)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
