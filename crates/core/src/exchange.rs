//! One exchange: what the gateway knows of a request from its head to the last byte of its answer.
//!
//! Policies meet here, in named fields, and nowhere else. It owns what it holds and never a snapshot, so that it can
//! stay with the body until the end and become the access-log record.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Version};

use crate::attempts::{Cause, Hedged, Retried};
use crate::caller::Caller;
use crate::connection::{Connection, Scheme};
use crate::priority::Priority;
use crate::rejection::{Reason, Rejection};

/// The living facts of one request.
#[derive(Debug)]
pub struct Exchange {
    /// The connection that the request came by.
    pub connection: Arc<Connection>,
    /// The one client address: the peer, or what trusted proxies say.
    pub client: IpAddr,
    /// Whether the peer stands in `trusted_proxies`.
    pub from_trusted_proxy: bool,
    /// The scheme that the client used: the connection's own, or what a trusted proxy says in `X-Forwarded-Proto`.
    pub scheme: Scheme,
    /// The correlation id: accepted from a trusted peer, else made here (UUIDv7).
    pub request_id: HeaderValue,
    /// When the head was read.
    pub started: Instant,
    /// The method of the client.
    pub method: Method,
    /// The version that the client speaks.
    pub version: Version,
    /// The host that was asked for: lower case, without port.
    pub host: Option<Box<str>>,
    /// Path and query after the one normalisation: what router, policies, log and cache key see.
    pub path: PathAndQuery,
    /// Path and query letter by letter as the client wrote them, where they differ from `path`.
    pub written_path: Option<PathAndQuery>,
    /// Path and query that are sent, where a rewrite made them differ from `path`.
    pub upstream_path: Option<PathAndQuery>,
    /// The host that is sent, where a rewrite made it differ.
    pub upstream_host: Option<HeaderValue>,
    /// Fields that the gateway vouches for towards upstreams, as whole lines on the wire.
    pub announced: Vec<u8>,
    /// When the whole exchange must be over, where `total` is written.
    pub deadline: Option<Instant>,
    /// The WebSocket that the client asks for; none where it asks for nothing but an answer.
    pub websocket: Option<Box<Handshake>>,
    /// Whether it is a call of gRPC, whose refusals have a form of their own.
    pub grpc: bool,
    /// Who is asking, once a policy has proved it.
    pub caller: Option<Arc<Caller>>,
    /// Whether a credential came that no policy has claimed so far.
    pub unclaimed: bool,
    /// Whether a policy in shadow looks at it now: the body that it sees is a stand-in.
    pub in_shadow: bool,
    /// How much it matters where there is not enough for all.
    pub priority: Priority,
    /// What happened, for the access log.
    pub trail: Trail,
    guards: Vec<Box<dyn Any + Send>>,
}

impl Exchange {
    /// Starts with a head that has been read and normalised.
    pub fn begin(head: Head) -> Box<Self> {
        Box::new(Self {
            client: head.client,
            from_trusted_proxy: head.from_trusted_proxy,
            scheme: head.scheme,
            request_id: head.request_id,
            started: head.started,
            method: head.method,
            version: head.version,
            host: head.host,
            path: head.path,
            connection: head.connection,
            written_path: None,
            upstream_path: None,
            upstream_host: None,
            announced: Vec::new(),
            deadline: None,
            websocket: None,
            grpc: false,
            caller: None,
            unclaimed: false,
            in_shadow: false,
            priority: Priority::default(),
            trail: Trail::default(),
            guards: Vec::new(),
        })
    }

    /// The facts of a further request on behalf of this one, of which the client sees nothing: no interim answer, no switch of
    /// protocols. Its time and its record are its own.
    pub fn aside(&self) -> Box<Self> {
        let connection = Arc::new(self.connection.aside(self.started));
        let mut aside = Self::begin(Head {
            connection,
            client: self.client,
            from_trusted_proxy: self.from_trusted_proxy,
            scheme: self.scheme,
            request_id: self.request_id.clone(),
            started: self.started,
            method: self.method.clone(),
            version: self.version,
            host: self.host.clone(),
            path: self.path.clone(),
        });
        aside.upstream_path.clone_from(&self.upstream_path);
        aside.upstream_host.clone_from(&self.upstream_host);
        aside.announced.clone_from(&self.announced);
        aside.grpc = self.grpc;
        aside.caller.clone_from(&self.caller);
        // Nobody waits for what comes of it.
        aside.priority = Priority::Low;
        aside
    }

    /// Keeps `guard` until the last byte of the answer is gone or the client is.
    pub fn until_body_ends(&mut self, guard: impl Any + Send) {
        self.guards.push(Box::new(guard));
    }

    /// Path and query as the client wrote them.
    pub fn written_path(&self) -> &PathAndQuery {
        self.written_path.as_ref().unwrap_or(&self.path)
    }

    /// Path and query as they are sent to the upstream.
    pub fn sent_path(&self) -> &PathAndQuery {
        self.upstream_path.as_ref().unwrap_or(&self.path)
    }
}

/// A switch of protocols that the client asks for: to WebSocket, for no other is known (RFC 6455 §4.1, RFC 8441 §4).
#[derive(Debug)]
pub struct Handshake {
    /// The key that the service has to prove to have understood, or why the client's handshake is not valid.
    pub key: Result<HeaderValue, Rejection>,
    /// Whether the route allows it. Only then is the service asked, and may it switch.
    pub allowed: bool,
}

