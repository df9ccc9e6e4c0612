//! The snapshot in force, and how each worker keeps it at hand without writing a count that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::snapshot::Snapshot;

/// Which snapshot serves. Swapped whole; a request that has begun stays with the one that it met.
#[derive(Debug)]
pub struct World {
    current: ArcSwap<Snapshot>,
    generation: AtomicU64,
    /// Snapshots that were in force, until nobody else holds them: so that no worker spends its time on taking one apart.
    past: Mutex<Vec<Arc<Snapshot>>>,
}

impl World {
    /// A world with its first snapshot.
    pub fn new(first: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(first), generation: AtomicU64::new(1), past: Mutex::default() }
    }

    /// The snapshot in force: for the control plane. Workers have a view of their own.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Puts `next` in force for all requests that begin from now on.
    pub fn swap(&self, next: Snapshot) {
        let before = self.current.swap(Arc::new(next));
        self.generation.fetch_add(1, Ordering::Release);
        self.past.lock().push(before);
    }

    /// Takes apart the snapshots before that no request holds any more. Answers how many are left with the one in force.
    /// Takes its time with a large one: not for a worker.
    pub fn clear(&self) -> usize {
        let (left, gone): (Vec<_>, Vec<_>) =
            self.past.lock().drain(..).partition(|snapshot| Arc::strong_count(snapshot) > 1);
        drop(gone);
        let mut past = self.past.lock();
        past.extend(left);
        past.len() + 1
    }
}

/// One worker's view of the world: its own count around the shared one, renewed when the generation has changed.
#[derive(Debug)]
pub(crate) struct View {
    generation: u64,
    pinned: Arc<Pinned>,
}

/// A snapshot held by one worker.
#[derive(Debug)]
pub(crate) struct Pinned(Arc<Snapshot>);

impl std::ops::Deref for Pinned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl View {
    pub(crate) fn new(world: &World) -> Self {
        let generation = world.generation.load(Ordering::Acquire);
        Self { generation, pinned: Arc::new(Pinned(world.current())) }
    }

    /// The snapshot for a request that begins now.
    pub(crate) fn pick(&mut self, world: &World) -> Arc<Pinned> {
        if world.generation.load(Ordering::Acquire) != self.generation {
            *self = Self::new(world);
        }
        Arc::clone(&self.pinned)
    }
}
