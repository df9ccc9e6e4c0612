//! Health checks as they are written in a document, and what is compiled from them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::probe::{Ask, Http, Probe, with_grpc};
use super::state::Thresholds;
use crate::spec::{HostSpec, ProtocolSpec, Speaks, UpstreamSpec};
use crate::word::{self, Word};

/// How the gateway asks endpoints whether they are well. A scalar such as `/healthz` is `path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSpec {
    /// The path and query that is asked for by GET, in the protocol of the upstream. No default: exactly one of `path`, `grpc` and
    /// `tcp` is written. Example: `/healthz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The service whose state is asked for by `grpc.health.v1.Health/Check`, over HTTP/2; an empty text is the whole server. Default:
    /// none. Example: `users.v1.Users`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
    /// Whether it is enough that a connection can be made, TLS included where the endpoint has it. Default `false`. Example: `true`.
    pub tcp: bool,
    /// How long from one check to the next, give or take 10 %. A span of time; default `10s`. Example: `2s`.
    pub every: Span,
    /// How long a check may take in all. A span of time; default `2s`. Example: `500ms`.
    pub timeout: Span,
    /// How many checks in a row must pass until an unhealthy endpoint is healthy. A number, 1 to 100; default 2. Example: `1`.
    pub rise: u32,
    /// How many checks in a row must fail until an endpoint is unhealthy. A number, 1 to 100; default 3. Example: `5`.
    pub fall: u32,
    /// Which statuses are good, one or a list: `204`, `200-399` or a class such as `2xx`. Redirects are not followed. Default
    /// `200-399`. Example: `[200, 204]`.
    #[serde(skip_serializing_if = "is_empty")]
    pub status: OneOrMany<Statuses>,
    /// A text that the first 64 KiB of the body must contain. Default: none, the body is not read. Example: `"\"status\":\"UP\""`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The `Host` that is asked for. Default: a name written as the upstream's `host`, else the endpoint's own. Example:
    /// `users.internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that is asked, where it is not the endpoint's own. Default: none. Example: `8081`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Header fields that are sent with the question. Default: none. Example: `{ x-probe: "1" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A [`HealthSpec`] as it stands in a document.
pub type ShortHealth = Short<HealthSpec>;

fn is_empty(list: &OneOrMany<Statuses>) -> bool {
    list.is_empty()
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            path: None,
            grpc: None,
            tcp: false,
            every: Span::from_secs(10),
            timeout: Span::from_secs(2),
            rise: 2,
            fall: 3,
            status: OneOrMany::default(),
            body: None,
            host: None,
            port: None,
            headers: BTreeMap::new(),
        }
    }
}

impl FromScalar for HealthSpec {
    const EXPECTING: &'static str = "a path such as `/healthz`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            path if path.starts_with('/') => Ok(Self { path: Some(path.to_owned()), ..Self::default() }),
            "tcp" => Err("`tcp` is written as `{ tcp: true }`".to_owned()),
            "grpc" => {
                Err("`grpc` is written as `{ grpc: SERVICE }`, with an empty text for the whole server".to_owned())
            }
            other => Err(format!("`{other}` is not a path: it begins with `/`")),
        }
    }
}

/// One status, or those from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statuses {
    from: u16,
    to: u16,
}

impl Statuses {
    /// What is good where nothing is written.
    pub(crate) const USUAL: Self = Self { from: 200, to: 399 };

    pub(crate) fn has(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

impl Word for Statuses {
    const EXPECTING: &'static str = "a status from 200 to 599, two of them such as `200-399`, or a class such as `2xx`";

    fn parse(text: &str) -> Option<Self> {
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (200..600).contains(status));
        if let Some(class) = text.strip_suffix("xx") {
            let from = class.parse::<u16>().ok().filter(|class| (2..6).contains(class))?.checked_mul(100)?;
            return Some(Self { from, to: from.checked_add(99)? });
        }
        let (from, to) = text.split_once('-').map_or((text, text), |both| both);
        let both = Self { from: status(from)?, to: status(to)? };
        (both.from <= both.to).then_some(both)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to { write!(f, "{}", self.from) } else { write!(f, "{}-{}", self.from, self.to) }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word::read(deserializer)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "`204`, `200-399` or a class such as `2xx`" })
    }
}

/// When checks are made, and how many of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Schedule {
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) thresholds: Thresholds,
}

/// What is asked and when, of an upstream whose endpoints are known to be of no other kind.
pub(crate) fn compile(spec: &HealthSpec, upstream: &UpstreamSpec) -> Result<(Probe, Schedule), Vec<SpecError>> {
    let mut reader = Reader { spec, upstream, errors: Vec::new() };
    reader.thresholds();
    reader.port();
    let ask = reader.ask();
    let schedule = Schedule {
        every: spec.every.duration(),
        timeout: spec.timeout.duration(),
        thresholds: Thresholds { rise: spec.rise, fall: spec.fall },
    };
    match ask {
        Some(ask) if reader.errors.is_empty() => {
            let http2 = upstream.protocol == ProtocolSpec::Http2 || matches!(ask, Ask::Grpc { .. });
            Ok((Probe { ask, port: spec.port, http2, tells: upstream.proxy_protocol }, schedule))
        }
        _ => Err(reader.errors),
    }
}

