//! A fallback as it is written: when something stands in for the answer of the action, and what.

use std::borrow::Cow;
use std::fmt;

use pylon_core::short::{FromScalar, OneOrMany, Several, Short};
use pylon_core::units::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::action::respond::RespondSpec;

/// Rules in the order in which they are looked at, or the only one.
pub type FallbackSpec = Several<Short<FallbackRuleSpec>>;

/// When something stands in for an answer, and what: exactly one of `respond` and `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackRuleSpec {
    /// What has to happen, one or a list: `open` (there is nobody to ask), `overloaded` (there was no turn under `concurrency` of the
    /// upstream), `failed` (no answer came), `timeout` (a timer fired), `late` (see `after`); a status or class of what the client would
    /// be told, such as `503` or `5xx`. Default `[open, overloaded, failed, timeout]`, and `late` where `after` is written. Example: `[5xx, late]`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub on: OneOrMany<When>,
    /// How long the head of the answer is waited for, from the request's arrival; then the request is given up and this
    /// rule is taken. A span of time; default: as long as `timeout` says. Example: `300ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Span>,
    /// A fixed answer, as in the action of this name. Default: none. Example: `{ json: { items: [] } }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Short<RespondSpec>>,
    /// The name of another upstream that the request is sent to. Default: none. Example: `orders-backup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Up to how many bytes of a request's body are held so that they can be sent to `forward` too. A size; default
    /// `64KiB`, at most `16MiB`. Example: `1MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<ByteSize>,
}

fn is_empty(list: &OneOrMany<When>) -> bool {
    list.0.is_empty()
}

impl FromScalar for FallbackRuleSpec {
    const EXPECTING: &'static str = "a map with `respond` or `forward`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Err(match text {
            "stale" => "`stale` is not built yet: it comes with the cache".to_owned(),
            text => format!("`{text}` is no fallback: write `{{ respond: 503 }}` or `{{ forward: NAME }}`"),
        })
    }
}

/// What has to happen to the action's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// There is nobody to ask: the breaker is open, or there is no endpoint.
    Open,
    /// As much is under way as may be, and there was no turn.
    Overloaded,
    /// No answer came, for another reason than a timer.
    Failed,
    /// A timer fired.
    Timeout,
    /// `after` was over.
    Late,
    /// The client would be told a status of this class, 4 or 5.
    Class(u16),
    /// The client would be told this status.
    Status(u16),
}

const WORDS: [(&str, When); 7] = [
    ("open", When::Open),
    ("overloaded", When::Overloaded),
    ("failed", When::Failed),
    ("timeout", When::Timeout),
    ("late", When::Late),
    ("4xx", When::Class(4)),
    ("5xx", When::Class(5)),
];

impl When {
    fn parse(text: &str) -> Option<Self> {
        if let Some((_, when)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Some(*when);
        }
        text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(_, when)| when == self)) {
            (_, Some((word, _))) => f.write_str(word),
            (Self::Status(status) | Self::Class(status), None) => write!(f, "{status}"),
            _ => Ok(()),
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl Visitor<'_> for Word {
            type Value = When;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`open`, `overloaded`, `failed`, `timeout`, `late`, `4xx`, `5xx` or a status from 400 to 599",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<When, E> {
                When::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<When, E> {
                When::parse(&status.to_string())
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(status), &self))
            }
        }
        deserializer.deserialize_any(Word)
    }
}

impl JsonSchema for When {
    fn schema_name() -> Cow<'static, str> {
        "When".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words = WORDS.map(|(word, _)| word);
        json_schema!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 400, "maximum": 599 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_is_one_rule_or_several() {
        let one: FallbackSpec = serde_json::from_str(r#"{ "forward": "backup" }"#).unwrap();
        assert_eq!((one.0.len(), one.0[0].forward.as_deref()), (1, Some("backup")));
        let text = r#"[{"on":["5xx",429,"late"],"after":"300ms","respond":{"status":200,"json":[]}},{"forward":"b"}]"#;
        let several: FallbackSpec = serde_json::from_str(text).unwrap();
        assert_eq!(several.0[0].on.0, [When::Class(5), When::Status(429), When::Late]);
        let written = serde_json::to_string(&several).unwrap();
        assert_eq!(serde_json::from_str::<FallbackSpec>(&written).unwrap(), several);
    }

    #[test]
    fn what_is_not_built_or_unknown_is_said() {
        for (text, problem) in [
            (r#""stale""#, "`stale` is not built yet: it comes with the cache"),
            (r#"["stale"]"#, "`stale` is not built yet: it comes with the cache"),
            (r#""backup""#, "`backup` is no fallback: write `{ respond: 503 }` or `{ forward: NAME }`"),
            (r#"{ "on": "200", "respond": 503 }"#, "a status from 400 to 599"),
            (r#"{ "on": 302, "respond": 503 }"#, "a status from 400 to 599"),
            (r#"{ "respnd": 503 }"#, "unknown field"),
        ] {
            let error = serde_json::from_str::<FallbackSpec>(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
