//! Where the lines end: a file or standard output, and the thread that writes to it.
//!
//! A failed write loses the lines of its batch that did not get out, counts them, and goes on with the next batch. The
//! operator is told once a minute at most.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::COMPLAINT;
use super::queue::{Queue, Work};
use crate::clock::monotonic;
use crate::metrics::LogCounts;

/// How long to wait before a sink that is full is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// An open sink.
pub(crate) struct Sink {
    out: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    /// Whether the last write broke off inside a line.
    torn: bool,
}

impl Sink {
    /// Standard output, by a descriptor of our own: without the buffer and the lock of `std::io::stdout`.
    pub(crate) fn stdout() -> io::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self { out: Box::new(File::from(own)), path: None, torn: false })
    }

    /// The end of a file, which is created with mode 0640 if it is missing.
    pub(crate) fn file(path: PathBuf) -> io::Result<Self> {
        Ok(Self { out: Box::new(append(&path)?), path: Some(path), torn: false })
    }

    /// Anything that can be written to.
    #[cfg(test)]
    pub(crate) fn of(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), path: None, torn: false }
    }

    /// Opens the file anew; on failure the old one goes on.
    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match append(path) {
            Ok(file) => (self.out, self.torn) = (Box::new(file), false),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the access log cannot be reopened: the old file goes on");
            }
        }
    }

    /// Writes whole lines. An error tells how many bytes got out before it.
    fn write(&mut self, bytes: &[u8], queue: &Queue) -> Result<(), (usize, io::Error)> {
        if self.torn {
            // What follows a broken line must not become part of it.
            self.write_all(b"\n", queue).map_err(|(_, error)| (0, error))?;
            self.torn = false;
        }
        self.write_all(bytes, queue).inspect_err(|(out, _)| {
            self.torn = out.checked_sub(1).and_then(|last| bytes.get(last)).is_some_and(|&last| last != b'\n');
        })
    }

    fn write_all(&mut self, bytes: &[u8], queue: &Queue) -> Result<(), (usize, io::Error)> {
        let mut out = 0;
        while let Some(rest) = bytes.get(out..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => return Err((out, ErrorKind::WriteZero.into())),
                Ok(n) => out += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Standard output may have been made non-blocking by whoever shares it.
                Err(error) if error.kind() == ErrorKind::WouldBlock && !queue.is_closed() => {
                    std::thread::park_timeout(PAUSE);
                }
                Err(error) => return Err((out, error)),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The writer thread: writes what is handed over until the queue is closed and empty.
pub(crate) fn drain(queue: &Queue, mut sink: Sink, counts: &LogCounts) {
    let mut told: Option<Instant> = None;
    let mut done = None;
    while let Some(work) = queue.next(done.take()) {
        let batch = match work {
            Work::Reopen => {
                sink.reopen();
                continue;
            }
            Work::Write(batch) => batch,
        };
        let mut written = batch.lines;
        if let Err((out, error)) = sink.write(&batch.bytes, queue) {
            written = batch.bytes.get(..out).unwrap_or_default().split(|&byte| byte == b'\n').skip(1).count() as u64;
            let now = monotonic();
            if told.is_none_or(|told| now.saturating_duration_since(told) >= COMPLAINT) {
                told = Some(now);
                tracing::error!(%error, lines = batch.lines - written, "the access log cannot be written: lines are dropped");
            }
        }
        counts.written.fetch_add(written, Ordering::Relaxed);
        counts.dropped.fetch_add(batch.lines - written, Ordering::Relaxed);
        done = Some(batch);
    }
}

fn append(path: &Path) -> io::Result<File> {
    // A pipe that nobody reads would block the opening for good; opened for both ends it does not, and lives on when
    // its reader comes and goes.
    let pipe = path.metadata().is_ok_and(|meta| meta.file_type().is_fifo());
    let mut options = OpenOptions::new();
    if pipe {
        options.read(true).write(true)
    } else {
        options.append(true).create(true).mode(0o640)
    };
    options.open(path)
}
