//! What became of reloads of the document, and how many snapshots are in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::catalogue;
use crate::render::{by_name, single};

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The document is in force.
    Applied,
    /// The one before is.
    Refused,
}

/// Counts of the control plane.
#[derive(Debug)]
pub struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    last_is_applied: AtomicBool,
    /// Seconds since 1970.
    last_applied: AtomicU64,
    needs_restart: AtomicBool,
    in_memory: AtomicU64,
    revision: AtomicU64,
    unsaved: AtomicBool,
    stands_in: AtomicBool,
}

impl Reloads {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_is_applied: AtomicBool::new(true),
            last_applied: AtomicU64::new(now.as_secs()),
            needs_restart: AtomicBool::new(false),
            in_memory: AtomicU64::new(1),
            revision: AtomicU64::new(0),
            unsaved: AtomicBool::new(false),
            stands_in: AtomicBool::new(false),
        }
    }

    /// A document was put in force at this time since 1970; `needs_restart` says that not all of it could be.
    pub fn applied(&self, at: Duration, needs_restart: bool) {
        self.applied.fetch_add(1, Relaxed);
        self.last_is_applied.store(true, Relaxed);
        self.last_applied.store(at.as_secs(), Relaxed);
        self.needs_restart.store(needs_restart, Relaxed);
    }

    /// A document was refused.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
        self.last_is_applied.store(false, Relaxed);
    }

    /// This revision is in force, 0 for none: because it could not be written if `unsaved`, in place of the document on disk
    /// if it `stands_in`.
    pub fn revision(&self, number: u64, unsaved: bool, stands_in: bool) {
        self.revision.store(number, Relaxed);
        self.unsaved.store(unsaved, Relaxed);
        self.stands_in.store(stands_in, Relaxed);
    }

    /// So many snapshots are in memory.
    pub fn in_memory(&self, snapshots: usize) {
        self.in_memory.store(snapshots as u64, Relaxed);
    }

    pub(crate) fn render(&self, out: &mut String) {
        let counts = [self.applied.load(Relaxed), self.refused.load(Relaxed)];
        by_name(out, &catalogue::CONFIG_RELOADS, &["applied", "refused"], &counts);
        single(out, &catalogue::CONFIG_LAST_RELOAD, self.last_is_applied.load(Relaxed).into());
        single(out, &catalogue::CONFIG_LAST_SUCCESS, self.last_applied.load(Relaxed));
        single(out, &catalogue::CONFIG_RESTART, self.needs_restart.load(Relaxed).into());
        single(out, &catalogue::CONFIG_REVISION, self.revision.load(Relaxed));
        single(out, &catalogue::CONFIG_UNSAVED, self.unsaved.load(Relaxed).into());
        single(out, &catalogue::CONFIG_STANDS_IN, self.stands_in.load(Relaxed).into());
        single(out, &catalogue::SNAPSHOTS, self.in_memory.load(Relaxed));
    }
}
