//! What becomes of a route's streams when a reload removes the route: WebSockets, event streams, calls of gRPC, long
//! downloads. They hold no snapshot, so that they may go on; or they are told, each worker's by itself, and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use pylon_core::worker::PerWorker;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the streams of a route that a reload removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRemoval {
    /// They go on to their own end.
    #[default]
    Keep,
    /// They end a second later, so that their clients see that they are not complete.
    Close,
}

/// The streams of a route that end with it, from its first document to its last.
#[derive(Debug, Default)]
pub struct Streams(PerWorker<Arc<Leaving>>);

impl Streams {
    /// Ends all that are under way.
    pub fn end(&self) {
        self.0.each(|_, leaving| leaving.end());
    }

    /// Whether they have been told to end.
    pub fn have_ended(&self) -> bool {
        self.0.with(|leaving| leaving.told.load(Ordering::Acquire))
    }

    /// A place for a stream of the current worker.
    pub(crate) fn begin(&self) -> Stay {
        Stay { leaving: self.0.with(|leaving| Arc::clone(leaving)), place: None }
    }
}

/// Streams of one worker, and whether they have to end.
#[derive(Debug, Default)]
struct Leaving {
    told: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// Who is to be woken.
#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Leaving {
    fn end(&self) {
        self.told.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *self.waiting.lock()).wakers;
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The place of one stream, which ends with its route.
#[derive(Debug)]
pub(crate) struct Stay {
    leaving: Arc<Leaving>,
    place: Option<usize>,
}

impl Stay {
    /// Ready when the stream has to end.
    pub(crate) fn poll_over(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.leaving.told.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut waiting = self.leaving.waiting.lock();
        // Under the lock: whoever tells takes the wakers after it has said so.
        if self.leaving.told.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        match self.place.and_then(|place| waiting.wakers.get_mut(place)) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(none) => *none = Some(cx.waker().clone()),
            None => {
                let waker = Some(cx.waker().clone());
                let place = waiting.free.pop().unwrap_or(waiting.wakers.len());
                match waiting.wakers.get_mut(place) {
                    Some(free) => *free = waker,
                    None => waiting.wakers.push(waker),
                }
                self.place = Some(place);
            }
        }
        Poll::Pending
    }

    /// Whether it has to end.
    pub(crate) fn is_over(&self) -> bool {
        self.leaving.told.load(Ordering::Acquire)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut waiting = self.leaving.waiting.lock();
        if let Some(waker) = waiting.wakers.get_mut(place) {
            *waker = None;
            waiting.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_woken_once_and_places_are_used_again() {
        let streams = Streams::default();
        let cx = Context::from_waker(Waker::noop());
        let mut stays: Vec<_> = (0..3).map(|_| streams.begin()).collect();
        assert!(stays.iter_mut().all(|stay| stay.poll_over(&cx).is_pending() && stay.poll_over(&cx).is_pending()));
        stays.pop();
        let mut next = streams.begin();
        assert!(next.poll_over(&cx).is_pending() && next.place == Some(2));
        assert!(!streams.have_ended());
        streams.end();
        assert!(streams.have_ended() && next.is_over() && next.poll_over(&cx).is_ready());
        drop(stays);
        assert!(streams.begin().poll_over(&cx).is_ready(), "who comes later finds it so");
    }
}