struct Reader<'a> {
    spec: &'a HealthSpec,
    upstream: &'a UpstreamSpec,
    errors: Vec<SpecError>,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, problem: impl Into<String>, help: impl Into<String>) {
        self.errors.push(SpecError::new(FieldPath::root().key(key), problem).help(help));
    }

    fn thresholds(&mut self) {
        for (key, count) in [("rise", self.spec.rise), ("fall", self.spec.fall)] {
            if !(1..=100).contains(&count) {
                self.wrong(key, format!("{count} is not from 1 to 100"), "write how many checks in a row count");
            }
        }
    }

    fn port(&mut self) {
        let is_socket = |url: &str| url.starts_with("unix:");
        match self.spec.port {
            Some(0) => self.wrong("port", "0 is no port", "leave it out to ask the endpoint's own"),
            Some(_) if self.upstream.endpoints.iter().any(|endpoint| is_socket(&endpoint.url)) => {
                self.wrong("port", "a Unix socket has no port", "leave it out");
            }
            _ => {}
        }
    }

    fn ask(&mut self) -> Option<Ask> {
        let spec = self.spec;
        match (&spec.path, &spec.grpc, spec.tcp) {
            (Some(path), None, false) => self.http(path),
            (None, Some(service), false) => self.grpc(service),
            (None, None, true) => {
                let (host, headers) = (spec.host.is_some(), !spec.headers.is_empty());
                self.idle(&[("host", host), ("headers", headers)], "tcp");
                self.idle_answer("tcp");
                Some(Ask::Tcp)
            }
            (None, None, false) => {
                let error = SpecError::new(FieldPath::root(), "this says nothing that could be checked");
                self.errors.push(error.help("write one of `path: /healthz`, `grpc: SERVICE` and `tcp: true`"));
                None
            }
            _ => {
                let error = SpecError::new(FieldPath::root(), "this is more than one check");
                self.errors.push(error.help("write one of `path`, `grpc` and `tcp`"));
                None
            }
        }
    }

    fn http(&mut self, path: &str) -> Option<Ask> {
        if self.upstream.speaks() == Some(Speaks::Bytes) && self.spec.port.is_none() {
            let help = "write `tcp: true`, or the `port` at which the service answers by HTTP";
            self.wrong("path", "no HTTP is spoken to `tcp://` endpoints", help);
        }
        let target = path.parse::<PathAndQuery>().ok().filter(|_| path.starts_with('/') && !path.contains('#'));
        if target.is_none() {
            self.wrong("path", format!("`{path}` is not a path"), "write it as `/healthz`");
        }
        if self.spec.body.as_ref().is_some_and(String::is_empty) {
            self.wrong("body", "an empty text is in every body", "leave it out");
        }
        let (host, headers) = (self.host(), self.headers());
        let status = if self.spec.status.is_empty() { vec![Statuses::USUAL] } else { self.spec.status.0.clone() };
        let body = self.spec.body.as_ref().map(|text| Bytes::from(text.clone()));
        Some(Ask::Http(Http { path: target?, host, headers: headers?, status, body }))
    }

    fn grpc(&mut self, service: &str) -> Option<Ask> {
        if self.upstream.protocol == ProtocolSpec::Http1 {
            self.wrong("grpc", "gRPC needs HTTP/2, and `protocol` is `http1`", "write `protocol: http2`");
        }
        if service.len() > 100 {
            self.wrong("grpc", "the name of the service is longer than 100 bytes", "write it as `users.v1.Users`");
        }
        self.idle_answer("grpc");
        let (host, headers) = (self.host(), self.headers());
        Some(Ask::Grpc { service: service.to_owned(), host, headers: with_grpc(headers?) })
    }

    /// Keys about the answer, which only HTTP has as such.
    fn idle_answer(&mut self, ask: &str) {
        let (status, body) = (!self.spec.status.is_empty(), self.spec.body.is_some());
        self.idle(&[("status", status), ("body", body)], ask);
    }

    fn idle(&mut self, keys: &[(&str, bool)], ask: &str) {
        for (key, _) in keys.iter().filter(|(_, written)| *written) {
            self.wrong(key, format!("it says nothing to a check by `{ask}`"), "leave it out, or write `path`");
        }
    }

    fn host(&mut self) -> Option<HeaderValue> {
        let Some(text) = &self.spec.host else {
            return match &self.upstream.host {
                HostSpec::Name(name) => Some(name.clone()),
                HostSpec::Keep | HostSpec::Endpoint => None,
            };
        };
        let authority = text.parse::<http::uri::Authority>().ok().filter(|_| !text.contains('@'));
        let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        if host.is_none() {
            self.wrong("host", format!("`{text}` is not a host name"), "write it as `users.internal`");
        }
        host
    }

    fn headers(&mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        let before = self.errors.len();
        for (name, value) in &self.spec.headers {
            let at = FieldPath::root().key("headers").key(name);
            match (HeaderName::try_from(name.as_str()), HeaderValue::from_str(value)) {
                (Ok(name), Ok(_)) if OURS.contains(&name) => {
                    let problem = format!("`{name}` is not for a document to set");
                    self.errors.push(SpecError::new(at, problem).help("leave it out; `host` has a key of its own"));
                }
                (Ok(name), Ok(value)) => _ = headers.insert(name, value),
                (Err(_), _) => self.errors.push(SpecError::new(at, format!("`{name}` is not the name of a field"))),
                (_, Err(_)) => self.errors.push(SpecError::new(at, "this value cannot stand in a header field")),
            }
        }
        (self.errors.len() == before).then_some(headers)
    }
}

