//! What workers tell of the attempts at an endpoint: successes each for itself, failures in a row at once for all.
//!
//! A success costs three additions to counters that no other worker writes, and one load of the row, which is written only where
//! it is not zero.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pylon_core::worker;

use super::judge::{Judge, Sums};

/// What is held of all endpoints of one upstream. It outlives snapshots and is each world's own.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    all: Mutex<HashMap<Arc<str>, Arc<Tally>>>,
    pub(crate) judge: Mutex<Judge>,
}

/// What workers count at one endpoint.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Failures in a row, over all workers.
    row: AtomicU32,
    slots: Box<[Arc<Slot>]>,
    /// The sums when they were looked at last.
    seen: Mutex<Sums>,
}

/// What one worker counts at one endpoint. Its reference count is written by that worker alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    attempts: AtomicU64,
    failures: AtomicU64,
    micros: AtomicU64,
}

impl Tallies {
    /// The tally of the endpoint with this id.
    pub(crate) fn of(&self, id: &Arc<str>) -> Arc<Tally> {
        Arc::clone(self.all.lock().entry(Arc::clone(id)).or_insert_with(|| Arc::new(Tally::new())))
    }

    /// What came of an endpoint since this was asked last.
    pub(crate) fn news(&self, id: &str) -> Sums {
        let tally = self.all.lock().get(id).map(Arc::clone);
        tally.map(|tally| tally.news()).unwrap_or_default()
    }

    /// These are the endpoints now.
    pub(crate) fn these(&self, ids: &[Arc<str>]) {
        self.all.lock().retain(|id, tally| ids.contains(id) || Arc::strong_count(tally) > 1);
        self.judge.lock().these(ids);
    }
}

impl Tally {
    fn new() -> Self {
        let slots = (0..=worker::count()).map(|_| Arc::default()).collect();
        Self { row: AtomicU32::new(0), slots, seen: Mutex::default() }
    }

    /// The slot of the current worker.
    pub(crate) fn mine(&self) -> Option<&Arc<Slot>> {
        let last = self.slots.len().saturating_sub(1);
        self.slots.get(worker::current().map_or(last, |id| id.min(last)))
    }

    /// An attempt was answered.
    pub(crate) fn passed(&self, slot: &Slot, took: Duration) {
        slot.attempts.fetch_add(1, Relaxed);
        slot.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if self.row.load(Relaxed) != 0 {
            self.row.store(0, Relaxed);
        }
    }

    /// An attempt failed. Answers with how many have in a row.
    pub(crate) fn failed(&self, slot: &Slot) -> u32 {
        slot.attempts.fetch_add(1, Relaxed);
        slot.failures.fetch_add(1, Relaxed);
        self.row.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// It begins anew.
    pub(crate) fn forgive(&self) {
        self.row.store(0, Relaxed);
    }

    /// What all workers have counted since this was asked last.
    pub(crate) fn news(&self) -> Sums {
        let read = |slot: &Arc<Slot>| Sums {
            attempts: slot.attempts.load(Relaxed),
            failures: slot.failures.load(Relaxed),
            micros: slot.micros.load(Relaxed),
        };
        let now = self.slots.iter().map(read).fold(Sums::default(), Sums::plus);
        let before = std::mem::replace(&mut *self.seen.lock(), now);
        now.since(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_the_row_and_all_workers_are_summed_once() {
        let tallies = Tallies::default();
        let tally = tallies.of(&Arc::from("a"));
        let slot = tally.mine().unwrap();
        assert_eq!([tally.failed(slot), tally.failed(slot)], [1, 2]);
        tally.passed(slot, Duration::from_millis(3));
        assert_eq!(tally.failed(&tally.slots[0]), 1);
        assert_eq!(tally.news(), Sums { attempts: 4, failures: 3, micros: 3000 });
        assert_eq!(tally.news(), Sums::default());
        tally.forgive();
        assert_eq!(tally.failed(slot), 1);
    }
}
