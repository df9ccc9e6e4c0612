//! A breaker as it is written on an upstream or on a route.

use std::borrow::Cow;
use std::fmt;

use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use pylon_observe::breakers::BreakerScope;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::word::{self, Word};

/// Holds requests back from what fails. Short: `true`, `off`, or a share of failed calls such as `30%`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSpec {
    /// Whether there is one. `off` on a route takes away what `per: route` of its upstream says. Default `true`. Example: `false`.
    #[serde(skip_serializing_if = "is_true")]
    pub on: bool,
    /// The share of failed calls within `window` at which it opens. A share; default `50%`. Example: `30%`.
    pub errors: Percent,
    /// How long a call may take to the head of its answer before it is slow. A span of time; default: no call is slow.
    /// Example: `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Span>,
    /// The share of slow calls within `window` at which it opens. A share; default `50%` where `slow` is written. Example: `80%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_ratio: Option<Percent>,
    /// How many failed calls in a row open it, however few there are. A number from 1; default: no such rule. Example: `5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive: Option<u32>,
    /// Of how many calls within `window` a share has to be to count. A number from 1; default 20. Example: `50`.
    pub min_requests: u32,
    /// How far back it looks. A span of time from `100ms` to `1h`; default `10s`. Example: `30s`.
    pub window: Span,
    /// How long it is open before it lets a probe through, give or take a tenth; doubled each time that a probe fails. A span of
    /// time from `10ms` to `1d`; default `5s`. Example: `500ms`.
    pub open: Span,
    /// The longest that it is open without a probe. A span of time, at least `open`; default `1m`, or `open` where that is longer.
    /// Example: `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_max: Option<Span>,
    /// How many calls are let through at most, at once and in all, to find out whether it can be closed; all have to go well. A
    /// number from 1 to 100; default 1. Example: `3`.
    pub probes: u32,
    /// For what there is a breaker, one or a list: `endpoint` (one for each), `upstream` (one for all of them together), `route`
    /// (one for each route). A breaker written on a route is for that route's calls alone. Default: `endpoint`, on a route `route`.
    /// Example: `[endpoint, route]`.
    #[serde(skip_serializing_if = "is_empty")]
    pub per: OneOrMany<Scope>,
    /// Which statuses of answers are failures, one or a list: a class or a status. Calls of gRPC are judged by their own status.
    /// Default `5xx`. Example: `[5xx, 429]`.
    pub statuses: OneOrMany<StatusSpec>,
}

impl Default for BreakerSpec {
    fn default() -> Self {
        Self {
            on: true,
            errors: HALF,
            slow: None,
            slow_ratio: None,
            consecutive: None,
            min_requests: 20,
            window: Span::from_secs(10),
            open: Span::from_secs(5),
            open_max: None,
            probes: 1,
            per: OneOrMany::default(),
            statuses: OneOrMany(vec![StatusSpec::Class(5)]),
        }
    }
}

pub(super) const HALF: Percent = Percent::from_basis_points(5_000);

impl FromScalar for BreakerSpec {
    const EXPECTING: &'static str = "`true`, `off` or a share of failed calls such as `50%`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::default()),
            "off" | "false" => Ok(Self { on: false, ..Self::default() }),
            share => Ok(Self { errors: Percent::parse(share)?, ..Self::default() }),
        }
    }
}

/// A [`BreakerSpec`] as it stands in a document.
pub type ShortBreaker = Short<BreakerSpec>;

/// For what there is a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Each endpoint.
    Endpoint,
    /// All endpoints together.
    Upstream,
    /// The calls of one route.
    Route,
}

impl Scope {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Upstream => "upstream",
            Self::Route => "route",
        }
    }

    pub(super) fn counted(self) -> BreakerScope {
        match self {
            Self::Endpoint => BreakerScope::Endpoint,
            Self::Upstream => BreakerScope::Upstream,
            Self::Route => BreakerScope::Route,
        }
    }
}

/// A status, or all that begin with the same digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusSpec {
    /// 4 or 5: all of 4xx or 5xx.
    Class(u16),
    /// This one.
    Status(u16),
}

impl StatusSpec {
    pub(super) fn has(self, status: u16) -> bool {
        match self {
            Self::Class(class) => status / 100 == class,
            Self::Status(one) => status == one,
        }
    }
}

impl Word for StatusSpec {
    const EXPECTING: &'static str = "`4xx`, `5xx` or a status from 400 to 599";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "4xx" => Some(Self::Class(4)),
            "5xx" => Some(Self::Class(5)),
            text => text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status),
        }
    }
}

impl fmt::Display for StatusSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

impl Serialize for StatusSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            class @ Self::Class(_) => serializer.collect_str(class),
        }
    }
}

impl<'de> Deserialize<'de> for StatusSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word::read(deserializer)
    }
}

