//! The attempt loop: pick an endpoint → connection from the pool or dial → send → judge → again?
//!
//! Deadlines are instants and descend; at most two reads of the clock on the warm path, no lock but the worker's own.
//! Dropping the future (the client is gone) drops the connection with it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body as _;
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::{Exchange, Timer};
use pylon_core::{Request, Response};
use pylon_net::timer::sleep_until;

use crate::clocks::Clocks;
use crate::dial::{Way, dial};
use crate::endpoint::{Lane, Lease};
use crate::error::{Blame, CallError, Fault, Step};
use crate::flight::{Flight, Head};
use crate::h1;
use crate::h1::encode::{Framing, RequestHead};
use crate::h1::exchange::Asked;
use crate::h1::pump::EXPECT;
use crate::h2;
use crate::timeouts::Timeouts;
use crate::upstream::{Host, Upstream};

/// How many further endpoints are tried after one that could not be connected to.
const CONNECT_RETRIES: u8 = 2;
/// How many endpoints one exchange can meet: the first, one after a stale connection, and those above.
const MAX_ATTEMPTS: usize = 4;

/// What a route says about its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOptions {
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// The longest head of an answer, in bytes: the key `limits.response_headers`.
    pub max_head: usize,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), max_head: 64 * 1024 }
    }
}

/// A request on its way, kept until it cannot be sent again.
struct Outgoing {
    method: Method,
    headers: HeaderMap,
    body: Body,
    framing: Framing,
    expects: bool,
}

/// What earlier attempts of the same exchange have taught.
struct Past {
    /// When the present attempt began.
    began: Instant,
    tried: [usize; MAX_ATTEMPTS],
    attempts: usize,
    connect_failures: u8,
    /// A pooled connection died under the request: only a fresh one will do, once.
    stale: bool,
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
        let began = now();
        if let Some(total) = options.timeouts.total {
            let at = cx.started + total;
            cx.deadline = Some(cx.deadline.map_or(at, |earlier| earlier.min(at)));
        }
        let mut past = Past::new(began);
        loop {
            // Outlier ejection, a breaker and a concurrency limit belong between the choice and the connection: each
            // answers for one endpoint, and a refusal there is one more reason to choose again.
            let lease = self.pick(past.tried(), &mut cx.trail).map_err(Fault::into_error)?;
            past.remember(&lease.lane);
            let error = match self.attempt(lease, out, cx, options, &past).await {
                Ok((response, now)) => {
                    cx.trail.upstream_time = Some(now.saturating_duration_since(began));
                    return Ok(response);
                }
                Err(fault) => fault.into_error(),
            };
            past.began = self.failed(&error, past.began);
            // A retry policy by status and a budget judge here, too.
            let again = past.again(&error, out, cx);
            // An endpoint that could not be reached a moment ago is not asked again at once; another one is.
            let of_use = error.at != Step::Connect || self.endpoints() > past.attempts;
            if !again || !of_use {
                if let Fault::Timeout(timer, _) | Fault::Body(BodyError::Timeout(timer)) = error.source {
                    cx.trail.timer = Some(timer);
                }
                return Err(error);
            }
        }
    }

    /// One attempt at one endpoint: the answer, and when its head was whole.
    async fn attempt(
        &self,
        lease: Lease,
        out: &mut Outgoing,
        cx: &mut Exchange,
        options: &CallOptions,
        past: &Past,
    ) -> Result<(Response, Instant), Fault> {
        cx.trail.attempts = cx.trail.attempts.saturating_add(1);
        let mut sent = past.began;
        let mut flight = self.launch_pooled(&lease.lane, out, cx, past)?;
        if flight.is_none() {
            // Boxed, so that a request that finds a connection is no larger for those that find none.
            let (way, stood) = Box::pin(dial(&lease.lane, cx, options, key(cx).is_some())).await?;
            sent = stood;
            flight = Some(self.launch(way, &lease.lane, out, cx, sent)?);
        }
        let head = await_head(&mut flight, &out.method, cx, options, sent).await;
        // Only now, since what lives across a wait is counted for every connection.
        let Some(flight) = flight else { return Err(Fault::Connect(io::ErrorKind::NotConnected.into())) };
        let head = match head {
            Ok(head) => head,
            Err(fault) => {
                match fault {
                    Fault::Timeout(..) => flight.gave_up(),
                    Fault::Refused(_) => flight.take_back().into_iter().for_each(|body| out.body = body),
                    _ => {}
                }
                return Err(fault);
            }
        };
        let now = now();
        if let Some(metrics) = &lease.lane.metrics {
            metrics.answered(head.status(), now.saturating_duration_since(past.began));
        }
        let clocks = Clocks { idle: Some(options.timeouts.idle), total: cx.deadline };
        Ok((flight.answer(head, lease, clocks, now)?, now))
    }

    /// Counts a failed attempt, but for those that the client broke off. Answers with the time.
    fn failed(&self, error: &CallError, began: Instant) -> Instant {
        let now = now();
        if let Some(series) = self.series.as_ref().filter(|_| error.blame == Blame::Upstream) {
            series.mine().failed(now.saturating_duration_since(began));
        }
        now
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

/// Drives a flight until the head of its answer is here, or a timer fires. `sent` is when it was launched.
fn await_head<'a>(
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

impl Outgoing {
    fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let framing = framing(&body, &parts.headers);
        let body = if framing == Framing::Empty { Body::Empty } else { body };
        let expects = matches!(body, Body::Stream(_)) && parts.headers.contains_key(header::EXPECT);
        Self { method: parts.method, headers: parts.headers, body, framing, expects }
    }
}

