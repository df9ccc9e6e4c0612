//! The snapshot in force, and how each worker keeps it at hand without writing a count that all workers share.
//!
//! While a document is rolled out there are two: the stable one and a candidate, which a share of the clients meets. Which of
//! the two a client meets is settled by a hash of its address (for IPv6 of its /64) and of the candidate: the same on every
//! worker and node, and for as long as the share stands. A share that grows moves only the clients that it gains.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::units::Percent;
use smallvec::{SmallVec, smallvec};

use crate::snapshot::Snapshot;

/// Which snapshot serves. Swapped whole; a request that has begun stays with the one that it met.
#[derive(Debug)]
pub struct World {
    stage: ArcSwap<Stage>,
    generation: AtomicU64,
    /// Snapshots that were in force, until nobody else holds them: so that no worker spends its time on taking one apart.
    /// Its lock is held by whoever changes the stage.
    past: Mutex<Vec<Arc<Snapshot>>>,
}

/// What serves.
#[derive(Debug, Clone)]
pub enum Stage {
    /// One snapshot.
    Steady(Arc<Snapshot>),
    /// Two of them, each whole.
    Rolling {
        /// What most clients meet.
        stable: Arc<Snapshot>,
        /// What is being tried.
        candidate: Arc<Snapshot>,
        /// How many of the clients meet the candidate.
        share: Percent,
    },
}

impl Stage {
    /// The snapshot that is in force until a candidate is promoted.
    pub fn stable(&self) -> &Arc<Snapshot> {
        match self {
            Self::Steady(stable) | Self::Rolling { stable, .. } => stable,
        }
    }

    /// The one that a client meets.
    pub fn met_by(&self, client: IpAddr) -> &Arc<Snapshot> {
        match self {
            Self::Rolling { candidate, share, .. } if Lot::of(candidate, *share).takes(client) => candidate,
            _ => self.stable(),
        }
    }

    /// All that serve, the stable one first.
    pub fn all(&self) -> SmallVec<[Arc<Snapshot>; 2]> {
        match self {
            Self::Steady(stable) => smallvec![Arc::clone(stable)],
            Self::Rolling { stable, candidate, .. } => smallvec![Arc::clone(stable), Arc::clone(candidate)],
        }
    }
}

impl World {
    /// A world with its first snapshot.
    pub fn new(first: Snapshot) -> Self {
        let stage = ArcSwap::from_pointee(Stage::Steady(Arc::new(first)));
        Self { stage, generation: AtomicU64::new(1), past: Mutex::default() }
    }

    /// The snapshot in force, the stable one of two: for the control plane. Workers have a view of their own.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(self.stage.load().stable())
    }

    /// What serves: for the control plane.
    pub fn stage(&self) -> Stage {
        (**self.stage.load()).clone()
    }

    /// Puts `next` in force for all requests that begin from now on. A candidate is given up.
    pub fn swap(&self, next: Snapshot) {
        let next = Arc::new(next);
        self.change(|_| Some(Stage::Steady(next)));
    }

    /// Lets a share of the clients meet `candidate` from now on, in place of a candidate that there may be.
    pub fn roll(&self, candidate: Snapshot, share: Percent) {
        let candidate = Arc::new(candidate);
        self.change(|stage| Some(Stage::Rolling { stable: Arc::clone(stage.stable()), candidate, share }));
    }

    /// Lets another share of the clients meet the candidate. Answers whether there is one.
    pub fn share(&self, share: Percent) -> bool {
        self.change(|stage| match stage.clone() {
            Stage::Steady(_) => None,
            Stage::Rolling { stable, candidate, .. } => Some(Stage::Rolling { stable, candidate, share }),
        })
    }

    /// Puts the candidate in force for all. Answers whether there is one.
    pub fn promote(&self) -> bool {
        self.change(|stage| match stage {
            Stage::Steady(_) => None,
            Stage::Rolling { candidate, .. } => Some(Stage::Steady(Arc::clone(candidate))),
        })
    }

    /// Gives the candidate up. Answers whether there is one.
    pub fn take_back(&self) -> bool {
        self.change(|stage| match stage {
            Stage::Steady(_) => None,
            Stage::Rolling { stable, .. } => Some(Stage::Steady(Arc::clone(stable))),
        })
    }

    fn change(&self, next: impl FnOnce(&Stage) -> Option<Stage>) -> bool {
        let mut past = self.past.lock();
        let Some(next) = next(&self.stage.load()) else { return false };
        let kept = next.all();
        let before = self.stage.swap(Arc::new(next));
        self.generation.fetch_add(1, Ordering::Release);
        let gone = before.all().into_iter().filter(|old| kept.iter().all(|kept| !Arc::ptr_eq(kept, old)));
        past.extend(gone);
        true
    }

    /// Takes apart the snapshots before that no request holds any more. Answers how many are left with those in force.
    /// Takes its time with a large one: not for a worker.
    pub fn clear(&self) -> usize {
        let (left, gone): (Vec<_>, Vec<_>) =
            self.past.lock().drain(..).partition(|snapshot| Arc::strong_count(snapshot) > 1);
        drop(gone);
        let mut past = self.past.lock();
        past.extend(left);
        past.len() + self.stage.load().all().len()
    }
}

/// One worker's view of the world: its own counts around the shared ones, renewed when the generation has changed.
#[derive(Debug)]
pub(crate) struct View {
    generation: u64,
    stable: Arc<Pinned>,
    candidate: Option<Candidate>,
}

/// What is being tried, as one worker sees it.
#[derive(Debug)]
struct Candidate {
    pinned: Arc<Pinned>,
    lot: Lot,
}

/// Which clients meet a candidate.
#[derive(Debug)]
struct Lot {
    /// Those whose point lies below; points go from 0 to 9,999.
    below: u16,
    salt: u64,
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
        let pin = |snapshot: &Arc<Snapshot>| Arc::new(Pinned(Arc::clone(snapshot)));
        let stage = world.stage.load();
        let candidate = match &**stage {
            Stage::Steady(_) => None,
            Stage::Rolling { candidate, share, .. } => {
                Some(Candidate { pinned: pin(candidate), lot: Lot::of(candidate, *share) })
            }
        };
        Self { generation, stable: pin(stage.stable()), candidate }
    }

    /// The snapshot for a request that begins now. Its client is asked for only where there are two, with the stable one, by
    /// whose word proxies are trusted.
    pub(crate) fn pick(&mut self, world: &World, client: impl FnOnce(&Snapshot) -> IpAddr) -> Arc<Pinned> {
        if world.generation.load(Ordering::Acquire) != self.generation {
            *self = Self::new(world);
        }
        match &self.candidate {
            None => Arc::clone(&self.stable),
            Some(candidate) if candidate.lot.takes(client(&self.stable)) => Arc::clone(&candidate.pinned),
            Some(_) => Arc::clone(&self.stable),
        }
    }

    /// Takes up what is in force.
    pub(crate) fn renew(&mut self, world: &World) {
        if world.generation.load(Ordering::Acquire) != self.generation {
            *self = Self::new(world);
        }
    }
}

impl Lot {
    fn of(candidate: &Snapshot, share: Percent) -> Self {
        Self { below: share.basis_points(), salt: hash_of(&candidate.hash) }
    }

    fn takes(&self, client: IpAddr) -> bool {
        // A client with IPv6 changes its address within its network as it likes.
        let client = match client.to_canonical() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        hash_of((self.salt, client)) % 10_000 < u64::from(self.below)
    }
}

/// SipHash with fixed keys: the same in all processes of one build, and even.
fn hash_of(key: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
