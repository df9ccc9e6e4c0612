//! The last exchanges of each worker, for the admin API and the live view: a ring of 64, overwritten in place.

use std::time::Duration;

use pylon_core::exchange::Timer;
use pylon_core::worker::PerWorker;
use serde::{Serialize, Serializer};

use crate::access_log::line::Line;
use crate::clock::rfc3339;
use crate::ending::End;
use crate::json;
use crate::redact::Redaction;

/// How many exchanges each worker keeps.
const KEPT: u64 = 64;

/// The longest text that is kept of a value, in bytes.
const TEXT: usize = 256;

/// One exchange that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recent {
    /// When its head was read: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The method.
    pub method: String,
    /// Path and query, secrets as `***`; cut after 256 bytes.
    pub path: String,
    /// The status as in the access log: 499 when the client went away.
    pub status: u16,
    /// From the head of the request to the last byte of the answer.
    #[serde(rename = "duration_ms", serialize_with = "as_millis")]
    pub duration: Duration,
    /// The id of the route.
    pub route: String,
    /// The upstream that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Why the gateway itself refused: the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The timer that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<&'static str>,
    /// How it ended, as in the access log.
    pub end: &'static str,
}

/// How far a reader has come; begins with what is kept.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    /// How many exchanges of each worker were seen.
    seen: Vec<u64>,
}

/// The rings of all workers.
#[derive(Debug, Default)]
pub(crate) struct Rings(PerWorker<Ring>);

#[derive(Debug, Default)]
struct Ring {
    kept: Vec<Kept>,
    written: u64,
}

#[derive(Debug)]
struct Kept {
    started: Duration,
    took: Duration,
    method: String,
    path: String,
    route: String,
    upstream: Option<String>,
    status: u16,
    reason: Option<&'static str>,
    timer: Option<Timer>,
    how: End,
}

impl Rings {
    /// Keeps one exchange in place of the oldest. Allocates only while the ring fills for the first time.
    pub(crate) fn keep(&self, over: &Line<'_>, redaction: &Redaction) {
        let (exchange, trail, ending) = (over.exchange, &over.exchange.trail, over.ending);
        self.0.with(|ring| {
            let kept = ring.next();
            (kept.started, kept.took) = (over.started, over.took);
            replace(&mut kept.method, exchange.method.as_str());
            kept.path.clear();
            redaction.pieces(json::cut(exchange.path.as_str(), TEXT).0, |piece| kept.path.push_str(piece));
            replace(&mut kept.route, over.route.route());
            match &trail.upstream {
                Some(name) => replace(kept.upstream.get_or_insert_default(), name),
                None => kept.upstream = None,
            }
            kept.status = ending.logged_status();
            kept.reason = trail.reason.map(|reason| reason.code);
            kept.timer = ending.how.timer().or(trail.timer);
            kept.how = ending.how;
        });
    }

    /// What came after `cursor`, as far as it is still kept, in order of the start; moves the cursor to the end.
    pub(crate) fn since(&self, cursor: &mut Cursor) -> Vec<Recent> {
        let mut found = Vec::new();
        self.0.each(|worker, ring| {
            if cursor.seen.len() <= worker {
                cursor.seen.resize(worker + 1, 0);
            }
            let Some(seen) = cursor.seen.get_mut(worker) else { return };
            for number in ring.written.saturating_sub(KEPT).max(*seen)..ring.written {
                found.extend(ring.kept.get((number % KEPT) as usize).map(|kept| (kept.started, kept.shown())));
            }
            *seen = ring.written;
        });
        found.sort_by_key(|(started, _)| *started);
        found.into_iter().map(|(_, recent)| recent).collect()
    }
}

impl Ring {
    /// The place of the next exchange.
    fn next(&mut self) -> &mut Kept {
        let place = (self.written % KEPT) as usize;
        self.written += 1;
        if place >= self.kept.len() {
            self.kept.push(Kept::default());
        }
        let last = self.kept.len() - 1;
        #[expect(
            clippy::indexing_slicing,
            reason = "an entry was pushed if there was none, and the index is capped to the last"
        )]
        &mut self.kept[place.min(last)]
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            started: Duration::ZERO,
            took: Duration::ZERO,
            method: String::new(),
            path: String::new(),
            route: String::new(),
            upstream: None,
            status: 0,
            reason: None,
            timer: None,
            how: End::Complete,
        }
    }
}

impl Kept {
    fn shown(&self) -> Recent {
        Recent {
            time: rfc3339(self.started),
            method: self.method.clone(),
            path: self.path.clone(),
            status: self.status,
            duration: self.took,
            route: self.route.clone(),
            upstream: self.upstream.clone(),
            reason: self.reason,
            timer: self.timer.map(Timer::as_str),
            end: self.how.as_str(),
        }
    }
}

fn replace(old: &mut String, new: &str) {
    old.clear();
    old.push_str(json::cut(new, TEXT).0);
}

fn as_millis<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(span.as_micros() as f64 / 1000.0)
}
