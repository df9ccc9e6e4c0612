//! What became of upgrades that this process had a part in: as the one that took another's place, or as the one that was to be
//! followed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use crate::catalogue;
use crate::render::by_name;

/// What became of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// This process took the place of another one, which left it.
    Succeeded,
    /// This process took the place of another one, which died before it had left it.
    Orphaned,
    /// The process that was to follow did not come to serve, and this one serves on.
    Failed,
}

impl Outcome {
    const NAMES: [&str; 3] = ["succeeded", "orphaned", "failed"];
}

/// Counts of the control plane.
#[derive(Debug, Default)]
pub struct Upgrades([AtomicU64; 3]);

impl Upgrades {
    /// An upgrade is over.
    pub fn count(&self, outcome: Outcome) {
        let [succeeded, orphaned, failed] = &self.0;
        let count = match outcome {
            Outcome::Succeeded => succeeded,
            Outcome::Orphaned => orphaned,
            Outcome::Failed => failed,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn render(&self, out: &mut String) {
        by_name(out, &catalogue::UPGRADES, &Outcome::NAMES, &self.0.each_ref().map(|count| count.load(Relaxed)));
    }
}
