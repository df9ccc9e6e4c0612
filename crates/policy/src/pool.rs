//! Work that takes long enough to hold a worker up is done here: by few threads, in a short queue, within a deadline.
//!
//! Hashes of passwords are slow on purpose. On a worker they would make all its other requests wait; without a bound, whoever sends
//! wrong passwords would have the whole machine.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use parking_lot::Mutex;
use pylon_net::timer::timeout_at;
use tokio::sync::oneshot;

/// How many pieces of work may wait for each thread.
const QUEUE: usize = 16;
/// How many threads there are at most.
const THREADS: usize = 4;

/// The one pool of the process.
pub(crate) static POOL: LazyLock<Pool> = LazyLock::new(Pool::start);

/// Threads, and the work that waits for them.
#[derive(Debug)]
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Why a piece of work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotDone {
    /// Too much is waiting already.
    #[error("too much waits to be computed")]
    Busy,
    /// It was not done in time.
    #[error("it was not computed in time")]
    Late,
}

impl Pool {
    /// Half as many threads as cores, so that workers keep the rest.
    fn start() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2).min(THREADS);
        let (sender, jobs) = sync_channel(threads * QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let jobs = Arc::clone(&jobs);
            let thread = std::thread::Builder::new().name(format!("pool-{number}"));
            if let Err(error) = thread.spawn(move || work(&jobs)) {
                tracing::error!(%error, "a thread for slow work cannot be started");
            }
        }
        Self { jobs: sender }
    }

    /// Does `work` off this thread, if it can be done by `deadline`. Work that nobody waits for any more is not begun.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let (done, outcome) = oneshot::channel();
        let job = Box::new(move || {
            // Who no longer waits, for lack of time or for having gone away, has closed the channel.
            if !done.is_closed() {
                let _gone = done.send(work()).is_err();
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => {}
            // Without a thread nobody takes the work in.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(NotDone::Busy),
        }
        match timeout_at(Some(deadline), outcome).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(NotDone::Late),
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        // A piece of work that panics is one that is not done; the thread goes on.
        let _panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::Duration;

    fn soon() -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn work_is_done_elsewhere_and_its_outcome_comes_back() {
        let (pool, here) = (Pool::start(), std::thread::current().id());
        let there = pool.run(soon(), || std::thread::current().id()).await;
        assert!(there.is_ok_and(|there| there != here));
        assert_eq!(pool.run(soon(), || -> () { panic!("on purpose") }).await, Err(NotDone::Late));
        assert_eq!(pool.run(soon(), || 7).await, Ok(7));
        let long_ago = soon().checked_sub(Duration::from_secs(40)).unwrap();
        assert_eq!(pool.run(long_ago, || 7).await, Err(NotDone::Late));
    }

    #[tokio::test]
    async fn too_much_is_refused_at_once_and_what_nobody_waits_for_is_not_begun() {
        let (pool, begun) = (Pool::start(), Arc::new(AtomicUsize::new(0)));
        let (closed, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut all = Vec::new();
        let busy = loop {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            let mut one = Box::pin(pool.run(soon(), move || {
                begun.fetch_add(1, SeqCst);
                // Until the other end is dropped.
                gate.lock().recv().ok();
            }));
            let polled = std::future::poll_fn(|cx| Poll::Ready(one.as_mut().poll(cx))).await;
            if let Poll::Ready(outcome) = polled {
                break outcome;
            }
            all.push(one);
            assert!(all.len() < 1000, "nothing is ever refused");
        };
        assert_eq!(busy, Err(NotDone::Busy));
        // All clients go away; then the threads go on.
        let waiting = all.len();
        drop(all);
        drop(closed);
        while pool.run(soon(), || ()).await == Err(NotDone::Busy) {
            tokio::task::yield_now().await;
        }
        assert!(begun.load(SeqCst) <= THREADS && waiting > THREADS, "{} of {waiting}", begun.load(SeqCst));
    }
}
