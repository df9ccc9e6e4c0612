//! What a person writes about listeners and about what clients may send: the keys `listeners` and `limits`.

use std::net::SocketAddr;

use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{ByteSize, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::handler::Limits;
use crate::tls::spec::TlsSpec;

/// An address that accepts connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSpec {
    /// Address and port. Port 0 takes a free one. Required. Example: `0.0.0.0:8080`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// TLS: certificates and what clients must show. Default: cleartext.
    /// Example: `{ certificates: [{ cert: certs/api.pem, key: certs/api.key }] }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub tls: Option<TlsSpec>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1: under TLS where the client chooses it, in cleartext where the client begins
    /// with it. Default `true`. Example: `false`.
    #[serde(default = "yes")]
    pub http2: bool,
}

fn yes() -> bool {
    true
}

/// The key may be left out but not left empty: `tls:` with nothing behind it would be cleartext.
fn written<'de, D: Deserializer<'de>>(source: D) -> Result<Option<TlsSpec>, D::Error> {
    TlsSpec::deserialize(source).map(Some)
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverySpec {
    /// Name servers. Default: those of the system. Example: `{ servers: [10.0.0.2:53] }`.
    pub dns: DnsSpec,
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
    /// From the acceptance of a connection to the end of its TLS handshake; then it is closed. Default `10s`. Example: `5s`.
    pub handshake_timeout: Span,
    /// From the first byte of a head to its last; then the answer is 408. Default `10s`. Example: `5s`.
    pub header_timeout: Span,
    /// Between two pieces of a request's body; then the answer is 408. A slow upload that goes on is no idle one.
    /// Default `30s`. Example: `10s`.
    pub body_timeout: Span,
    /// How long a client's connection may be idle between two requests. Default `75s`. Example: `30s`.
    pub idle_timeout: Span,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            request_headers: ByteSize::new(64 << 10),
            response_headers: ByteSize::new(64 << 10),
            handshake_timeout: Span::from_secs(10),
            header_timeout: Span::from_secs(10),
            body_timeout: Span::from_secs(30),
            idle_timeout: Span::from_secs(75),
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
            body_idle: self.body_timeout.duration(),
        })
    }
}
