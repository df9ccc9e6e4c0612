//! What the gateway tells of itself: metrics, the access log, the last exchanges, and the wall clock.
//!
//! The data plane makes two calls: [`RouteShard::begin`] at the head of a request and [`Observer::finish`] when the last
//! byte is gone, or the client is. Neither waits, takes a contended lock, allocates in the long run, or asks the system.
//! Traces are not built yet.

pub mod access_log;
pub mod breakers;
pub mod catalogue;
pub mod clock;
pub mod ending;
mod histogram;
pub mod insight;
mod json;
pub mod metrics;
pub mod outcomes;
pub mod process;
pub mod recent;
mod redact;
pub mod reloads;
pub mod render;
pub mod series;
pub mod spec;
pub mod tcp;
pub mod upstream;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderMap;
use pylon_core::exchange::Exchange;

use access_log::line::Line;
use access_log::{AccessLog, OpenError};
use clock::Wall;
use ending::{End, Ending};
use metrics::Metrics;
use recent::{Cursor, Recent, Rings};
use redact::Redaction;
use series::RouteShard;
use spec::Telemetry;
use tcp::TcpRecord;

/// All observation of the process; one, shared by workers and control plane.
#[derive(Debug)]
pub struct Observer {
    metrics: Arc<Metrics>,
    log: AccessLog,
    wall: Wall,
    recent: Option<Rings>,
    redaction: Arc<Redaction>,
}

impl Observer {
    /// Opens the access log. Called once, after [`worker::set_count`](pylon_core::worker::set_count); `now` is the present.
    pub fn open(telemetry: &Telemetry, metrics: Arc<Metrics>, now: Instant) -> Result<Self, OpenError> {
        let redaction = Arc::new(Redaction::new(telemetry.access_log.redact.clone()));
        let log = AccessLog::open(&telemetry.access_log, Arc::clone(&redaction), metrics.log())?;
        Ok(Self { metrics, log, wall: Wall::new(now), recent: telemetry.recent.then(Rings::default), redaction })
    }

    /// The registry of series, for those who compile routes and upstreams, and for the scrape.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The wall clock.
    pub fn wall(&self) -> &Wall {
        &self.wall
    }

    /// Notes those headers of a request that the log is asked to tell: called once, before the headers are changed.
    pub fn note(&self, headers: &HeaderMap, exchange: &mut Exchange) {
        self.log.note(headers, &mut exchange.trail);
    }

    /// An exchange is over: counts it, measures it, writes its line. Called once for each [`RouteShard::begin`], on a
    /// worker, with the shard of the route that answered.
    pub fn finish(&self, route: &RouteShard, exchange: &Exchange, ending: Ending) {
        let took = ending.ended.saturating_duration_since(exchange.started);
        let status = ending.logged_status();
        // How long a tunnel lived says nothing of how fast the route answers.
        let answered = if ending.is_of_tunnel() { exchange.trail.upstream_time.unwrap_or(took) } else { took };
        let process = route.end(status, answered);
        if ending.how == End::ClientGone && !ending.is_of_tunnel() {
            process.client_aborts.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = exchange.trail.reason.and_then(|reason| process.rejections.get(reason.index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(fallback) = &exchange.trail.fallback {
            route.fell_back(fallback.by);
        }
        if let Some(injected) = exchange.trail.injected {
            let (delayed, aborted) = injected.parts();
            for (count, is) in process.faults.iter().zip([delayed, aborted]) {
                count.fetch_add(is.into(), Ordering::Relaxed);
            }
        }
        for shadowed in &exchange.trail.shadowed {
            self.metrics.shadow(*shadowed);
        }
        let started = self.wall.unix(exchange.started);
        let over = Line { route, exchange, ending: &ending, started, took };
        if let Some(recent) = &self.recent {
            recent.keep(&over, &self.redaction);
        }
        self.log.record(&over);
    }

    /// A connection that was carried byte by byte is over: counts it and writes its line. On a worker.
    pub fn finish_tcp(&self, record: &TcpRecord<'_>) {
        self.metrics.tcp_ended(record);
        self.log.record_tcp(record, self.wall.unix(record.opened));
    }

    /// The last exchanges that the workers keep, 64 each, in order of their start. Empty when that is switched off.
    pub fn recent(&self) -> Vec<Recent> {
        self.recent_since(&mut Cursor::default())
    }

    /// What came after `cursor`, as far as it is still kept; moves the cursor on.
    pub fn recent_since(&self, cursor: &mut Cursor) -> Vec<Recent> {
        self.recent.as_ref().map(|rings| rings.since(cursor)).unwrap_or_default()
    }

    /// Anchors the clock anew and hands over lines that wait: called by the control plane each [`TICK`].
    pub fn tick(&self, now: Instant) {
        self.wall.anchor(now);
        self.log.tick(now);
    }

    /// Opens the file of the access log anew, after a rotation.
    pub fn reopen(&self) {
        self.log.reopen();
    }

    /// Writes what waits of the access log, `within` at most: called when the workers have ended. It blocks its thread.
    /// Answers how many lines were left unwritten.
    pub fn close(&self, within: Duration) -> u64 {
        self.log.close(within)
    }
}

/// How often [`Observer::tick`] is to be called.
pub const TICK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests;
pub mod upgrades;
