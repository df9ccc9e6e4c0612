//! What a person writes about listeners and about what clients may send: the keys `listeners` and `limits`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

use pylon_core::networks::{PeerSet, PeerSpec};
use pylon_core::short::{FromList, FromScalar, Listed, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{ByteRate, ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::accept::{Greeting, Speaks};
use crate::limits::Limits;
use crate::listen::Address;
use crate::pace::Pace;
use crate::tls::spec::TlsSpec;

/// An address that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSpec {
    /// Address and port, where port 0 takes a free one, or `unix:` and the path of a Unix socket. Required.
    /// Example: `0.0.0.0:8080`, `unix:/run/pylon/http.sock`.
    pub address: Address,
    /// Who may connect to a Unix socket: the permissions of its file, in octal. Default `660`, owner and group.
    /// Example: `666`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub mode: Option<Mode>,
    /// Balancers before this listener that tell the client's address by the PROXY protocol, version 1 or 2: their networks,
    /// one or a list, or a map. They must begin each connection with a header; a header from anybody else is none.
    /// Default: nobody. Example: `[10.0.0.0/8]`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub proxy_protocol: Option<Listed<ProxyProtocolSpec>>,
    /// TLS: certificates and what clients must show. Default: cleartext.
    /// Example: `{ certificates: [{ cert: certs/api.pem, key: certs/api.key }] }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub tls: Option<TlsSpec>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1: under TLS where the client chooses it, in cleartext where the client begins
    /// with it. Default `true`. Example: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub http2: Option<bool>,
    /// Carries bytes instead of HTTP: to the upstream of this name, or by the name that clients ask for in TLS (SNI).
    /// Default: HTTP. Example: `database`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub tcp: Option<Short<TcpSpec>>,
}

/// Where connections go whose bytes are not looked at. Short: `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpSpec {
    /// The upstream of all connections, or of those whose name is not in `sni`. Its endpoints are written `tcp://host:port`.
    /// Default: those whose name is not in `sni` are closed. Example: `database`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub forward: Option<String>,
    /// Upstreams by the name that the client asks for in TLS, which is not ended here unless the listener has `tls`; `*.` at
    /// the beginning stands for one label or more. Default: names are not looked at.
    /// Example: `{ api.example.com: api, "*.shop.example": shop }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sni: BTreeMap<String, String>,
    /// How long nothing may move in either direction; then the connection is closed. Default `1h`. Example: `10m`.
    #[serde(default = "one_hour")]
    pub idle: Span,
}

fn one_hour() -> Span {
    Span::from_secs(3600)
}

impl FromScalar for TcpSpec {
    const EXPECTING: &'static str = "the name of an upstream";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { forward: Some(text.to_owned()), sni: BTreeMap::new(), idle: one_hour() })
    }
}

/// A key may be left out but not left empty: `tls:` with nothing behind it would be cleartext.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}

/// Balancers that tell the client's address by the PROXY protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolSpec {
    /// Their networks, one or a list; `unix` stands for all that come by a Unix socket. Required. Example: `[10.0.0.0/8]`.
    pub from: OneOrMany<PeerSpec>,
}

impl FromList for ProxyProtocolSpec {
    type Item = PeerSpec;

    fn from_list(from: OneOrMany<PeerSpec>) -> Self {
        Self { from }
    }
}

/// Permissions of a file, in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:o}", self.0))
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
        mode.map(Self).ok_or_else(|| de::Error::custom(format!("`{text}` are no permissions: write them as `660`")))
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "Permissions of a file, in octal" })
    }
}

/// What tells listeners apart: where they listen, with a number where a free port is taken more than once.
pub fn ids(listeners: &[ListenerSpec]) -> Vec<Arc<str>> {
    let id = |(index, spec): (usize, &ListenerSpec)| {
        let before = listeners.iter().take(index).filter(|other| other.address == spec.address).count();
        if before == 0 { spec.address.to_string().into() } else { format!("{} ({before})", spec.address).into() }
    };
    listeners.iter().enumerate().map(id).collect()
}

