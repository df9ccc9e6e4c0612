//! The system's manager of services: what it is told of the gateway (sd_notify(3)), and its watchdog, which hears only of
//! a gateway whose workers all answer.

use std::sync::Arc;
use std::time::Duration;

use pylon_net::notify::Notify;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::pulse::Pulse;

/// What the manager asked for in the environment; where nobody asked, nothing is told.
#[derive(Debug, Default)]
pub struct Manager {
    notify: Notify,
    /// How often it wants to hear.
    watchdog: Option<Duration>,
}

impl Manager {
    /// By `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).ok();
        let notify = match read("NOTIFY_SOCKET").map(|name| Notify::to(&name)).transpose() {
            Ok(notify) => notify.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET names no socket");
                Notify::default()
            }
        };
        let ours = read("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let every = read("WATCHDOG_USEC").filter(|_| ours).and_then(|micros| micros.parse().ok());
        Self { notify, watchdog: every.filter(|micros| *micros > 0).map(Duration::from_micros) }
    }

    /// The gateway serves, or serves by another document.
    pub fn ready(&self) {
        self.notify.tell("READY=1\nSTATUS=serving");
    }

    /// Another document is being put in force.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.notify.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.notify.tell("STOPPING=1\nSTATUS=draining");
    }

    /// The process with this id is the main one from now on.
    pub fn main_process(&self, id: u32) {
        self.notify.tell(&format!("MAINPID={id}"));
    }

    /// Feeds the watchdog, if there is one, for as long as all of `pulses` answer.
    pub(crate) fn watch(self: &Arc<Self>, control: &Handle, pulses: Vec<Arc<Pulse>>) -> Option<JoinHandle<()>> {
        let half = self.watchdog? / 2;
        let manager = Arc::clone(self);
        Some(control.spawn(async move {
            loop {
                if all_answer(&pulses, half / 2).await {
                    manager.notify.tell("WATCHDOG=1");
                }
                tokio::time::sleep(half).await;
            }
        }))
    }
}

/// Whether all answer within so long.
async fn all_answer(pulses: &[Arc<Pulse>], within: Duration) -> bool {
    let until = tokio::time::Instant::now() + within;
    let mut all = true;
    for (worker, pulse) in pulses.iter().enumerate() {
        if !pulse.answers(until).await {
            tracing::error!(worker, "a worker does not answer, so that the watchdog is not told that all is well");
            all = false;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A worker's thread, and a way to block it until something is sent or dropped.
    fn worker() -> (Arc<Pulse>, mpsc::Sender<mpsc::Receiver<()>>) {
        let pulse = Arc::<Pulse>::default();
        let (block, blocked) = mpsc::channel::<mpsc::Receiver<()>>();
        let own = Arc::clone(&pulse);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async move {
                tokio::spawn(async move { own.beat().await });
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    match blocked.try_recv() {
                        Ok(until) => drop(until.recv()),
                        Err(mpsc::TryRecvError::Empty) => {}
                        Err(mpsc::TryRecvError::Disconnected) => return,
                    }
                }
            });
        });
        (pulse, block)
    }

    #[tokio::test]
    async fn one_worker_that_is_stuck_is_enough_to_keep_the_watchdog_hungry() {
        let (well, _keep) = worker();
        let (stuck, block) = worker();
        let pulses = [well, stuck];
        assert!(all_answer(&pulses, Duration::from_secs(10)).await);
        let (release, until) = mpsc::channel();
        block.send(until).unwrap();
        // Until it has come to be blocked, it may answer.
        while all_answer(&pulses, Duration::from_millis(100)).await {}
        assert!(!all_answer(&pulses, Duration::from_millis(100)).await);
        drop(release);
        assert!(all_answer(&pulses, Duration::from_secs(10)).await);
    }
}
