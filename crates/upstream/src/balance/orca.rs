//! Weights from what endpoints report of their load: requests a second for the part of their capacity that these take.
//!
//! The report is that of ORCA (Open Request Cost Aggregation, the message `xds.data.orca.v3.OrcaLoadReport`) in the field
//! `endpoint-load-metrics` of an answer, as `JSON {…}` or `TEXT name=value,…`. Binary reports and those in trailers are not read.
//! What becomes of them is gRPC's `weighted_round_robin` (gRFC A58): an endpoint's weight is `qps / (utilisation + eps / qps)`;
//! it counts once the endpoint has reported for a while (blackout), and no longer than a while after the last report (expiry);
//! who has no weight gets the mean of the others. Time is nanoseconds from any fixed moment on.

use std::time::Duration;

use serde::Deserialize;

/// The longest field that is read, in bytes.
const LONGEST: usize = 4096;

/// What an endpoint reports.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    #[serde(alias = "cpuUtilization")]
    cpu_utilization: f64,
    #[serde(alias = "applicationUtilization")]
    application_utilization: f64,
    #[serde(alias = "rpsFractional")]
    rps_fractional: f64,
    eps: f64,
}

impl Report {
    /// Reads the value of the field. None where it is not understood.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST)?.trim();
        let report = match text.strip_prefix("JSON").map_or(text, str::trim_start) {
            json if json.starts_with('{') => serde_json::from_str(json).ok()?,
            text => Self::parse_text(text.strip_prefix("TEXT")?)?,
        };
        let Self { cpu_utilization, application_utilization, rps_fractional, eps } = report;
        let all = [cpu_utilization, application_utilization, rps_fractional, eps];
        all.iter().all(|value| value.is_finite() && *value >= 0.0).then_some(report)
    }

    fn parse_text(text: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=')?;
            let place = match name.trim_end() {
                "cpu_utilization" => &mut report.cpu_utilization,
                "application_utilization" => &mut report.application_utilization,
                "rps_fractional" => &mut report.rps_fractional,
                "eps" => &mut report.eps,
                _ => continue,
            };
            *place = value.trim_start().parse().ok()?;
        }
        Some(report)
    }

    /// The weight that it makes; none where something is missing for it.
    pub fn weight(&self) -> Option<f64> {
        let Self { cpu_utilization, application_utilization, rps_fractional: qps, eps } = *self;
        let used = if application_utilization > 0.0 { application_utilization } else { cpu_utilization };
        if qps <= 0.0 || used <= 0.0 {
            return None;
        }
        let weight = qps / (used + eps / qps);
        weight.is_finite().then_some(weight)
    }
}

/// What is held of the reports of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Earned {
    /// 0 where nothing was reported that makes one.
    pub weight: f64,
    /// Since when there have been reports without a pause.
    pub since: u64,
    /// When the last came.
    pub at: u64,
}

/// For how long reports do not count yet, and when they count no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From the first report on, and again after a pause.
    pub blackout: Duration,
    /// After the last report.
    pub expiry: Duration,
}

impl Earned {
    /// Takes in a report.
    #[must_use]
    pub fn report(self, report: &Report, bounds: Bounds, now: u64) -> Self {
        let Some(weight) = report.weight() else { return self };
        let paused = self.weight <= 0.0 || age(self.at, now) >= bounds.expiry;
        Self { weight, since: if paused { now } else { self.since }, at: now }
    }

    /// The weight that counts now, if there is one.
    pub fn now(self, bounds: Bounds, now: u64) -> Option<f64> {
        let counts = self.weight > 0.0 && age(self.at, now) < bounds.expiry && age(self.since, now) >= bounds.blackout;
        counts.then_some(self.weight)
    }
}

fn age(then: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
}

/// What weights are counted in: the largest becomes this.
pub const SCALE: f64 = 10_000.0;

/// Whole weights of all endpoints; none where fewer than two have reported, so that what is written counts.
pub fn weights(earned: &[Option<f64>]) -> Option<Vec<f64>> {
    let known = || earned.iter().copied().flatten();
    let count = known().count();
    if count < 2 {
        return None;
    }
    let (mean, most) = (known().sum::<f64>() / count as f64, known().fold(0.0, f64::max));
    Some(earned.iter().map(|weight| (weight.unwrap_or(mean) / most * SCALE).max(1.0)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BOUNDS: Bounds = Bounds { blackout: Duration::from_secs(10), expiry: Duration::from_secs(180) };

    #[test]
    fn a_report_is_read_in_both_forms() {
        let json = Report::parse(br#"JSON {"cpu_utilization": 0.5, "rps_fractional": 100, "mem_utilization": 0.9}"#);
        let text = Report::parse(b"TEXT cpu_utilization=0.5, rps_fractional=100,named_metrics.queue=7");
        assert_eq!(json, text);
        assert_eq!(json, Report::parse(br#"{"cpuUtilization":0.5,"rpsFractional":1e2}"#));
        assert_eq!(json.unwrap().weight(), Some(200.0));
        let more = Report::parse(b"TEXT cpu_utilization=0.9,application_utilization=0.25,rps_fractional=100,eps=25");
        assert_eq!(more.unwrap().weight(), Some(200.0), "what the application says counts first, and errors weigh");
        let wrong =
            ["", "BIN abc", "TEXT cpu_utilization", "TEXT cpu_utilization=x", "JSON [", "JSON 1", "TEXT eps=NaN"];
        for wrong in wrong {
            assert_eq!(Report::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Report::parse(b"TEXT rps_fractional=10").unwrap().weight(), None);
        assert_eq!(Report::parse(b"TEXT eps=-1"), None);
    }

    #[test]
    fn a_weight_counts_after_the_blackout_and_until_it_expires() {
        let report = Report::parse(b"TEXT cpu_utilization=0.5,rps_fractional=100").unwrap();
        let first = Earned::default().report(&report, BOUNDS, SECOND);
        let second = first.report(&report, BOUNDS, 8 * SECOND);
        assert_eq!((second.now(BOUNDS, 10 * SECOND), second.now(BOUNDS, 11 * SECOND)), (None, Some(200.0)));
        assert_eq!(second.now(BOUNDS, 188 * SECOND), None);
        let again = second.report(&report, BOUNDS, 200 * SECOND);
        assert_eq!((again.now(BOUNDS, 209 * SECOND), again.now(BOUNDS, 210 * SECOND)), (None, Some(200.0)));
    }

    #[test]
    fn who_has_not_reported_gets_the_mean_and_one_report_alone_changes_nothing() {
        assert_eq!(weights(&[Some(200.0), None, Some(100.0)]), Some(vec![10_000.0, 7_500.0, 5_000.0]));
        assert_eq!(weights(&[Some(200.0), None]), None);
    }

    proptest! {
        #[test]
        fn no_report_makes_a_weight_that_is_none(text in "(TEXT|JSON)? ?[ -~]{0,60}", cpu in any::<f64>(), rps in any::<f64>(), eps in any::<f64>()) {
            let numbers = format!("TEXT cpu_utilization={cpu},rps_fractional={rps},eps={eps}");
            for report in [text, numbers] {
                let weight = Report::parse(report.as_bytes()).and_then(|report| report.weight());
                prop_assert!(weight.is_none_or(|weight| weight.is_finite() && weight >= 0.0));
            }
        }
    }
}
