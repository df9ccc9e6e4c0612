//! The access log: one JSON object per line and exchange, written off the path of a request.
//!
//! Each worker writes lines into a buffer of its own (256 KiB). A full buffer, or one that waits since the last tick,
//! is handed over a bounded queue (8 MiB in all) to one writer thread. When the sink is so slow that the queue is full,
//! the newest lines are dropped and counted; the request path never waits for the sink.

pub(crate) mod line;
mod queue;
mod sink;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use pylon_core::exchange::Trail;
use pylon_core::worker::PerWorker;

use crate::clock::Stamp;
use crate::metrics::LogCounts;
use crate::redact::Redaction;
use crate::spec::{LogPlan, LogTarget};
use crate::tcp::TcpRecord;
use line::Line;
use queue::{BATCH, Batch, Queue};
use sink::Sink;

/// How many bytes may wait for the writer, all workers together.
const QUEUE: usize = 8 << 20;

/// How often, at most, drops and failures of the log are told to the operator.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the access log `{}` cannot be opened", path.display())]
pub struct OpenError {
    /// The file, or `stdout`.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// The open access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    open: Option<Open>,
    redaction: Arc<Redaction>,
    headers: Box<[HeaderName]>,
}

#[derive(Debug)]
struct Open {
    queue: Arc<Queue>,
    buffers: PerWorker<Buffer>,
    counts: Arc<LogCounts>,
    complaint: Mutex<Complaint>,
}

/// What one worker has written and not handed over yet.
#[derive(Debug, Default)]
struct Buffer {
    batch: Batch,
    stamp: Stamp,
}

/// When drops were last told, and how many there were then.
#[derive(Debug, Default)]
struct Complaint {
    told: Option<Instant>,
    dropped: u64,
}

impl AccessLog {
    /// Opens the sink and starts the writer thread. Called after [`worker::set_count`](pylon_core::worker::set_count).
    pub(crate) fn open(plan: &LogPlan, redaction: Arc<Redaction>, counts: &Arc<LogCounts>) -> Result<Self, OpenError> {
        let open = match &plan.to {
            LogTarget::Off => None,
            LogTarget::Stdout => {
                let sink = Sink::stdout().map_err(|source| OpenError { path: "stdout".into(), source })?;
                Some(Open::start(sink, QUEUE, counts).map_err(|source| OpenError { path: "stdout".into(), source })?)
            }
            LogTarget::File(path) => {
                let sink = Sink::file(path.clone()).map_err(|source| OpenError { path: path.clone(), source })?;
                Some(Open::start(sink, QUEUE, counts).map_err(|source| OpenError { path: path.clone(), source })?)
            }
        };
        Ok(Self { open, redaction, headers: plan.headers.clone() })
    }

    /// Notes those headers of a request that the log is asked to tell. Costs nothing when there are none.
    pub(crate) fn note(&self, headers: &HeaderMap, trail: &mut Trail) {
        for name in &self.headers {
            if let Some(value) = headers.get(name) {
                trail.noted.push((name.clone(), value.clone()));
            }
        }
    }

    /// Writes the line of an exchange that is over.
    pub(crate) fn record(&self, line: &Line<'_>) {
        self.write(|out, stamp| line.write(out, stamp, &self.redaction));
    }

    /// Writes the line of a connection that is over; `started` is the time since 1970 at its acceptance.
    pub(crate) fn record_tcp(&self, record: &TcpRecord<'_>, started: Duration) {
        self.write(|out, stamp| record.write(out, stamp, started));
    }

    fn write(&self, line: impl FnOnce(&mut Vec<u8>, &mut Stamp)) {
        let Some(open) = &self.open else { return };
        open.buffers.with(|buffer| {
            buffer.batch.reserve();
            line(&mut buffer.batch.bytes, &mut buffer.stamp);
            buffer.batch.lines += 1;
            if buffer.batch.bytes.len() >= BATCH - line::USUAL && !open.queue.push(&mut buffer.batch) {
                open.counts.dropped.fetch_add(buffer.batch.lines, Ordering::Relaxed);
                buffer.batch.clear();
            }
        });
    }

    /// Hands over what waits in the workers' buffers, and tells of drops: called each 250 ms by the control plane.
    pub(crate) fn tick(&self, now: Instant) {
        let Some(open) = &self.open else { return };
        // A buffer that finds no room stays where it is and has another try.
        open.buffers.each(|_, buffer| _ = open.queue.push(&mut buffer.batch));
        open.complain(now);
    }

    /// Asks the writer to open its file anew before the next line, after a rotation. Lines that wait go to the new file.
    pub(crate) fn reopen(&self) {
        if let Some(open) = &self.open {
            open.queue.reopen();
        }
    }

    /// Writes all that waits and ends the writer; gives up after `within`. Answers how many lines were left unwritten.
    pub(crate) fn close(&self, within: Duration) -> u64 {
        let Some(open) = &self.open else { return 0 };
        open.buffers.each(|_, buffer| open.queue.push_last(&mut buffer.batch));
        let left = open.queue.close(within);
        open.counts.dropped.fetch_add(left, Ordering::Relaxed);
        left
    }
}

impl Open {
    fn start(sink: Sink, capacity: usize, counts: &Arc<LogCounts>) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(capacity));
        let (theirs, written) = (Arc::clone(&queue), Arc::clone(counts));
        std::thread::Builder::new().name("pylon-log".into()).spawn(move || sink::drain(&theirs, sink, &written))?;
        Ok(Self { queue, buffers: PerWorker::default(), counts: Arc::clone(counts), complaint: Mutex::default() })
    }

    fn complain(&self, now: Instant) {
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let mut complaint = self.complaint.lock();
        let due = complaint.told.is_none_or(|told| now.saturating_duration_since(told) >= COMPLAINT);
        if dropped > complaint.dropped && due {
            let lines = dropped - complaint.dropped;
            *complaint = Complaint { told: Some(now), dropped };
            tracing::warn!(lines, "lines of the access log were dropped: its sink is too slow or fails");
        }
    }
}

impl Drop for Open {
    /// The writer thread ends when what was handed over is written; nobody waits for it here.
    fn drop(&mut self) {
        self.queue.end();
    }
}

#[cfg(test)]
mod tests;
