//! The attempt loop: pick an endpoint → connection from the pool or dial → send → judge → again?
//!
//! Deadlines are instants and descend; at most two reads of the clock on the warm path, no lock but the worker's own.
//! Dropping the future (the client is gone) drops the connection with it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use pylon_core::body::BodyError;
use pylon_core::exchange::{Exchange, Timer};
use pylon_core::{Request, Response};

use self::deadline::await_head;
use self::outcome::Outcome;
use self::outgoing::Outgoing;
use self::past::Past;
use crate::breaker::lease::Said;
use crate::breaker::scopes::Breaker;
use crate::clocks::Clocks;
use crate::dial::{Way, dial};
use crate::endpoint::{Lane, Lease};
use crate::error::{CallError, Fault, Step};
use crate::flight::{Flight, Head};
use crate::h1;
use crate::h1::encode::RequestHead;
use crate::h1::pump::EXPECT;
use crate::h2;
use crate::timeouts::Timeouts;
use crate::upstream::choice::Wish;
use crate::upstream::{Host, Upstream};

mod deadline;
mod entry;
mod outcome;
mod outgoing;
mod past;

/// What a route says about its calls.
#[derive(Debug, Clone)]
pub struct CallOptions {
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// The longest head of an answer, in bytes: the key `limits.response_headers`.
    pub max_head: usize,
    /// The breaker of the route's calls.
    pub breaker: Option<Arc<Breaker>>,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), max_head: 64 * 1024, breaker: None }
    }
}

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

    async fn attempts(
        &self,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
    ) -> Result<Response, CallError> {
        let mut began = now();
        if let Some(total) = options.timeouts.total {
            let at = cx.started + total;
            cx.deadline = Some(cx.deadline.map_or(at, |earlier| earlier.min(at)));
        }
        let mut permit = self.permit(cx, &mut began, options).await.map_err(Fault::into_error)?;
        let (wish, mut past) = (self.wish(&out.headers, cx), Past::new(began));
        let mut last = None;
        loop {
            let mut lease = match self.lease(wish, &past, cx, options) {
                Ok(lease) => lease,
                // What an attempt came to tells more than that nobody is left to ask.
                Err(fault) => {
                    return Err(last.map_or_else(|| self.nowhere(fault, &past), |error: Box<CallError>| *error));
                }
            };
            past.remember(&lease.lane);
            let error = match self.attempt(&lease.lane, out, cx, options, &past).await {
                Ok((flight, head)) => {
                    let now = now();
                    if let (401, Some(outbound)) = (head.status(), &self.outbound) {
                        outbound.refused(&out.headers);
                    }
                    let took = now.saturating_duration_since(past.began);
                    lease.lane.observe(Outcome::Answered(head.status()), past.began, now);
                    let said = || Said::of(cx.grpc, head.status(), head.headers());
                    let end = lease.answered(said, took, now, has_own_deadline(cx, options));
                    lease.permit = permit.take().and_then(|permit| permit.heard(&head, &flight, past.began, now));
                    let clocks = Clocks { idle: Some(options.timeouts.idle), total: cx.deadline };
                    cx.trail.upstream_time = Some(now.saturating_duration_since(began));
                    return flight.answer(head, (lease, end), clocks, now).map_err(Fault::into_error);
                }
                Err(fault) => failed(&mut lease, fault, &mut past, has_own_deadline(cx, options)),
            };
            if let (Some(permit), Fault::Timeout(..)) = (&permit, &error.source) {
                permit.timed_out();
            }
            drop(lease);
            let again = past.again(&error, out, cx);
            // An endpoint that could not be reached a moment ago is not asked again at once; another one is.
            let of_use = error.at != Step::Connect || self.endpoints() > past.attempts;
            if let Fault::Timeout(timer, _) | Fault::Body(BodyError::Timeout(timer)) = error.source {
                cx.trail.timer = Some(timer);
            }
            if !again || !of_use {
                return Err(error);
            }
            last = Some(Box::new(error));
        }
    }

    /// An endpoint, where no breaker forbids it.
    fn lease(&self, wish: Wish, past: &Past, cx: &mut Exchange, options: &CallOptions) -> Result<Lease, Fault> {
        let pass = self.admit(options.breaker.as_deref(), &mut cx.trail, past.began)?;
        let mut lease = self.pick(wish, past.tried(), past.began, &mut cx.trail)?;
        lease.pass.join(pass);
        Ok(lease)
    }

    /// One attempt at one endpoint: sends the request and waits for the head of its answer.
    async fn attempt(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &Past,
    ) -> Result<(Flight, Head), Fault> {
        cx.trail.attempts = cx.trail.attempts.saturating_add(1);
        let mut sent = self.dress(out, cx, options, past.began).await?;
        let mut flight = self.launch_pooled(lane, out, cx, past)?;
        if flight.is_none() {
            // Boxed, so that a request that finds a connection is no larger for those that find none.
            let (way, stood) = Box::pin(dial(lane, cx, options, key(cx).is_some(), past.stale)).await?;
            sent = stood;
            flight = Some(self.launch(way, lane, out, cx, sent)?);
        }
        let head = await_head(&mut flight, &out.method, cx, options, sent).await;
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
    fn nowhere(&self, fault: Fault, past: &Past) -> CallError {
        if let Some(series) = self.series.as_ref().filter(|_| !matches!(fault, Fault::Open { .. })) {
            series.mine().failed(now().saturating_duration_since(past.began));
        }
        fault.into_error()
    }

    /// Sends on a connection from the pool, where there is one and the past does not speak against it.
    fn launch_pooled(
        &self,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        past: &Past,
    ) -> Result<Option<Flight>, Fault> {
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

/// An attempt brought no answer. The next one begins now.
fn failed(lease: &mut Lease, fault: Fault, past: &mut Past, own_deadline: bool) -> CallError {
    let (error, now) = (fault.into_error(), now());
    if let Some(outcome) = Outcome::of(&error) {
        let took = now.saturating_duration_since(past.began);
        lease.lane.observe(outcome, past.began, now);
        match error.source {
            Fault::Timeout(Timer::Total, _) if own_deadline => lease.ran_out(took, now),
            _ => lease.failed(took, now),
        }
    }
    past.began = now;
    error
}

/// Whether the time that is left was set by the client, and not by the document.
fn has_own_deadline(cx: &Exchange, options: &CallOptions) -> bool {
    cx.deadline != options.timeouts.total.map(|total| cx.started + total)
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
