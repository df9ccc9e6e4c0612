//! Which task was promised to be woken, so that it is promised once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

/// The task that another part will wake. That part holds its waker for as long, so that what the waker points to is nothing else: the
/// same place is the same task.
#[derive(Debug, Default)]
pub(crate) struct Promised(AtomicUsize);

/// Where no task is; the waker of nobody points there as well.
const NOBODY: usize = 0;

impl Promised {
    pub(crate) fn to(waker: &Waker) -> Self {
        Self(AtomicUsize::new(place(waker)))
    }

    pub(crate) fn remember(&self, waker: &Waker) {
        self.0.store(place(waker), Relaxed);
    }

    pub(crate) fn forget(&self) {
        self.0.store(NOBODY, Relaxed);
    }

    pub(crate) fn is(&self, waker: &Waker) -> bool {
        let place = place(waker);
        place != NOBODY && place == self.0.load(Relaxed)
    }
}

fn place(waker: &Waker) -> usize {
    waker.data().addr()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_task_is_promised_until_it_is_forgotten_and_nobody_ever_is() {
        let [one, other] = [Arc::new(Task), Arc::new(Task)].map(Waker::from);
        let promised = Promised::to(&one);
        assert!(promised.is(&one) && promised.is(&one.clone()) && !promised.is(&other));
        promised.remember(&other);
        assert!(promised.is(&other) && !promised.is(&one));
        promised.forget();
        assert!(!promised.is(&other) && !Promised::to(Waker::noop()).is(Waker::noop()));
    }
}