impl ListenerSpec {
    /// What connections are to carry, on a listener with this id.
    pub fn speaks(&self, id: &Arc<str>) -> Result<Speaks, Vec<SpecError>> {
        let Some(tcp) = &self.tcp else { return Ok(Speaks::Http { http2: self.http2.unwrap_or(true) }) };
        let mut errors = Vec::new();
        if self.http2.is_some() {
            let error = SpecError::new(FieldPath::root().key("http2"), "no HTTP is spoken where `tcp` is written");
            errors.push(error.help("leave `http2` out"));
        }
        if tcp.forward.is_none() && tcp.sni.is_empty() {
            let error = SpecError::new(FieldPath::root().key("tcp"), "this leads nowhere");
            errors.push(error.help("write `tcp: database`, or `tcp: { sni: { api.example.com: api } }`"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Speaks::Bytes { listener: Arc::clone(id), by_name: !tcp.sni.is_empty() })
    }

    /// What happens to a connection before TLS and HTTP.
    pub fn greeting(&self) -> Result<Greeting, Vec<SpecError>> {
        let mut errors = Vec::new();
        let unix = matches!(self.address, Address::Unix(_));
        if self.mode.is_some() && !unix {
            let error = SpecError::new(FieldPath::root().key("mode"), "only a Unix socket has permissions");
            errors.push(error.help("leave it out, or write `address: unix:/run/pylon.sock`"));
        }
        let from = self.proxy_protocol.as_ref().map(|spec| &*spec.0.from);
        let wrong = match from {
            Some([]) => Some("no balancer is named, so nobody may tell the client's address"),
            Some(peers) if unix && !peers.contains(&PeerSpec::Unix) => {
                Some("nobody who comes by a Unix socket has an address in these networks")
            }
            Some(peers) if !unix && peers.contains(&PeerSpec::Unix) => {
                Some("nobody comes to this address by a Unix socket")
            }
            _ => None,
        };
        if let Some(problem) = wrong {
            let remedy = if unix { "write `proxy_protocol: unix`" } else { "write `proxy_protocol: [10.0.0.0/8]`" };
            errors.push(SpecError::new(FieldPath::root().key("proxy_protocol"), problem).help(remedy));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Greeting { headers_from: Arc::new(PeerSet::new(from.unwrap_or_default())) })
    }
}

/// Name servers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DnsSpec {
    /// Address and port of each server; `/etc/hosts` counts before them. Default: those of `/etc/resolv.conf`.
    /// Example: `[10.0.0.2:53]`.
    #[schemars(with = "Vec<String>")]
    pub servers: Vec<SocketAddr>,
}

/// What clients and upstreams may send, and how slowly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// The longest head of a request, from 1KiB to 1MiB; over it the answer is 431. Default `64KiB`.
    /// Example: `32KiB`.
    pub request_headers: ByteSize,
    /// The longest head of an upstream's answer, from 1KiB to 1MiB; over it the answer is 502, and the log names this
    /// setting. Default `64KiB`. Example: `128KiB`.
    pub response_headers: ByteSize,
    /// From the acceptance of a connection to the end of its PROXY header and TLS handshake, or of the
    /// message with the name where `tcp` goes by `sni`; then it is closed. Default `10s`. Example: `5s`.
    pub handshake_timeout: Span,
    /// From the first byte of a head to its last; then the answer is 408. Default `10s`. Example: `5s`.
    pub header_timeout: Span,
    /// Between two pieces of a request's body; then the answer is 408. Time in which the gateway itself has no use for more
    /// does not count. Default `30s`. Example: `10s`.
    pub body_timeout: Span,
    /// How fast a request's body comes at the least, on the whole: a client that is slower has `body_timeout` in all to spend
    /// on waiting; then the answer is 408. `0B/s` is any pace. Does not hold for gRPC. Default `240B/s`. Example: `1KiB/s`.
    pub body_rate: ByteRate,
    /// For how long a client may take nothing of its answer; then its connection, or its stream of HTTP/2, is closed.
    /// Default `60s`. Example: `20s`.
    pub write_timeout: Span,
    /// How long a client's connection may be idle between two requests. Default `75s`. Example: `30s`.
    pub idle_timeout: Span,
    /// How many connections of clients there may be, in the whole process. Over it an idle one is closed for the new one, or
    /// one that is slow with its head; while all are busy, new ones are turned away. Default: half of the files that the
    /// process may open (`ulimit -n`, raised to the hard limit). Example: `20000`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroUsize>,
    /// How many of them may come from one address; an IPv6 address counts with its /64, and `trusted_proxies` do not count.
    /// More are turned away. Default: as many as there may be at all. Example: `200`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_address: Option<NonZeroUsize>,
    /// How much memory the process may have before new work is turned away: connections are closed at once, idle ones too,
    /// and requests are answered with 503, until it is a tenth below. Default: nine tenths of the limit of its control group
    /// (a container's), if it has one. Example: `2GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            request_headers: ByteSize::new(64 << 10),
            response_headers: ByteSize::new(64 << 10),
            handshake_timeout: Span::from_secs(10),
            header_timeout: Span::from_secs(10),
            body_timeout: Span::from_secs(30),
            body_rate: ByteRate::new(240),
            write_timeout: Span::from_secs(60),
            idle_timeout: Span::from_secs(75),
            connections: None,
            connections_per_address: None,
            memory: None,
        }
    }
}

impl LimitsSpec {
    /// The limits of a listener's codec.
    pub fn compile(&self) -> Result<Limits, Vec<SpecError>> {
        let sizes = [("request_headers", self.request_headers), ("response_headers", self.response_headers)];
        let errors: Vec<_> = (sizes.into_iter())
            .filter(|(_, size)| !(1 << 10..=1 << 20).contains(&size.bytes()))
            .map(|(key, size)| SpecError::new(FieldPath::root().key(key), format!("{size} is not from 1KiB to 1MiB")))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Limits {
            head: self.request_headers.as_usize(),
            handshake: self.handshake_timeout.duration(),
            head_time: self.header_timeout.duration(),
            idle: self.idle_timeout.duration(),
            body: Pace { pause: self.body_timeout.duration(), rate: NonZeroU64::new(self.body_rate.bytes()) },
            write_time: self.write_timeout.duration(),
        })
    }
}
