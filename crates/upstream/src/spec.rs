//! An upstream as it is written in a document.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use pylon_net::proxy_protocol::Version;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::balance::spec::BalanceSpec;
use crate::breaker::spec::ShortBreaker;
use crate::call::budget::ShortRetryBudget;
use crate::call::retry::spec::ShortRetry;
use crate::concurrency::spec::ShortConcurrency;
use crate::discovery::spec::DiscoverSpec;
use crate::health::spec::ShortHealth;
use crate::outbound::spec::OutboundSpec;
use crate::outliers::spec::ShortOutliers;
use crate::timeouts::ShortTimeout;

/// A named service behind the gate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamSpec {
    /// Where the service is reached: addresses or host names with a port (80, or 443 of `https`, where none is written), or paths
    /// of Unix sockets (`unix:/run/app.sock`). A host name is one endpoint, resolved again when its TTL is over; all its addresses are raced. No default: this or `discover` must be written.
    /// Example: `[http://10.0.0.1:8080, { url: "http://10.0.0.2:8080", weight: 2 }]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Short<EndpointSpec>>,
    /// Where endpoints are found at run time, beside those of `endpoints`: exactly one source. None by default.
    /// Example: `{ dns: "users.internal:8080" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<DiscoverSpec>,
    /// How an endpoint is chosen: `round_robin`, `least_request`, `random`, `ewma`, `ring_hash`, `maglev` or `prequal`, or a
    /// map that says more. Default `round_robin`. Example: `{ method: maglev, by: { header: x-tenant } }`.
    #[serde(default)]
    pub balance: Short<BalanceSpec>,
    /// How long each step may take: a span of time for the head of the answer, or a map. Default
    /// `{ connect: 3s, response: 30s, idle: 60s }`. Example: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ShortTimeout>,
    /// When requests are held back from what fails, and how it is found out that it is well again: `true`, a share of failed
    /// calls, or a map. Default: never. Example: `{ errors: 50%, slow: 2s, per: endpoint }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub breaker: Option<ShortBreaker>,
    /// How many requests may be under way, over all workers, and who waits when as many are: a number, `adaptive`, or a map.
    /// Who gets no turn is refused with 503. No limit by default. Example: `{ limit: 100, queue: { wait: 250ms } }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub concurrency: Option<ShortConcurrency>,
    /// When a request is sent once more, for routes that do not say: how many attempts may follow the first, or a map; `off`
    /// takes away what `defaults` says. Default: only where the service has certainly not acted on it. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<ShortRetry>,
    /// How many retries and hedges there may be beside the requests, whatever the routes say: a share, or a map. Default
    /// `{ ratio: 20%, floor: 10/s }`. Example: `10%`.
    #[serde(default)]
    pub retry_budget: ShortRetryBudget,
    /// How many connections idle and for how long. Default `{ max_idle: 256, idle: 4s, lifetime: 10m }`. Example: `{ idle: 55s }`.
    #[serde(default)]
    pub pool: PoolSpec,
    /// Which version of HTTP is spoken: `auto` (HTTP/1.1 in cleartext; under TLS whichever is agreed on, HTTP/2 first), `http1` or
    /// `http2` (in cleartext without asking). gRPC needs HTTP/2. Default `auto`. Example: `http2`.
    #[serde(default)]
    pub protocol: ProtocolSpec,
    /// Tells the service the client's address by a PROXY header of this version, `v1` or `v2`, at the beginning of each connection,
    /// before TLS. Each request then has a connection of its own, since a connection is for one client. Default: none.
    /// Example: `v2`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub proxy_protocol: Option<Version>,
    /// TLS towards endpoints with `https://` and those that are discovered. Default: endpoints with `https://` are verified by the
    /// system's roots, those that are discovered are spoken to in cleartext. Example: `{ ca: certs/internal.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub tls: Option<UpstreamTlsSpec>,
    /// The `Host` that the service sees: `keep` (the client's), `endpoint` (the endpoint's own) or a name. Default `keep`.
    /// Example: `users.internal`.
    #[serde(default)]
    pub host: HostSpec,
    /// What the gateway does to each attempt: headers, and a credential in place of the client's `Authorization`. Default: nothing.
    /// Example: `{ bearer: file:/run/secrets/users-token }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub outbound: Option<OutboundSpec>,
    /// How endpoints are asked whether they are well: a path, or a map. Those that are not get no requests. Default: they are not
    /// asked. Example: `/healthz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ShortHealth>,
    /// When endpoints that do worse than they should get no requests for a while: `on`, or a map. Default: never. Example: `on`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<ShortOutliers>,
    /// The share of endpoints below which health and outliers are doubted: where fewer are left, requests go to all of them. `0%` is
    /// never. Default `50%`. Example: `30%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panic: Option<Percent>,
}