/// What an exchange begins with.
#[derive(Debug)]
pub struct Head {
    /// See [`Exchange::connection`].
    pub connection: Arc<Connection>,
    /// See [`Exchange::client`].
    pub client: IpAddr,
    /// See [`Exchange::from_trusted_proxy`].
    pub from_trusted_proxy: bool,
    /// See [`Exchange::scheme`].
    pub scheme: Scheme,
    /// See [`Exchange::request_id`].
    pub request_id: HeaderValue,
    /// See [`Exchange::started`].
    pub started: Instant,
    /// See [`Exchange::method`].
    pub method: Method,
    /// See [`Exchange::version`].
    pub version: Version,
    /// See [`Exchange::host`].
    pub host: Option<Box<str>>,
    /// See [`Exchange::path`].
    pub path: PathAndQuery,
}

/// What happened on the way, told in the access log.
#[derive(Debug, Default)]
pub struct Trail {
    /// The upstream that was called. A worker's own copy of the name.
    pub upstream: Option<Arc<str>>,
    /// The address of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// The path of the last attempt, where it was one at a Unix socket. A worker's own copy.
    pub socket: Option<Arc<str>>,
    /// How many attempts were made.
    pub attempts: u32,
    /// Why each attempt but the first was made, in their order; a hedge stands apart.
    pub retries: Vec<Cause>,
    /// Why no further attempt was made where one was called for.
    pub retry_refused: Option<Retried>,
    /// What a second attempt beside the first came to.
    pub hedge: Option<Hedged>,
    /// Whether the last attempt used a connection from the pool.
    pub reused: bool,
    /// From the first attempt to the head of the answer.
    pub upstream_time: Option<Duration>,
    /// How long it waited for its turn at an upstream whose limit was reached.
    pub queued: Option<Duration>,
    /// The status of a call of gRPC, as the head or the trailers of its answer told it.
    pub grpc_status: Option<u16>,
    /// The timer that ended the exchange.
    pub timer: Option<Timer>,
    /// Why the gateway itself refused.
    pub reason: Option<&'static Reason>,
    /// The sentence that goes with `reason`.
    pub detail: Option<Cow<'static, str>>,
    /// What policies in shadow would have refused: key of the policy and code of the refusal.
    pub shadowed: Vec<(&'static str, &'static str)>,
    /// Faults that were injected on purpose.
    pub injected: Option<Injected>,
    /// What stood in for an answer that failed.
    pub fallback: Option<StandIn>,
    /// Headers of the request that the access log is asked to tell.
    pub noted: Vec<(HeaderName, HeaderValue)>,
}

/// Faults that were injected into a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// It was held back.
    Delay,
    /// It was refused.
    Abort,
    /// It was held back and then refused.
    Both,
}

impl Injected {
    /// Whether it was held back, and whether it was refused.
    pub fn parts(self) -> (bool, bool) {
        (self != Self::Abort, self != Self::Delay)
    }
}

/// What a fallback came to.
#[derive(Debug, Clone)]
pub struct StandIn {
    /// What stood in.
    pub by: StoodIn,
    /// For what.
    pub on: Failing,
    /// The upstream that failed. A worker's own copy of the name.
    pub from: Option<Arc<str>>,
}

/// What stood in for an answer that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum StoodIn {
    /// An answer of the gateway's own.
    Respond,
    /// Another upstream.
    Forward,
    /// Nothing: another upstream would have, but the body of the request could not be sent again.
    BodyGone,
}

impl StoodIn {
    /// The names in log and metrics, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["respond", "forward", "body_gone"];

    /// The name in log and metrics.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// In what way an answer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// There was none, and this is why.
    Call(&'static Reason),
    /// It had this status.
    Status(u16),
}

impl Trail {
    /// Notes a refusal for the log.
    pub fn refuse(&mut self, rejection: &Rejection) {
        self.reason = Some(rejection.reason);
        self.detail = rejection.note.clone().or_else(|| rejection.detail.clone());
    }
}

/// The timers of an exchange, by the names that the log and the 504 use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Making a connection to an endpoint.
    Connect,
    /// From the request being sent to the first byte of the answer's head.
    FirstByte,
    /// One attempt, from its start to the head of its answer.
    PerTry,
    /// From the request's arrival to the head of the answer, attempts included.
    Response,
    /// Between two pieces of a body, or of what passes through a tunnel.
    Idle,
    /// From the request's arrival to the last byte of the answer.
    Total,
    /// From the switch of protocols to the end of a tunnel.
    MaxLifetime,
    /// The client's head.
    ClientHeader,
    /// Between two pieces of the client's body.
    ClientBody,
    /// The client's body on the whole.
    ClientBodyRate,
    /// The client's taking of the answer.
    ClientRead,
}

impl Timer {
    /// The name in log, metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::FirstByte => "first_byte",
            Self::PerTry => "per_try",
            Self::Response => "response",
            Self::Idle => "idle",
            Self::Total => "total",
            Self::MaxLifetime => "max_lifetime",
            Self::ClientHeader => "client_header",
            Self::ClientBody => "client_body",
            Self::ClientBodyRate => "client_body_rate",
            Self::ClientRead => "client_read",
        }
    }
}

impl Timer {
    /// The key of the document that sets it, where that is one of `limits`.
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::ClientHeader => Some("limits.header_timeout"),
            Self::ClientBody => Some("limits.body_timeout"),
            Self::ClientBodyRate => Some("limits.body_rate"),
            Self::ClientRead => Some("limits.write_timeout"),
            Self::Connect
            | Self::FirstByte
            | Self::PerTry
            | Self::Response
            | Self::Idle
            | Self::Total
            | Self::MaxLifetime => None,
        }
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
