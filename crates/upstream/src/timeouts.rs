//! How long each step of a call may take: as written on an upstream or a route, and as used.

use std::time::Duration;

use pylon_core::short::{FromScalar, Short};
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}
