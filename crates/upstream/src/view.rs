//! What the admin API shows of an upstream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use crate::balance::Method;
use crate::breaker::view::BreakerView;
use crate::discovery::ledger::Known;
use crate::health::HealthView;
use crate::locality::Distance;
use crate::outliers::EjectionView;

/// An upstream at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// How endpoints are chosen: the method of `balance`.
    pub balance: Method,
    /// By which key of the request, where one decides: `header x-tenant`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How much may be under way, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyView>,
    /// How many further attempts (retries and hedges) its budget allows now.
    pub retry_budget: u32,
    /// Whether so few endpoints are left that what was found out about the others is ignored.
    pub panic: bool,
    /// The cookie that keeps clients at their endpoints, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// The endpoints in use.
    pub endpoints: Vec<EndpointView>,
    /// Breakers beside those of endpoints: of the upstream, of routes that call it.
    pub breakers: Vec<BreakerView>,
    /// The tiers that they stand in, the first first, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierView>,
    /// Where endpoints come from that are not written as addresses.
    pub sources: Vec<SourceView>,
    /// What is done to each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound: Option<OutboundView>,
}

/// The limit of concurrency of an upstream at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConcurrencyView {
    /// How many requests may be under way.
    pub limit: u32,
    /// The part of it that each class may use now.
    pub caps: BTreeMap<&'static str, u32>,
    /// Whether the limit is found out.
    pub adaptive: bool,
    /// How long answers take while the service is idle, where that is found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_latency_ms: Option<f64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests that wait for their turn, by class.
    pub queued: BTreeMap<&'static str, usize>,
    /// Requests refused since the limit is known, by class.
    pub shed: BTreeMap<&'static str, u64>,
}

/// One endpoint at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndpointView {
    /// Host and port.
    pub endpoint: String,
    /// The addresses that it is reached at.
    pub addresses: Vec<SocketAddr>,
    /// Its share in proportion to the others'.
    pub weight: u32,
    /// What it weighs now beside the others: not what is written where it warms up or reports its load.
    pub effective_weight: f64,
    /// Its average latency in milliseconds, where the method of choice measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Its priority; 0 comes first.
    pub priority: u32,
    /// Why it is not chosen: `unhealthy`, `ejected`, `breaker_open`; none where it may be.
    pub barred: Vec<&'static str>,
    /// Its own breaker, where there is one for each endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerView>,
    /// Where it stands, if its source says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The region that the zone is in, if its source says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where it comes from: `static`, `host name`, or the word for its source in `discover`.
    pub source: &'static str,
    /// Connections that wait for a request, over all workers.
    pub idle: usize,
    /// Connections that are open or being made, over all workers.
    pub connections: u32,
    /// Exchanges under way, over all workers.
    pub in_flight: u32,
    /// Attempts since the endpoint is known.
    pub attempts: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Attempts on a connection that was used before.
    pub reuses: u64,
    /// What its checks have found, where the upstream has `health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Whether it is left out for doing worse than it should, where the upstream has `outliers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<EjectionView>,
}

/// What is done to each attempt, without what is secret of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutboundView {
    /// `basic`, `bearer` or `oauth2`; none where there is no credential.
    pub credential: Option<&'static str>,
    /// Names of headers that are written, added or taken away.
    pub headers: Vec<String>,
    /// The token that the gateway gets for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenView>,
    /// Why a file that a secret stands in cannot be used now, so that the secret before is.
    pub error: Option<String>,
}

/// A token that the gateway gets for itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenView {
    /// Who gives it.
    pub from: String,
    /// How long it can be sent; none where there is none.
    pub good_for_seconds: Option<u64>,
    /// How many there have been.
    pub obtained: u64,
    /// How long ago it was asked for; none where there is none that can be sent.
    pub age_seconds: Option<u64>,
    /// Why there was none when it was last asked for.
    pub error: Option<String>,
    /// How many times there was none.
    pub failures: u64,
}

/// Endpoints of one priority that are equally far from the gateway.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TierView {
    /// Their priority.
    pub priority: u32,
    /// How far they are: `near`, `region` or `far`.
    pub distance: Distance,
    /// How many they are.
    pub endpoints: usize,
    /// The part of their weight that is trusted to carry requests, in percent.
    pub trusted: u32,
    /// The part of the requests that they get, in percent.
    pub requests: u32,
}

/// Where a request would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChoiceView {
    /// The endpoint; none where that is not settled, or where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why it is that one, or what is not settled.
    pub why: String,
}

/// One source of endpoints at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceView {
    /// What it is: `host name`, or its word in `discover`.
    pub source: &'static str,
    /// What is looked for: a name, a file.
    pub name: String,
    /// The addresses of a name; else host and port of each endpoint.
    pub found: Vec<String>,
    /// Seconds since they were last confirmed; none where they never were.
    pub age_seconds: Option<u64>,
    /// Whether the last attempt failed, so that what was found is of an earlier one.
    pub stale: bool,
    /// Why the last attempt failed, or what of its answer is of no use.
    pub error: Option<String>,
    /// How many attempts have failed.
    pub failures: u64,
}

impl SourceView {
    pub(crate) fn new<T>(
        source: &'static str,
        name: &str,
        known: Known<T>,
        now: Instant,
        show: impl Fn(&T) -> String,
    ) -> Self {
        Self {
            source,
            name: name.to_owned(),
            found: known.found.iter().map(show).collect(),
            age_seconds: known.at.map(|at| now.saturating_duration_since(at).as_secs()),
            stale: known.stale && !known.found.is_empty(),
            error: known.error,
            failures: known.failures,
        }
    }
}
