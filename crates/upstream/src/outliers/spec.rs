//! Ejection of outliers as it is written in a document.

use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::{Percent, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::judge::Rules;

/// When an endpoint that does worse than it should is left out for a while. `on` is all of it by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutliersSpec {
    /// How many attempts in a row must fail: answers with 5xx, and none at all. A number, 1 to 1000, 0 for never; default 5.
    /// Example: `3`.
    pub failures: u32,
    /// The share of attempts in the `window` that must fail. `0%` is never. Default `50%`. Example: `20%`.
    pub errors: Percent,
    /// How many times as long as the others an endpoint must take, by the mean of the `window` and the median of theirs, 2 to 100; a
    /// difference below 10 ms counts for nothing. Default: never. Example: `3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<u32>,
    /// How far back `errors` and `slow` look. A span of time in whole seconds, 1s to 5m; default `10s`. Example: `30s`.
    pub window: Span,
    /// The fewest attempts in the `window` by which `errors` and `slow` judge. A number, from 1; default 20. Example: `100`.
    pub requests: u32,
    /// How long an endpoint is left out the first time; the second time twice as long, and so on. For each such time that it does well
    /// one is forgotten. A span of time; default `30s`. Example: `10s`.
    pub eject: Span,
    /// The longest that an endpoint is left out. A span of time; default `5m`. Example: `1m`.
    pub longest: Span,
    /// The share of endpoints that may be left out at once. Of several one may in any case, a lone one never. Default `50%`.
    /// Example: `20%`.
    pub at_most: Percent,
}

/// An [`OutliersSpec`] as it stands in a document.
pub type ShortOutliers = Short<OutliersSpec>;

impl Default for OutliersSpec {
    fn default() -> Self {
        Self {
            failures: 5,
            errors: Percent::from_basis_points(5000),
            slow: None,
            window: Span::from_secs(10),
            requests: 20,
            eject: Span::from_secs(30),
            longest: Span::from_secs(300),
            at_most: Percent::from_basis_points(5000),
        }
    }
}

impl FromScalar for OutliersSpec {
    const EXPECTING: &'static str = "`on`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "on" | "true" => Ok(Self::default()),
            other => Err(format!("`{other}` is not `on`: leave the key out where nothing is to be ejected")),
        }
    }
}

/// The rules that are written; all that is wrong is told at once.
pub(crate) fn compile(spec: &OutliersSpec) -> Result<Rules, Vec<SpecError>> {
    let mut errors = Vec::new();
    let mut wrong = |key: &str, problem: String, help: &str| {
        errors.push(SpecError::new(FieldPath::root().key(key), problem).help(help));
    };
    let window = spec.window.duration();
    if window.subsec_nanos() != 0 || !(1..=300).contains(&window.as_secs()) {
        wrong("window", format!("{} is not a whole number of seconds from 1s to 5m", spec.window), "write it as `10s`");
    }
    if spec.failures > 1000 {
        wrong(
            "failures",
            format!("{} is more than 1000", spec.failures),
            "write 0 where rows of failures do not count",
        );
    }
    if spec.requests == 0 {
        wrong("requests", "0 requests say nothing".to_owned(), "write how many there must be, such as 20");
    }
    if spec.slow.is_some_and(|slow| !(2..=100).contains(&slow)) {
        wrong(
            "slow",
            "this is not from 2 to 100".to_owned(),
            "write how many times as long as the others it must take",
        );
    }
    if spec.longest < spec.eject {
        wrong(
            "longest",
            format!("{} is less than `eject`, {}", spec.longest, spec.eject),
            "write the longer of both here",
        );
    }
    let errors_count = spec.errors.basis_points() > 0;
    if spec.failures == 0 && !errors_count && spec.slow.is_none() {
        let error = SpecError::new(FieldPath::root(), "nothing is left for which an endpoint would be ejected");
        errors.push(error.help("leave the key `outliers` out"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Rules {
        failures: (spec.failures > 0).then_some(spec.failures),
        errors: errors_count.then_some(spec.errors),
        slow: spec.slow.map(f64::from),
        window: usize::try_from(window.as_secs()).unwrap_or(usize::MAX),
        volume: spec.requests.into(),
        base: spec.eject.duration(),
        longest: spec.longest.duration(),
        at_most: spec.at_most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wrong(spec: &str) -> Vec<String> {
        let spec: ShortOutliers = serde_json::from_str(spec).unwrap();
        compile(&spec).unwrap_err().iter().map(|error| format!("{}: {}", error.at, error.problem)).collect()
    }

    #[test]
    fn one_word_is_enough() {
        let spec: ShortOutliers = serde_json::from_str(r#""on""#).unwrap();
        let rules = compile(&spec).unwrap();
        assert_eq!((rules.failures, rules.window, rules.volume, rules.slow), (Some(5), 10, 20, None));
        assert_eq!((rules.base, rules.longest), (Duration::from_secs(30), Duration::from_secs(300)));
        assert!(serde_json::from_str::<ShortOutliers>(r#""off""#).is_err());
        let written = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ShortOutliers>(&written).unwrap(), spec);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        assert_eq!(
            wrong(r#"{"window": "1500ms", "failures": 1001, "requests": 0, "slow": 1, "longest": "1s"}"#),
            [
                "window: 1s500ms is not a whole number of seconds from 1s to 5m",
                "failures: 1001 is more than 1000",
                "requests: 0 requests say nothing",
                "slow: this is not from 2 to 100",
                "longest: 1s is less than `eject`, 30s",
            ]
        );
        assert_eq!(
            wrong(r#"{"failures": 0, "errors": "0%"}"#),
            [": nothing is left for which an endpoint would be ejected"]
        );
    }
}
