//! The attempt loop: pick an endpoint → connection from the pool or dial → send → judge → again?
//!
//! Deadlines are instants and descend; at most two reads of the clock on the warm path, no lock but the worker's own.
//! Dropping the future (the client is gone) drops the connection with it.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::{Exchange, Trail};
use pylon_core::{Request, Response};

use self::again::pause;
use self::deadline::{Times, await_head};
use self::hedge::Hedge;
use self::outcome::Missed;
use self::outgoing::Outgoing;
use self::past::Past;
use self::retry::Retry;
use crate::breaker::lease::Said;
use crate::breaker::scopes::Breaker;
use crate::clocks::Clocks;
use crate::dial::{Way, dial};
use crate::endpoint::{Lane, Lease};
use crate::error::{CallError, Fault};
use crate::flight::{Flight, Head};
use crate::h1;
use crate::h1::encode::RequestHead;
use crate::h1::pump::EXPECT;
use crate::h2;
use crate::timeouts::Timeouts;
use crate::upstream::{Host, Upstream};

mod again;
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
        mut lease: Lease,
        came: Came,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> ControlFlow<Result<Response, CallError>, Option<Wait>> {
        let own_deadline = has_own_deadline(cx, options);
        let (flight, head) = match came {
            Ok(answered) => answered,
            Err(fault) => {
                let stale = past.is_stale(&fault, &out.method, cx);
                let (error, now) = (fault.into_error(), now());
                lease.missed(Missed::of(&error, stale, own_deadline), past.began, now);
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
                return ControlFlow::Continue((until > past.began).then(|| pause(until, None)));
            }
        };
        let now = now();
        if let (401, Some(outbound)) = (head.status(), &self.outbound) {
            outbound.refused(&out.headers);
        }
        lease.heard(Said::of(cx.grpc, head.status(), head.headers()), past.began, now, own_deadline);
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

    /// One attempt at one endpoint: sends the request and waits for the head of its answer.
    async fn attempt(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Came {
        cx.trail.attempts = cx.trail.attempts.saturating_add(1);
        let mut sent = self.dress(out, cx, options, past.began).await?;
        out.keep(options.retry.as_deref());
        let mut flight = self.launch_pooled(lane, out, cx, past)?;
        if flight.is_none() {
            // Boxed, so that a request that finds a connection is no larger for those that find none.
            let (way, stood) = Box::pin(self.dialled(lane, cx, options, past)).await?;
            sent = stood;
            flight = Some(self.launch(way, lane, out, cx, stood)?);
        }
        let times = Times { began: &past.began, sent };
        let head = await_head(&mut flight, &out.method, cx, options, times).await;
        concluded(flight, head, out)
    }

    /// The first half of an attempt: sends what can be sent at once, and says when.
    async fn launched(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Result<(Flight, Instant), Fault> {
        cx.trail.attempts = cx.trail.attempts.saturating_add(1);
        let sent = self.dress(out, cx, options, past.began).await?;
        out.keep(options.retry.as_deref());
        if let Some(flight) = self.launch_pooled(lane, out, cx, past)? {
            return Ok((flight, sent));
        }
        let (way, sent) = self.dialled(lane, cx, options, past).await?;
        Ok((self.launch(way, lane, out, cx, sent)?, sent))
    }

    async fn dialled(
        &self,
        lane: &Lane,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &mut Past,
    ) -> Result<(Way, Instant), Fault> {
        past.unsent = true;
        let websocket = key(cx).is_some();
        let dialled = dial(lane, cx, options, websocket, past.stale).await;
        past.unsent = dialled.is_err();
        dialled
    }

    /// Writes what `outbound` says into the head of an attempt, and says when it can leave.
    async fn dress(
        &self,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        began: Instant,
    ) -> Result<Instant, Fault> {
        let Some(outbound) = &self.outbound else { return Ok(began) };
        let mut began = began;
        if !outbound.dress(&mut out.headers, &mut out.body, !out.dressed, began) {
            let latest = cx.started + options.timeouts.response;
            let latest = cx.deadline.map_or(latest, |at| at.min(latest));
            began = Box::pin(outbound.obtained(latest)).await?;
            if !outbound.dress(&mut out.headers, &mut out.body, !out.dressed, began) {
                return Err(Fault::Credential("the one that came had no time left".to_owned()));
            }
        }
        out.dressed = true;
        Ok(began)
    }

    /// There is no endpoint, which counts as a failed attempt unless a breaker wills it so.
    fn nowhere(&self, fault: Fault, began: Instant) -> CallError {
        if let Some(series) = self.series.as_ref().filter(|_| !matches!(fault, Fault::Open { .. })) {
            series.mine().failed(now().saturating_duration_since(began));
        }
        fault.into_error()
    }

    /// Sends on a connection from the pool, where there is one and the past does not speak against it.
    fn launch_pooled(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        past: &mut Past,
    ) -> Result<Option<Flight>, Fault> {
        past.unsent = false;
        // A WebSocket has its connection to itself, and so HTTP/1.1, where that may be spoken.
        let alone = key(cx).is_some() && !lane.wants_http2() || !lane.speaks_http2();
        let pooled = match (past.stale, alone) {
            (true, _) => None,
            (false, true) => lane.slot.take(past.began).map(Way::Alone),
            (false, false) => lane.slot.multiplexed.take(past.began).map(Way::Shared),
        };
        cx.trail.reused = pooled.is_some();
        let Some(way) = pooled else { return Ok(None) };
        lane.slot.counters.reused();
        self.launch(way, lane, out, cx, past.began).map(Some)
    }

    fn launch(
        &self,
        way: Way,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        now: Instant,
    ) -> Result<Flight, Fault> {
        cx.trail.endpoint = Some(match &way {
            Way::Alone(conn) => conn.life.addr,
            Way::Shared(place) => place.conn().addr,
        });
        cx.trail.socket.clone_from(&lane.path);
        let head = RequestHead {
            method: &out.method,
            path: cx.sent_path(),
            headers: &out.headers,
            host: cx.upstream_host.as_ref().or(match &self.host {
                Host::Keep => None,
                Host::Endpoint => Some(&lane.authority),
                Host::Name(name) => Some(name),
            }),
            announced: &cx.announced,
            fallback_host: &lane.authority,
            framing: out.framing,
            websocket: key(cx).is_some(),
            expects: out.expects,
        };
        match way {
            Way::Alone(conn) => {
                let expecting = out.expects.then(|| now + EXPECT);
                h1::exchange::Flight::launch(conn, &head, &mut out.body, expecting).map(Flight::Http1)
            }
            Way::Shared(place) => {
                let tls = lane.tls.is_some();
                h2::exchange::Flight::launch(place, &head, tls, &mut out.body).map(Flight::Http2)
            }
        }
    }
}

/// The key of the handshake, where the service is to be asked for a WebSocket.
fn key(cx: &Exchange) -> Option<&HeaderValue> {
    cx.websocket.as_ref().filter(|handshake| handshake.allowed)?.key.as_ref().ok()
}

/// What an attempt came to, once its flight brought a head or a fault.
fn concluded(flight: Option<Flight>, head: Result<Head, Fault>, out: &mut Outgoing) -> Came {
    // Only now, since what lives across a wait is counted for every connection.
    let Some(flight) = flight else { return Err(Fault::Connect(io::ErrorKind::NotConnected.into())) };
    match head {
        Ok(head) => Ok((flight, head)),
        Err(fault) => {
            match fault {
                Fault::Timeout(..) => flight.gave_up(),
                Fault::Refused(_) => flight.take_back().into_iter().for_each(|body| out.body = body),
                _ => {}
            }
            Err(fault)
        }
    }
}

/// Whether the time that is left was set by the client, and not by the document.
fn has_own_deadline(cx: &Exchange, options: &CallOptions) -> bool {
    cx.deadline != options.timeouts.total.map(|total| cx.started + total)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
