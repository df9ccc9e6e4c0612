//! What the head of an answer says of its endpoint, and what is said in it to the client: reports of load, and the cookie that
//! keeps the client there.

use std::time::Instant;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName};
use pylon_core::connection::Scheme;
use pylon_core::exchange::Exchange;

use super::Upstream;
use crate::balance::orca::Report;
use crate::endpoint::Lane;

/// What an endpoint reports of its load (ORCA).
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// The same in its binary form, which is not read.
const BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

impl Upstream {
    /// Whether heads are looked at.
    pub(crate) fn reads_heads(&self) -> bool {
        self.orca.is_some() || self.shared.sticky.is_some()
    }

    /// Looks at the head of an answer that came from `lane` to a request with the fields `sent`.
    pub(crate) fn read_head(&self, head: &mut HeaderMap, lane: &Lane, sent: &HeaderMap, cx: &Exchange, now: Instant) {
        if let Some(bounds) = self.orca {
            let report = head.get(&REPORT).and_then(|value| Report::parse(value.as_bytes()));
            if let (Some(report), Some(gauge)) = (report, &lane.gauge) {
                gauge.report(&report, bounds, now);
            }
            if !self.shows_reports {
                head.remove(&REPORT);
                head.remove(&BINARY);
            }
        }
        if let (Some(sticky), Some(name)) = (&self.shared.sticky, lane.name)
            && sticky.find(sent) != Some(name)
            && let Some(cookie) = sticky.field(name, cx.scheme == Scheme::Https)
        {
            head.append(SET_COOKIE, cookie);
        }
    }
}