/// The key may be left out but not left empty: `tls:` with nothing behind it could mean either.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

/// One endpoint: a URL, or a map that says more of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// Scheme, host and port, where `tcp://` is for listeners with `tcp`; or `unix:` and the path of a Unix socket. No default. Example: `http://10.0.0.1:8080`.
    pub url: String,
    /// Its share of the requests in proportion to the others', from 1 to 1000. Default 1. Example: `3`.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where it stands: endpoints in the gateway's own zone (`locality`) come first. Default: nobody knows. Example: `eu-1a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The region that its zone is in: endpoints in another region than the gateway's come last. Default: nobody knows.
    /// Example: `eu-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Endpoints of a higher number stand in for those of a lower one where too few of these are left. A number from 0 on;
    /// default 0. Example: `1`.
    #[serde(default, skip_serializing_if = "is_first")]
    pub priority: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_first(priority: &u32) -> bool {
    *priority == 0
}

/// What the endpoints of an upstream speak, as far as they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP: routes forward to it.
    Http,
    /// Something else (`tcp://`): listeners with `tcp` forward to it.
    Bytes,
    /// They do not say.
    Anything,
}

impl UpstreamSpec {
    /// What the endpoints speak. None where they contradict each other.
    pub(crate) fn speaks(&self) -> Option<Speaks> {
        let speaks = |endpoint: &Short<EndpointSpec>| match endpoint.url.split_once("://") {
            _ if endpoint.url.starts_with("unix:") => Speaks::Anything,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("tcp") => Speaks::Bytes,
            Some(_) => Speaks::Http,
            None => Speaks::Anything,
        };
        self.endpoints
            .iter()
            .map(speaks)
            .filter(|speaks| *speaks != Speaks::Anything)
            .try_fold(Speaks::Anything, |all, one| (all == Speaks::Anything || all == one).then_some(one))
    }
}

fn one() -> u32 {
    1
}

impl FromScalar for EndpointSpec {
    const EXPECTING: &'static str = "a URL such as `http://10.0.0.1:8080`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { url: text.to_owned(), weight: 1, zone: None, region: None, priority: 0 })
    }
}

pub(crate) fn one_hour() -> Span {
    Span::from_secs(3600)
}

/// Which version of HTTP is spoken to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolSpec {
    /// HTTP/1.1 in cleartext, what is agreed on (ALPN) under TLS.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, in cleartext by prior knowledge (RFC 9113 §3.3).
    Http2,
}

/// Connections that wait for the next request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSpec {
    /// How many connections may idle, for each worker and endpoint. A number, 0 to 10000; default 256. Example: `64`.
    pub max_idle: u32,
    /// How long a connection may idle. Stay below the service's own keep-alive time (5 s in Node.js), else requests meet
    /// closing connections. A span of time; default `4s`. Example: `55s`.
    pub idle: Span,
    /// How long a connection is used at all, give or take 10 %. A span of time; default `10m`. Example: `1h`.
    pub lifetime: Span,
    /// How many connections to an endpoint may be open, over all workers, idle ones included. A number, 1 to 1000000; default: any.
    /// Example: `100`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub max_connections: Option<u32>,
    /// How long a request waits for one of `max_connections` before another endpoint is tried, and at last refused with 503. A span of
    /// time, at most `10s`; default `100ms` where `max_connections` is written. Example: `250ms`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub wait: Option<Span>,
}