/// Who asks.
const AGENT: &str = concat!("pylon/", env!("CARGO_PKG_VERSION"), " (health check)");
/// Fields that frame the question or belong to the connection.
const OURS: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::EXPECT,
    header::TE,
    header::TRAILER,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(upstream: &str) -> Vec<String> {
        let upstream: UpstreamSpec = serde_json::from_str(upstream).unwrap();
        let errors = compile(upstream.health.as_ref().unwrap(), &upstream).unwrap_err();
        errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect()
    }

    fn right(upstream: &str) -> (Probe, Schedule) {
        let upstream: UpstreamSpec = serde_json::from_str(upstream).unwrap();
        compile(upstream.health.as_ref().unwrap(), &upstream).unwrap()
    }

    #[test]
    fn a_path_is_enough() {
        let (probe, schedule) = right(r#"{"endpoints": ["http://a:1"], "health": "/healthz", "host": "users.test"}"#);
        let Ask::Http(http) = probe.ask else { panic!("{probe:?}") };
        assert_eq!((http.path.as_str(), http.host.unwrap().to_str().unwrap()), ("/healthz", "users.test"));
        assert_eq!(http.status, [Statuses::USUAL]);
        assert_eq!((schedule.every, schedule.timeout), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!(schedule.thresholds, Thresholds { rise: 2, fall: 3 });
        let spec: UpstreamSpec =
            serde_json::from_str(r#"{"health": {"path": "/", "status": ["2xx", 304, "400-404"], "rise": 1}}"#).unwrap();
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<UpstreamSpec>(&written).unwrap(), spec);
    }

    #[test]
    fn statuses_are_one_or_a_class_or_those_from_one_to_another() {
        let has = |text: &str, status| Statuses::parse(text).unwrap().has(status);
        assert!(has("204", 204) && !has("204", 200) && has("2xx", 299) && !has("2xx", 300));
        assert!(has("200-399", 200) && has("200-399", 399) && !has("200-399", 400));
        for bad in ["", "20", "199", "600", "300-200", "6xx", "x", "200-", "1xx"] {
            assert_eq!(Statuses::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        assert_eq!(wrong(r#"{"health": {}}"#), [": this says nothing that could be checked"]);
        assert_eq!(wrong(r#"{"health": {"path": "/", "tcp": true}}"#), [": this is more than one check"]);
        let health =
            r#"{"grpc": "", "rise": 0, "fall": 101, "status": 200, "body": "x", "headers": {"te": "x", "a b": "c"}}"#;
        assert_eq!(
            wrong(&format!(r#"{{"health": {health}, "protocol": "http1"}}"#)),
            [
                "rise: 0 is not from 1 to 100",
                "fall: 101 is not from 1 to 100",
                "grpc: gRPC needs HTTP/2, and `protocol` is `http1`",
                "status: it says nothing to a check by `grpc`",
                "body: it says nothing to a check by `grpc`",
                "headers.a b: `a b` is not the name of a field",
                "headers.te: `te` is not for a document to set",
            ]
        );
        assert_eq!(
            wrong(r#"{"endpoints": ["tcp://a:1"], "health": "/"}"#),
            ["path: no HTTP is spoken to `tcp://` endpoints"]
        );
        right(r#"{"endpoints": ["tcp://a:1"], "health": {"path": "/", "port": 8008}}"#);
        right(r#"{"endpoints": ["tcp://a:1"], "health": {"tcp": true}}"#);
        assert_eq!(
            wrong(r#"{"endpoints": ["unix:/run/a"], "health": {"path": "a b", "port": 1, "host": "@", "body": ""}}"#),
            [
                "port: a Unix socket has no port",
                "path: `a b` is not a path",
                "body: an empty text is in every body",
                "host: `@` is not a host name"
            ]
        );
        assert!(serde_json::from_str::<UpstreamSpec>(r#"{"health": "healthz"}"#).is_err());
    }
}
