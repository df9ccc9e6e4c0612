//! Retries as they are written: after what, how often, how soon, and which requests.

use std::borrow::Cow;
use std::fmt;

use pylon_core::short::{FromScalar, OneOrMany, Short};
use pylon_core::units::{ByteSize, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::word::{self, Word};

/// When a request is sent once more, and how often. Short: `attempts` alone, or `off`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// How many attempts may follow the first. A number from 0 (`off`) to 5; default 2. Example: `3`.
    pub attempts: u8,
    /// After what, one or a list: `connect` (no connection), `refused` (the service says that it has not looked at the
    /// request), `reset` (the connection ended before the answer), `timeout` (`per_try` or `timeout.first_byte` was over),
    /// `protocol` (the answer was no valid HTTP); a status or class of the answer, such as `503` or `5xx`; a code of gRPC, such as `unavailable`. Default
    /// `[connect, refused, reset, timeout, 502, 503, 504, unavailable]`. Example: `[connect, 5xx]`.
    pub on: OneOrMany<On>,
    /// How long is waited before each of them. Default `{ base: 25ms, max: 250ms }`. Example: `{ base: 100ms, max: 2s }`.
    pub backoff: BackoffSpec,
    /// How long each attempt may take, the first too: from its start to the head of its answer. A span of time; no bound
    /// by default. Example: `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Span>,
    /// The longest wait that a service may ask for by `Retry-After`; one that asks for more has its answer passed on. A
    /// span of time; default `1s`. Example: `5s`.
    pub max_wait: Span,
    /// Which requests the service may get twice: `idempotent` (GET, HEAD, OPTIONS, TRACE, PUT, DELETE) or `any`, which calls
    /// of gRPC need. Others are sent again only where it has certainly not seen them. Default `idempotent`. Example: `any`.
    pub methods: MethodsSpec,
    /// Up to how many bytes of a request's body are held so that they can be sent again. A size; default `64KiB`, at most
    /// `16MiB`. Example: `1MiB`.
    pub max_body: ByteSize,
}

/// A [`RetrySpec`] as it stands in a document.
pub type ShortRetry = Short<RetrySpec>;

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: OneOrMany(DEFAULT_ON.to_vec()),
            backoff: BackoffSpec::default(),
            per_try: None,
            max_wait: Span::from_secs(1),
            methods: MethodsSpec::Idempotent,
            max_body: ByteSize::new(64 * 1024),
        }
    }
}

impl FromScalar for RetrySpec {
    const EXPECTING: &'static str = "how many attempts may follow the first, such as `2`, or `off`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let attempts = match text {
            "off" | "false" => 0,
            text => text.parse().map_err(|_| format!("`{text}` is no number of attempts: write `2`, or `off`"))?,
        };
        Ok(Self { attempts, ..Self::default() })
    }
}

/// How long is waited before a retry: a time drawn by lot up to `base`, which doubles with each, up to `max`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffSpec {
    /// The longest wait before the first retry. A span of time; default `25ms`. Example: `100ms`.
    pub base: Span,
    /// The longest wait before any. A span of time; default `250ms`. Example: `2s`.
    pub max: Span,
}

impl Default for BackoffSpec {
    fn default() -> Self {
        Self { base: Span::from_millis(25), max: Span::from_millis(250) }
    }
}

/// Which requests a service may get twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodsSpec {
    /// Those whose method says that twice is as good as once (RFC 9110 §9.2.2).
    #[default]
    Idempotent,
    /// All of them.
    Any,
}

/// After what a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// No connection could be made.
    Connect,
    /// The service said that it had not looked at the request.
    Refused,
    /// The connection ended before the answer.
    Reset,
    /// A timer of the attempt fired.
    Timeout,
    /// The answer was no valid HTTP.
    Protocol,
    /// An answer of this class, 4 or 5.
    Class(u16),
    /// An answer of this status.
    Status(u16),
    /// An answer to a call of gRPC that told this code in its head.
    Grpc(u16),
}

const DEFAULT_ON: [On; 8] =
    [On::Connect, On::Refused, On::Reset, On::Timeout, On::Status(502), On::Status(503), On::Status(504), On::Grpc(14)];

const WORDS: [(&str, On); 7] = [
    ("connect", On::Connect),
    ("refused", On::Refused),
    ("reset", On::Reset),
    ("timeout", On::Timeout),
    ("protocol", On::Protocol),
    ("4xx", On::Class(4)),
    ("5xx", On::Class(5)),
];

/// The codes of gRPC from 1 on, by their names (its status codes document).
const CODES: [&str; 16] = [
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// The name of a code of gRPC that is no success.
pub(crate) fn name_of(code: u16) -> &'static str {
    usize::from(code).checked_sub(1).and_then(|index| CODES.get(index)).copied().unwrap_or("unknown")
}

impl Word for On {
    const EXPECTING: &'static str = "`connect`, `refused`, `reset`, `timeout`, `protocol`, `4xx`, `5xx`, a status from 400 to 599 or a code of gRPC such as `unavailable`";

    fn parse(text: &str) -> Option<Self> {
        if let Some((_, on)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Some(*on);
        }
        if let Some(index) = CODES.iter().position(|code| *code == text) {
            return u16::try_from(index + 1).ok().map(Self::Grpc);
        }
        text.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status)
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(_, on)| on == self)) {
            (_, Some((word, _))) => f.write_str(word),
            (Self::Grpc(code), None) => f.write_str(name_of(*code)),
            (Self::Status(status) | Self::Class(status), None) => write!(f, "{status}"),
            _ => Ok(()),
        }
    }
}

impl Serialize for On {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word::read(deserializer)
    }
}

impl JsonSchema for On {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<_> = WORDS.iter().map(|(word, _)| *word).chain(CODES).collect();
        json_schema!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 400, "maximum": 599 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_a_number_or_a_map() {
        let read = |text: &str| serde_json::from_str::<ShortRetry>(text).map(|short| short.0);
        assert_eq!(read("2").unwrap(), RetrySpec::default());
        assert_eq!(read(r#""off""#).unwrap().attempts, 0);
        let spec = read(r#"{"on": ["reset", "5xx", 429, "resource_exhausted"], "methods": "any"}"#).unwrap();
        assert_eq!(spec.on.0, [On::Reset, On::Class(5), On::Status(429), On::Grpc(8)]);
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(read(&written).unwrap(), spec);
    }

    #[test]
    fn what_is_unknown_is_said() {
        for (text, problem) in [
            (r#""twice""#, "`twice` is no number of attempts: write `2`, or `off`"),
            (r#"{"on": "200"}"#, "a status from 400 to 599"),
            (r#"{"on": ["gone"]}"#, "a code of gRPC such as `unavailable`"),
            (r#"{"tries": 2}"#, "unknown field"),
        ] {
            let error = serde_json::from_str::<ShortRetry>(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn each_code_of_grpc_has_its_name() {
        assert_eq!((name_of(1), name_of(14), name_of(16)), ("cancelled", "unavailable", "unauthenticated"));
        assert_eq!((name_of(0), name_of(99)), ("unknown", "unknown"));
    }
}
