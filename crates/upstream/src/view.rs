//! What the admin API shows of an upstream.

use std::net::SocketAddr;

use serde::Serialize;

/// An upstream at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpstreamView {
    /// Its name.
    pub name: String,
    /// How endpoints are chosen: `round_robin`, `least_request` or `random`.
    pub balance: crate::spec::BalanceSpec,
    /// The endpoints in use.
    pub endpoints: Vec<EndpointView>,
    /// The names that are resolved.
    pub names: Vec<NameView>,
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
    /// Where it comes from: `static`, `host name` or `dns`.
    pub source: &'static str,
    /// Connections that wait for a request, over all workers.
    pub idle: usize,
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
}

/// One resolved name at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NameView {
    /// The name and port.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// Seconds since they were last confirmed; none where they never were.
    pub age_seconds: Option<u64>,
    /// Whether the last lookup failed, so that the addresses are those of an earlier one.
    pub stale: bool,
    /// Why the last lookup failed.
    pub error: Option<String>,
}