impl PoolSpec {
    /// How many connections may be open, and how long is waited for one.
    pub(crate) fn most(&self) -> Option<(u32, Duration)> {
        Some((self.max_connections?, self.wait.unwrap_or(Span::from_millis(100)).duration()))
    }

    /// What is wrong. Paths begin at the pool.
    pub(crate) fn check(&self) -> Vec<SpecError> {
        let (at, mut errors) = (|key: &str| FieldPath::root().key(key), Vec::new());
        if self.max_idle > 10_000 {
            let problem = "more than 10000 idle connections for each worker and endpoint";
            errors.push(SpecError::new(at("max_idle"), problem));
        }
        if let Some(most) = self.max_connections.filter(|most| !(1..=1_000_000).contains(most)) {
            let problem = format!("{most} is not a number from 1 to 1000000");
            errors.push(SpecError::new(at("max_connections"), problem));
        }
        if let Some(wait) = self.wait {
            if self.max_connections.is_none() {
                let error = SpecError::new(at("wait"), "`wait` means nothing without `max_connections`");
                errors.push(error.help("leave it out: any number of connections may be open"));
            }
            if wait > Span::from_secs(10) {
                errors.push(SpecError::new(at("wait"), "requests would wait for more than 10s"));
            }
        }
        errors
    }
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            max_idle: 256,
            idle: Span::from_secs(4),
            lifetime: Span::from_secs(600),
            max_connections: None,
            wait: None,
        }
    }
}

/// The `Host` that a service sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostSpec {
    /// The client's.
    #[default]
    Keep,
    /// Host and port of the endpoint.
    Endpoint,
    /// This name.
    Name(HeaderValue),
}

impl Serialize for HostSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Keep => "keep",
            Self::Endpoint => "endpoint",
            Self::Name(name) => name.to_str().unwrap_or_default(),
        })
    }
}

impl<'de> Deserialize<'de> for HostSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = HostSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`keep`, `endpoint` or a host name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HostSpec, E> {
                match text {
                    "keep" => Ok(HostSpec::Keep),
                    "endpoint" => Ok(HostSpec::Endpoint),
                    name => match name.parse::<http::uri::Authority>() {
                        Ok(authority) if !name.contains('@') => HeaderValue::from_str(authority.as_str())
                            .map(HostSpec::Name)
                            .map_err(|_| E::custom(format!("`{name}` is not a host name"))),
                        _ => Err(E::custom(format!("`{name}` is not a host name"))),
                    },
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for HostSpec {
    fn schema_name() -> Cow<'static, str> {
        "HostSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`keep`, `endpoint` or a host name" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Method;

    #[test]
    fn an_upstream_is_short_where_little_is_said() {
        let spec: UpstreamSpec = serde_json::from_str(
            r#"{"endpoints": ["http://a:1", {"url": "http://b:2", "weight": 3}], "timeout": "10s", "host": "endpoint"}"#,
        )
        .unwrap();
        assert_eq!(spec.endpoints[0].weight, 1);
        assert_eq!(spec.endpoints[1].weight, 3);
        assert_eq!((spec.host.clone(), spec.balance.method), (HostSpec::Endpoint, Method::RoundRobin));
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<UpstreamSpec>(&written).unwrap(), spec);
    }

    #[test]
    fn what_is_not_built_yet_is_an_unknown_key() {
        assert!(serde_json::from_str::<UpstreamSpec>(r#"{"endpoints": ["http://a:1"], "hedge": {}}"#).is_err());
        assert!(serde_json::from_str::<UpstreamSpec>(r#"{"host": "a b"}"#).is_err());
    }
}
