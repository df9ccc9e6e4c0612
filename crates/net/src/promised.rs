//! Which task was promised to be woken, so that it is promised once.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

/// The task that another part will wake: that part holds its waker, so that the same place is the same task.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    data: AtomicUsize,
    vtable: AtomicUsize,
}

impl Promised {
    pub(crate) fn to(waker: &Waker) -> Self {
        let promised = Self::default();
        promised.remember(waker);
        promised
    }

    pub(crate) fn remember(&self, waker: &Waker) {
        self.data.store(waker.data().addr(), Relaxed);
        self.vtable.store(ptr::from_ref(waker.vtable()).addr(), Relaxed);
    }

    pub(crate) fn forget(&self) {
        self.vtable.store(0, Relaxed);
    }

    pub(crate) fn is(&self, waker: &Waker) -> bool {
        self.data.load(Relaxed) == waker.data().addr()
            && self.vtable.load(Relaxed) == ptr::from_ref(waker.vtable()).addr()
    }
}
