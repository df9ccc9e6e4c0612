//! Slots by worker: state that each data-plane worker has for itself, so that no request waits for another core.
//!
//! Workers are numbered from 0. Threads that are no worker (control plane, tests) share the last slot.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

static WORKERS: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Says how many data-plane workers the process has; called once, before any [`PerWorker`] is made.
pub fn set_count(workers: usize) {
    WORKERS.store(workers.max(1), Ordering::Relaxed);
}

/// How many data-plane workers the process has, at least 1.
pub fn count() -> usize {
    WORKERS.load(Ordering::Relaxed)
}

/// Makes the current thread worker `id`.
pub fn enter(id: usize) {
    CURRENT.set(id);
}

/// The number of the current worker, or none on a thread of the control plane.
pub fn current() -> Option<usize> {
    let id = CURRENT.get();
    (id != usize::MAX).then_some(id)
}

/// One `T` for each worker and one for the control plane, each on cache lines of its own.
///
/// The lock of a slot is taken by its own worker alone, but for the rare look of the admin API: it is uncontended
/// and never held across an await.
#[derive(Debug)]
pub struct PerWorker<T> {
    slots: Box<[Padded<T>]>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(Mutex<T>);

impl<T> PerWorker<T> {
    /// A slot for each worker, filled by `make(worker)`.
    pub fn new(make: impl FnMut(usize) -> T) -> Self {
        Self { slots: (0..=count()).map(make).map(|slot| Padded(Mutex::new(slot))).collect() }
    }

    /// Works on the slot of the current worker.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let last = self.slots.len() - 1;
        let index = CURRENT.get().min(last);
        #[expect(
            clippy::indexing_slicing,
            reason = "there is always at least one slot and the index is capped to the last"
        )]
        let slot = &self.slots[index];
        work(&mut slot.0.lock())
    }

    /// Works on every slot in turn: for the admin API and for sweeps, not for the path of a request.
    pub fn each(&self, mut work: impl FnMut(usize, &mut T)) {
        for (index, slot) in self.slots.iter().enumerate() {
            work(index, &mut slot.0.lock());
        }
    }
}

impl<T: Default> Default for PerWorker<T> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_sees_its_own_slot_and_strangers_share_the_last() {
        let slots = PerWorker::new(|_| 0_u32);
        slots.with(|n| *n += 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                enter(0);
                slots.with(|n| *n += 10);
            });
        });
        let mut seen = Vec::new();
        slots.each(|_, n| seen.push(*n));
        assert_eq!(seen.first(), Some(&10));
        assert_eq!(seen.last(), Some(&1));
    }
}
