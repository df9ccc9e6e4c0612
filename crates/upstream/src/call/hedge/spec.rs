//! Hedging as it is written: how long a request is late before it is sent once more, and how many may be.

use std::borrow::Cow;
use std::fmt;

use pylon_core::short::{FromScalar, Short};
use pylon_core::units::{Percent, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A second attempt at another endpoint beside a first that is late; the first good answer is taken. Idempotent requests
/// without a streaming body alone. Short: `after` alone, or `off`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HedgeSpec {
    /// When the second attempt is made: after a span of time, or after the time within which the endpoint gave so many of
    /// its latest answers, from `p50` to `p99`. Default `p95`. Example: `50ms`.
    pub after: After,
    /// How many of the requests may be sent twice; the `retry_budget` of the upstream bounds them too. A share; default
    /// `5%`, and `0%` is `off`. Example: `2%`.
    pub at_most: Percent,
}

/// A [`HedgeSpec`] as it stands in a document.
pub type ShortHedge = Short<HedgeSpec>;

impl Default for HedgeSpec {
    fn default() -> Self {
        Self { after: After::Quantile(95), at_most: Percent::from_basis_points(500) }
    }
}

impl FromScalar for HedgeSpec {
    const EXPECTING: &'static str = "`p95`, a span of time such as `50ms`, or `off`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "off" | "false" => Ok(Self { at_most: Percent::from_basis_points(0), ..Self::default() }),
            text => Ok(Self { after: After::parse(text)?, ..Self::default() }),
        }
    }
}

/// After how long a request is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// After the time within which so many percent of the endpoint's answers came.
    Quantile(u8),
    /// After this time.
    Fixed(Span),
}

impl After {
    fn parse(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_prefix('p') else {
            return Span::parse(text).map(Self::Fixed).map_err(|_| {
                format!("`{text}` is neither a quantile such as `p95` nor a span of time such as `50ms`")
            });
        };
        let percent = percent.parse().ok().filter(|percent| (50..=99).contains(percent));
        percent.map(Self::Quantile).ok_or_else(|| format!("`{text}` is no quantile from `p50` to `p99`"))
    }
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantile(percent) => write!(f, "p{percent}"),
            Self::Fixed(span) => span.fmt(f),
        }
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for After {
    fn schema_name() -> Cow<'static, str> {
        "HedgeAfter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`p50` to `p99`, or a span of time such as `50ms`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hedge_is_a_quantile_a_span_or_a_map() {
        let read = |text: &str| serde_json::from_str::<ShortHedge>(text).map(|short| short.0);
        assert_eq!(read(r#""p95""#).unwrap(), HedgeSpec::default());
        assert_eq!(read(r#""50ms""#).unwrap().after, After::Fixed(Span::from_millis(50)));
        assert_eq!(read(r#""off""#).unwrap().at_most.basis_points(), 0);
        let spec = read(r#"{"after": "p99", "at_most": "2%"}"#).unwrap();
        assert_eq!((spec.after, spec.at_most.basis_points()), (After::Quantile(99), 200));
        assert_eq!(read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
        for (text, problem) in [
            (r#""p100""#, "`p100` is no quantile from `p50` to `p99`"),
            (r#""soon""#, "`soon` is neither a quantile such as `p95` nor a span of time such as `50ms`"),
            (r#"{"before": "p95"}"#, "unknown field"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(problem), "{text}");
        }
    }
}
