//! Ends a connection whose client does not take its answer: no byte for `limits.write_timeout`.
//!
//! The socket tells that it has room again only once much has gone, so a slow client could look like none: before it is
//! given up, what the system still holds is compared with what it held before.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use pylon_core::connection::Connection;

use crate::stream::Stream;
use crate::timer::{self, Sleep};

/// Watches over the writes of one connection.
#[derive(Debug)]
pub(crate) struct Stall {
    patience: Duration,
    waiting: Option<Waiting>,
}

/// A write that finds no room.
#[derive(Debug)]
struct Waiting {
    timer: Sleep,
    /// What the client had still to take when the wait began, in bytes.
    unsent: Option<u64>,
}

impl Stall {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, waiting: None }
    }

    /// Passes on what a write or a flush came to, unless it has come to nothing for too long.
    pub(crate) fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        connection: &Connection,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let begin = || Waiting { timer: timer::sleep_until(now() + self.patience), unsent: stream.unsent() };
        let waiting = self.waiting.get_or_insert_with(begin);
        while Pin::new(&mut waiting.timer).poll(cx).is_ready() {
            let unsent = stream.unsent();
            if unsent >= waiting.unsent {
                connection.stalled.store(true, Ordering::Relaxed);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            waiting.unsent = unsent;
            waiting.timer.reset(now() + self.patience);
        }
        Poll::Pending
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