/// How the body is delimited: by what it is, not by what the fields claim. A `Content-Length` counts only for a stream
/// that does not know its own length, and is enforced while it is sent.
fn framing(body: &Body, headers: &HeaderMap) -> Framing {
    let length = match body {
        Body::Empty | Body::Tunnel(_) => Some(0),
        Body::Full(bytes) => Some(bytes.len() as u64),
        Body::Stream(stream) if stream.is_end_stream() => Some(0),
        Body::Stream(stream) => stream.size_hint().exact().or_else(|| {
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
        }),
    };
    match length {
        Some(0) => Framing::Empty,
        Some(length) => Framing::Fixed(length),
        None => Framing::Chunked,
    }
}

impl Past {
    fn new(began: Instant) -> Self {
        Self { began, tried: [0; MAX_ATTEMPTS], attempts: 0, connect_failures: 0, stale: false }
    }

    fn tried(&self) -> &[usize] {
        self.tried.get(..self.attempts).unwrap_or_default()
    }

    fn remember(&mut self, lane: &Lane) {
        if let Some(place) = self.tried.get_mut(self.attempts) {
            *place = lane.id();
            self.attempts = self.attempts.saturating_add(1);
        }
    }

    /// Whether another attempt is safe and of use. Never after a timer that bounds all attempts.
    fn again(&mut self, error: &CallError, out: &Outgoing, cx: &Exchange) -> bool {
        match &error.source {
            Fault::Connect(_) | Fault::Tls(_) | Fault::Timeout(Timer::Connect, _)
                if self.connect_failures < CONNECT_RETRIES =>
            {
                self.connect_failures = self.connect_failures.saturating_add(1);
                true
            }
            Fault::Refused(_) if self.connect_failures < CONNECT_RETRIES => {
                self.connect_failures = self.connect_failures.saturating_add(1);
                out.can_be_sent_again()
            }
            // The peer may close an idle connection at any time (RFC 9112 §9.3.1); one more try on a fresh one.
            Fault::Unsent(_) | Fault::Reset { answered: false, .. } if cx.trail.reused && !self.stale => {
                self.stale = true;
                let safe = matches!(error.source, Fault::Unsent(_)) || is_idempotent(&out.method);
                safe && out.can_be_sent_again()
            }
            _ => false,
        }
    }
}

impl Outgoing {
    /// Whether the whole body is still here.
    fn can_be_sent_again(&self) -> bool {
        match self.body {
            Body::Empty => self.framing == Framing::Empty,
            // A stream that has been sent from is gone from here.
            Body::Full(_) | Body::Stream(_) => true,
            Body::Tunnel(_) => false,
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
