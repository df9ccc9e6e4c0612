//! The timers of a body: the longest pause, and the end of all.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pylon_core::exchange::Timer;
use pylon_net::timer::{Sleep, sleep_until};

/// The timers of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// The longest pause between two pieces, either way.
    pub(crate) idle: Option<Duration>,
    /// When all must be over.
    pub(crate) total: Option<Instant>,
}

/// Watches the pauses of a body. The clock is read once for each pause.
#[derive(Debug)]
pub(crate) struct Pause {
    clocks: Clocks,
    /// Since when nothing has moved; none while something does.
    since: Option<Instant>,
    sleep: Option<Sleep>,
}

impl Pause {
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self { clocks, since: None, sleep: None }
    }

    /// A piece came.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// The body is over.
    pub(crate) fn end(&mut self) {
        self.sleep = None;
    }

    /// Nothing came. Ready with the timer that fired; `sent` is when an upload last moved on.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, sent: Option<Instant>) -> Poll<Timer> {
        let mut since = *self.since.get_or_insert_with(|| tokio::time::Instant::now().into_std());
        if let Some(sent) = sent {
            since = since.max(sent);
        }
        let idle = self.clocks.idle.map(|idle| (since + idle, Timer::Idle));
        let total = self.clocks.total.map(|total| (total, Timer::Total));
        let Some((at, timer)) = [idle, total].into_iter().flatten().min_by_key(|(at, _)| *at) else {
            return Poll::Pending;
        };
        loop {
            let sleep = self.sleep.get_or_insert_with(|| sleep_until(at));
            // One that was set for an earlier pause is left to fire, and only then set anew.
            if sleep.at() > at {
                sleep.reset(at);
            }
            ready!(Pin::new(&mut *sleep).poll(cx));
            if sleep.at() >= at {
                return Poll::Ready(timer);
            }
            sleep.reset(at);
        }
    }
}
