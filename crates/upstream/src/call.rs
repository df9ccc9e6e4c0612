//! The attempt loop: pick an endpoint → connection from the pool or dial → send → judge → again?
//!
//! Deadlines are instants and descend; at most two reads of the clock on the warm path, no lock but the worker's own.
//! Dropping the future (the client is gone) drops the connection with it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body::Body as _;
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::{Exchange, Timer};
use pylon_core::{Request, Response};
use pylon_net::stream::Stream;
use pylon_net::timer::{sleep_until, timeout_at};
use pylon_observe::series::UpstreamShard;

use crate::endpoint::{Lane, Lease};
use crate::error::{Blame, CallError, Fault, Step};
use crate::h1::body::Clocks;
use crate::h1::conn::{Conn, Life};
use crate::h1::encode::{Framing, RequestHead};
use crate::h1::exchange::{Asked, Flight};
use crate::h1::pump::EXPECT;
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
            let (conn, stood) = Box::pin(dial(&lease.lane, cx, &options.timeouts)).await?;
            sent = stood;
            flight = Some(self.launch(conn, &lease.lane, out, cx, sent)?);
        }
        let mut sleep = sleep_until(HeadDeadline::new(cx, sent, &options.timeouts, None).at);
        let head = poll_fn(|task| {
            // Borrowed alone: an exchange may be sent to another thread, but not shared with one.
            let (Some(flight), cx) = (&mut flight, &mut *cx) else { return Poll::Pending };
            let asked = Asked {
                method: &out.method,
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
        .await?;
        let now = now();
        if let Some(metrics) = &lease.lane.metrics {
            metrics.answered(head.status.as_u16(), now.saturating_duration_since(past.began));
        }
        let clocks = Clocks { idle: Some(options.timeouts.idle), total: cx.deadline };
        let flight = flight.ok_or_else(|| Fault::Connect(io::ErrorKind::NotConnected.into()))?;
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
        let pooled = if past.stale { None } else { lane.slot.take(past.began) };
        cx.trail.reused = pooled.is_some();
        let Some(conn) = pooled else { return Ok(None) };
        lane.slot.counters.reused();
        self.launch(conn, lane, out, cx, past.began).map(Some)
    }

    fn launch(
        &self,
        conn: Conn,
        lane: &Lane,
        out: &mut Outgoing,
        cx: &mut Exchange,
        now: Instant,
    ) -> Result<Flight, Fault> {
        cx.trail.endpoint = Some(conn.life.addr);
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
        Flight::launch(conn, &head, &mut out.body, out.expects.then(|| now + EXPECT))
    }
}

/// The key of the handshake, where the service is to be asked for a WebSocket.
fn key(cx: &Exchange) -> Option<&HeaderValue> {
    cx.websocket.as_ref().filter(|handshake| handshake.allowed)?.key.as_ref().ok()
}

/// Makes a connection, and says when it stood.
async fn dial(lane: &Lane, cx: &mut Exchange, timeouts: &Timeouts) -> Result<(Conn, Instant), Fault> {
    cx.trail.endpoint = lane.addrs.first().copied();
    let connect = (now() + timeouts.connect, Timer::Connect, timeouts.connect);
    let response = (cx.started + timeouts.response, Timer::Response, timeouts.response);
    let total = cx.deadline.map(|at| (at, Timer::Total, at.saturating_duration_since(cx.started)));
    let first = [connect, response].into_iter().chain(total).min_by_key(|(at, ..)| *at).unwrap_or(connect);
    let stream = match reach(lane, first.0).await {
        Ok(stream) => stream,
        Err(fault) => {
            lane.slot.counters.connect_failed();
            if let Some(metrics) = &lane.metrics {
                metrics.connect_failed();
            }
            return Err(match fault {
                Fault::Connect(error) | Fault::Tls(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Fault::Timeout(first.1, first.2)
                }
                fault => fault,
            });
        }
    };
    lane.slot.counters.connected();
    let addr = match lane.addrs.as_ref() {
        [only] => *only,
        _ => stream.peer_addr().map_err(Fault::Connect)?,
    };
    let stood = now();
    let jitter = 0.9 + 0.2 * fastrand::f64();
    let expires = stood + lane.limits.lifetime.mul_f64(jitter);
    let open = lane.metrics.as_ref().map(UpstreamShard::connected);
    let life = Box::new(Life { addr, expires, epoch: lane.epoch, _open: open });
    Ok((Conn { stream, buf: BytesMut::new(), life }, stood))
}

/// A socket to the lane's endpoint and, where it is spoken to so, TLS on it.
pub(crate) async fn reach(lane: &Lane, deadline: Instant) -> Result<Stream, Fault> {
    let stream = pylon_net::dial::connect(&lane.addrs, Some(deadline)).await.map_err(Fault::Connect)?;
    let Some(tls) = &lane.tls else { return Ok(Stream::Plain(stream)) };
    let shaken = timeout_at(Some(deadline), tls.connect(stream)).await;
    shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(Fault::Tls)
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
            Body::Full(_) => true,
            Body::Stream(_) | Body::Tunnel(_) => false,
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
