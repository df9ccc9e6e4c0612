//! The task of one stream of HTTP/2: ends it when the client opens no window for its answer for `limits.write_timeout`.
//!
//! Only hyper knows the stream, and it asks a body for its next piece once there is room for the one before. So the body
//! says when it has handed over a piece, and the task that runs it sees whether it is asked again. The two meet in a cell
//! of the thread, for as long as the task is polled.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;

use crate::timer::{self, Sleep};

/// Runs streams on the worker of their connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnWorker {
    /// For how long a client may take nothing of an answer.
    pub(crate) patience: Duration,
}

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        tokio::spawn(StreamTask { future: Some(future), patience: self.patience, seen: Progress::None, timer: None });
    }
}

/// How far the answer of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is none, or its next piece is not there yet: nobody waits for the client.
    None,
    /// So many pieces were handed over, the last of which the client has still to make room for.
    Handed(u64),
    /// The client is being given up.
    Stalled,
}

thread_local! {
    static PROGRESS: Cell<Progress> = const { Cell::new(Progress::None) };
}

/// Notes that a piece was handed over.
pub(crate) fn handed() {
    PROGRESS.set(match PROGRESS.get() {
        Progress::Handed(pieces) => Progress::Handed(pieces.wrapping_add(1)),
        Progress::None | Progress::Stalled => Progress::Handed(0),
    });
}

/// Notes that the next piece is not there yet.
pub(crate) fn awaited() {
    PROGRESS.set(Progress::None);
}

/// Whether what is being dropped is so since its client takes nothing.
pub(crate) fn is_stalled() -> bool {
    PROGRESS.get() == Progress::Stalled
}

pin_project_lite::pin_project! {
    struct StreamTask<F> {
        #[pin]
        future: Option<F>,
        patience: Duration,
        seen: Progress,
        timer: Option<Sleep>,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        PROGRESS.set(*this.seen);
        let polled = future.poll(cx);
        let progress = PROGRESS.replace(Progress::None);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if progress == Progress::None {
            *this.timer = None;
        } else if progress != *this.seen {
            *this.timer = Some(timer::sleep_until(tokio::time::Instant::now().into_std() + *this.patience));
        }
        *this.seen = progress;
        if this.timer.as_mut().is_some_and(|timer| Pin::new(timer).poll(cx).is_ready()) {
            PROGRESS.set(Progress::Stalled);
            // Resets the stream.
            this.future.set(None);
            PROGRESS.set(Progress::None);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
