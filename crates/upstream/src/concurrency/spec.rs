//! A limit of concurrency as it is written: a number or `adaptive`, and who waits when it is reached.

use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gradient::Bounds;
use super::limiter::Settings;
use super::line::Waits;

/// How many requests may be under way at an upstream, over all workers: exactly one of `limit` and `adaptive`.
/// A scalar is `limit`, or the word `adaptive`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencySpec {
    /// So many requests. A number, 1 to 1000000; no default. Example: `100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// As many as the service can take without answering more slowly than it could, found out while it serves. A map; no
    /// default. Example: `{ min: 10, max: 500 }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveSpec>,
    /// Who may wait for a turn when the limit is reached. Default `{ length: 64, wait: 100ms }`. Example: `{ wait: 250ms }`.
    #[serde(default)]
    pub queue: QueueSpec,
}

/// Within what a limit is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveSpec {
    /// It is never below that. A number, 1 to 1000000; default 3. Example: `10`.
    pub min: u32,
    /// It is never above that. A number, 1 to 1000000; default 1000. Example: `500`.
    pub max: u32,
    /// How much longer than on an idle service answers may take before the limit falls. A share; default `25%`.
    /// Example: `50%`.
    pub tolerance: Percent,
}

impl Default for AdaptiveSpec {
    fn default() -> Self {
        Self { min: 3, max: 1000, tolerance: Percent::from_basis_points(2500) }
    }
}

/// A short queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSpec {
    /// How many requests may wait, over all workers. A number, 0 (nobody waits) to 100000; default 64. Example: `16`.
    pub length: u32,
    /// How long one waits before it is refused. A span of time, at most `10s`; default `100ms`. Example: `250ms`.
    pub wait: Span,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { length: 64, wait: Span::from_millis(100) }
    }
}

impl FromScalar for ConcurrencySpec {
    const EXPECTING: &'static str = "a number of requests such as `100`, or `adaptive`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        if text == "adaptive" {
            return Ok(Self { adaptive: Some(AdaptiveSpec::default()), ..Self::default() });
        }
        let limit = text.parse().map_err(|_| format!("`{text}` is neither a number of requests nor `adaptive`"))?;
        Ok(Self { limit: Some(limit), ..Self::default() })
    }
}

/// A [`ConcurrencySpec`] as it stands in a document.
pub type ShortConcurrency = Short<ConcurrencySpec>;

/// The most requests that any limit allows.
const MOST: u32 = 1_000_000;

impl ConcurrencySpec {
    /// What it comes to. Paths of errors begin at the spec.
    pub(crate) fn compile(&self) -> Result<Settings, Vec<SpecError>> {
        let mut errors = Vec::new();
        let at = |keys: &[&str]| keys.iter().fold(FieldPath::root(), |path, key| path.key(*key));
        let mut number = |keys: &[&str], value: u32| {
            if !(1..=MOST).contains(&value) {
                errors.push(SpecError::new(at(keys), format!("{value} is not a number from 1 to {MOST}")));
            }
        };
        if let Some(limit) = self.limit {
            number(&["limit"], limit);
        }
        if let Some(adaptive) = &self.adaptive {
            number(&["adaptive", "min"], adaptive.min);
            number(&["adaptive", "max"], adaptive.max);
            if adaptive.min > adaptive.max {
                let problem = format!("the least limit, {}, is above the greatest, {}", adaptive.min, adaptive.max);
                errors.push(SpecError::new(at(&["adaptive", "min"]), problem));
            }
        }
        match (self.limit, &self.adaptive) {
            (None, None) => {
                let error = SpecError::new(FieldPath::root(), "nothing says what the limit is");
                errors.push(error.help("add `limit: 100` or `adaptive: {}`"));
            }
            (Some(_), Some(_)) => {
                let error = SpecError::new(FieldPath::root(), "a limit is either written or found out");
                errors.push(error.help("keep one of `limit` and `adaptive`; a bound for the latter is `adaptive.max`"));
            }
            _ => {}
        }
        if self.queue.length > 100_000 {
            errors.push(SpecError::new(at(&["queue", "length"]), "more than 100000 requests would wait"));
        }
        if self.queue.wait > Span::from_secs(10) {
            let error = SpecError::new(at(&["queue", "wait"]), "requests would wait for more than 10s");
            errors.push(error.help("a queue evens out bursts; whoever waits for longer has mostly given up"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let waits = Waits { most: self.queue.length as usize, wait: self.queue.wait.duration() };
        let bounds = self.adaptive.as_ref().map(|adaptive| Bounds {
            min: adaptive.min,
            max: adaptive.max,
            tolerance: adaptive.tolerance.ratio(),
        });
        Ok(Settings { limit: self.limit, bounds, waits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ShortConcurrency {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_limit_is_a_number_or_a_word_or_a_map() {
        assert_eq!(read("100").limit, Some(100));
        assert_eq!(read(r#""adaptive""#).adaptive, Some(AdaptiveSpec::default()));
        let full = read(r#"{ "adaptive": { "min": 10, "tolerance": "50%" }, "queue": { "wait": "250ms" } }"#);
        let adaptive = full.adaptive.clone().unwrap();
        assert_eq!((adaptive.min, adaptive.max, full.queue.length), (10, 1000, 64));
        assert_eq!(read(&serde_json::to_string(&full).unwrap()), full);
        for text in [r#""adaptiv""#, "-1", r#"{ "limt": 1 }"#, r#"{ "limit": "ten" }"#] {
            assert!(serde_json::from_str::<ShortConcurrency>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn all_that_is_wrong_with_a_limit_is_told_at_its_place() {
        for (text, places) in [
            ("0", &["limit"][..]),
            ("{}", &[""]),
            (r#"{ "limit": 1, "adaptive": {} }"#, &[""]),
            (
                r#"{ "adaptive": { "min": 9, "max": 8 }, "queue": { "length": 100001, "wait": "11s" } }"#,
                &["adaptive.min", "queue.length", "queue.wait"],
            ),
        ] {
            let errors = read(text).compile().unwrap_err();
            let told: Vec<_> = errors.iter().map(|error| error.at.to_string()).collect();
            assert_eq!(told, places, "{text}");
        }
    }
}