impl JsonSchema for StatusSpec {
    fn schema_name() -> Cow<'static, str> {
        "StatusSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "enum": ["4xx", "5xx"] }, { "type": "integer", "minimum": 400, "maximum": 599 }] })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(on: &bool) -> bool {
    *on
}

fn is_empty(list: &OneOrMany<Scope>) -> bool {
    list.0.is_empty()
}

impl BreakerSpec {
    /// What is wrong with it; `on_route` says where it is written.
    pub fn check(&self, on_route: bool) -> Vec<SpecError> {
        let mut errors = Vec::new();
        let mut wrong = |key: &str, problem: String, help: &str| {
            errors.push(SpecError::new(FieldPath::root().key(key), problem).help(help));
        };
        for (key, share) in [("errors", Some(self.errors)), ("slow_ratio", self.slow_ratio)] {
            if share.is_some_and(|share| share.basis_points() == 0) {
                wrong(key, "at 0% the breaker would always be open".to_owned(), "write a share above `0%`");
            }
        }
        if self.slow_ratio.is_some() && self.slow.is_none() {
            wrong("slow_ratio", "`slow_ratio` means nothing without `slow`".to_owned(), "say what is slow: `slow: 2s`");
        }
        for (key, number, most) in [
            ("consecutive", self.consecutive.unwrap_or(1), u32::MAX),
            ("min_requests", self.min_requests, u32::MAX),
            ("probes", self.probes, 100),
        ] {
            if number == 0 {
                wrong(key, format!("`{key}` is 0"), "write at least 1");
            } else if number > most {
                wrong(key, format!("`{key}` is more than {most}"), "a few are enough to find out");
            }
        }
        for (key, span, least, most) in [
            ("window", self.window, Span::from_millis(100), Span::from_secs(3600)),
            ("open", self.open, Span::from_millis(10), Span::from_secs(86_400)),
        ] {
            if span < least || span > most {
                wrong(key, format!("`{key}` is {span}"), &format!("write a span from `{least}` to `{most}`"));
            }
        }
        if self.open_max.is_some_and(|max| max < self.open) {
            wrong("open_max", "`open_max` is shorter than `open`".to_owned(), "write at least as much");
        }
        if self.statuses.0.is_empty() {
            wrong("statuses", "no status is a failure".to_owned(), "leave `statuses` out for `5xx`");
        }
        if on_route && self.per.iter().any(|scope| *scope != Scope::Route) {
            let problem = "a breaker on a route is for that route's calls alone".to_owned();
            wrong("per", problem, "leave `per` out here, and write a `breaker` on the upstream for the others");
        }
        errors
    }

    /// For what there is one.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.on && if self.per.is_empty() { scope == Scope::Endpoint } else { self.per.contains(&scope) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> BreakerSpec {
        serde_json::from_str::<ShortBreaker>(text).unwrap().0
    }

    #[test]
    fn a_breaker_is_a_word_a_share_or_a_map() {
        assert_eq!(read("true"), BreakerSpec::default());
        assert_eq!(read(r#""30%""#).errors, Percent::from_basis_points(3_000));
        assert!(!read(r#""off""#).on && !read("false").on);
        let spec = read(r#"{"errors": "50%", "slow": "2s", "per": "endpoint"}"#);
        assert_eq!((spec.slow, spec.per.0.as_slice()), (Some(Span::from_secs(2)), &[Scope::Endpoint][..]));
        let several = read(r#"{"per": ["endpoint", "route"], "statuses": ["5xx", 429]}"#);
        assert!(several.has(Scope::Endpoint) && several.has(Scope::Route) && !several.has(Scope::Upstream));
        assert_eq!(several.statuses.0, [StatusSpec::Class(5), StatusSpec::Status(429)]);
        for spec in [several, spec, read(r#"{"consecutive": 3, "open_max": "5m"}"#), read("false")] {
            assert_eq!(read(&serde_json::to_string(&spec).unwrap()), spec);
        }
        for bad in [r#""half""#, r#"{"erors": "5%"}"#, r#"{"per": "listener"}"#, r#"{"statuses": 302}"#] {
            assert!(serde_json::from_str::<ShortBreaker>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_said_all_at_once() {
        let spec = read(
            r#"{"errors": "0%", "slow_ratio": "50%", "consecutive": 0, "min_requests": 0, "window": "1ms", "open": "2d",
                "open_max": "1d", "probes": 101, "per": "upstream", "statuses": []}"#,
        );
        let at: Vec<String> = spec.check(true).into_iter().map(|error| error.at.to_string()).collect();
        let keys = "errors slow_ratio consecutive min_requests probes window open open_max statuses per";
        assert_eq!(at.join(" "), keys);
        assert!(spec.check(false).len() == 9 && BreakerSpec::default().check(true).is_empty());
    }
}
