//! Whether a worker answers: it is asked, and its own thread says so.

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The pulse of one worker.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    asked: Notify,
    answered: Notify,
}

impl Pulse {
    /// Answers for as long as the worker lives. It costs nothing while nobody asks.
    pub(crate) async fn beat(&self) {
        loop {
            self.asked.notified().await;
            self.answered.notify_waiters();
        }
    }

    /// Whether it answers before `until`.
    pub(crate) async fn answers(&self, until: Instant) -> bool {
        let answered = self.answered.notified();
        self.asked.notify_one();
        timeout_at(until, answered).await.is_ok()
    }
}
