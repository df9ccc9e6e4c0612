//! How long each step of a call may take: as written on an upstream or a route, and as used.

use std::borrow::Cow;
use std::time::Duration;

use http::HeaderName;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use pylon_core::short::{FromScalar, Short};
use pylon_core::units::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bounds on the steps of a call. A scalar such as `10s` is `response`.
///
/// What stands on a route wins over what stands on its upstream, key by key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutSpec {
    /// Making one connection. A span of time; default `3s`. Example: `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Span>,
    /// From the request being sent to the head of the answer, in each attempt. A span of time; no bound by default. Example: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Span>,
    /// From the request's arrival to the head of the answer, attempts included. While an upload makes progress it does not
    /// run. A span of time; default `30s`. Example: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Span>,
    /// Between two pieces of the answer's body, or until the upstream takes another piece of the request's. A client that pauses
    /// in its upload is bounded by `limits.body_timeout`. A span of time; default `60s`. Example: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
    /// From the request's arrival to the last byte of the answer. A span of time; no bound by default. Example: `2m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Span>,
    /// The field in which a client says how long it will wait, in whole milliseconds; it then bounds the exchange as `total`
    /// does, whichever is shorter, and the service is told by the same field what is left. Name one that only those write
    /// whom you trust to know, or let `trusted_proxies` set it. A field name; none by default. Example: `x-timeout-ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<FieldName>,
}

/// The name of a field of a request that neither frames nor addresses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName(HeaderName);

impl FieldName {
    fn parse(text: &str) -> Result<Self, String> {
        let name =
            HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("`{text}` is not the name of a field"))?;
        if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER, EXPECT].contains(&name) {
            return Err(format!("`{name}` frames or addresses a message: write another field, such as `x-timeout-ms`"));
        }
        Ok(Self(name))
    }
}

impl Serialize for FieldName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for FieldName {
    fn schema_name() -> Cow<'static, str> {
        "FieldName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "the name of a field", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
    }
}

impl FromScalar for TimeoutSpec {
    const EXPECTING: &'static str = "a span of time such as `10s`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { response: Some(Span::parse(text)?), ..Self::default() })
    }
}

/// The timeouts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Making one connection.
    pub connect: Duration,
    /// From the request being sent to the head of the answer, in each attempt.
    pub first_byte: Option<Duration>,
    /// From the request's arrival to the head of the answer.
    pub response: Duration,
    /// Between two pieces of a body.
    pub idle: Duration,
    /// From the request's arrival to the last byte of the answer.
    pub total: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: None,
            response: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            total: None,
        }
    }
}

impl Timeouts {
    /// What holds for a route: its own, else the upstream's, else the default, key by key.
    pub fn resolve(route: Option<&TimeoutSpec>, upstream: Option<&TimeoutSpec>) -> Self {
        let pick = |key: fn(&TimeoutSpec) -> Option<Span>| {
            route.and_then(key).or_else(|| upstream.and_then(key)).map(Span::duration)
        };
        let default = Self::default();
        Self {
            connect: pick(|spec| spec.connect).unwrap_or(default.connect),
            first_byte: pick(|spec| spec.first_byte),
            response: pick(|spec| spec.response).unwrap_or(default.response),
            idle: pick(|spec| spec.idle).unwrap_or(default.idle),
            total: pick(|spec| spec.total),
        }
    }
}

/// The field in which clients say how long they wait: the route's, else the upstream's.
pub(crate) fn deadline_field(route: Option<&TimeoutSpec>, upstream: Option<&TimeoutSpec>) -> Option<HeaderName> {
    let written = |spec: &TimeoutSpec| spec.header.as_ref().map(|field| field.0.clone());
    route.and_then(written).or_else(|| upstream.and_then(written))
}

/// A [`TimeoutSpec`] as it stands in a document.
pub type ShortTimeout = Short<TimeoutSpec>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_wins_over_the_upstream_key_by_key() {
        let route: ShortTimeout = serde_json::from_str(r#""10s""#).unwrap();
        let upstream: ShortTimeout =
            serde_json::from_str(r#"{"connect": "500ms", "response": "20s", "total": "1m"}"#).unwrap();
        let both = Timeouts::resolve(Some(&route), Some(&upstream));
        assert_eq!(both.response, Duration::from_secs(10));
        assert_eq!(both.connect, Duration::from_millis(500));
        assert_eq!(both.total, Some(Duration::from_secs(60)));
        assert_eq!(Timeouts::resolve(None, None), Timeouts::default());
    }

    #[test]
    fn an_unknown_timer_is_an_error() {
        assert!(serde_json::from_str::<ShortTimeout>(r#"{"read": "1s"}"#).is_err());
    }

    #[test]
    fn a_deadline_stands_in_a_field_that_frames_nothing() {
        let read = |name: &str| serde_json::from_value::<ShortTimeout>(serde_json::json!({ "header": name }));
        let spec = read("X-Timeout-Ms").unwrap();
        assert_eq!(deadline_field(None, Some(&spec)).unwrap(), "x-timeout-ms");
        assert_eq!(serde_json::to_value(&spec).unwrap(), serde_json::json!({ "header": "x-timeout-ms" }));
        for bad in ["content-length", "Host", "a b", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
