//! Sheds load while memory is short: looks once a second at what is in use, and says so to the workers.
//!
//! Where `limits.memory` is written, the memory of the process counts against it. Otherwise, in a control group with a
//! limit, what the group uses without the files that the kernel could drop counts against nine tenths of that limit:
//! the buffers of sockets are in there, too. Elsewhere nothing is shed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pylon_core::units::ByteSize;
use pylon_net::caps::Caps;
use pylon_observe::metrics::Metrics;
use pylon_observe::process;
use tokio::task::AbortHandle;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many looks in a row find nobody being served before memory is taken to be held by something else.
const QUIET: u32 = 10;
/// Where control groups stand (cgroups(7), version 2).
const GROUPS: &str = "/sys/fs/cgroup";

/// Looks after memory until the answer is aborted, where there is a limit.
pub(crate) fn follow(
    control: &tokio::runtime::Handle,
    written: Option<ByteSize>,
    caps: &Arc<Caps>,
    metrics: &Arc<Metrics>,
) -> Option<AbortHandle> {
    let Some((gauge, limit)) = Gauge::choose(written) else {
        caps.shed(false);
        metrics.sheds(false);
        return None;
    };
    let (caps, metrics) = (Arc::clone(caps), Arc::clone(metrics));
    // Where memory was short by the limit before, it is until the first look has found that there is enough.
    let mut pressure = Pressure::new(limit, caps.is_shedding());
    let looking = control.spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(used) = gauge.used() else { continue };
            let Some(change) = pressure.look(used, metrics.in_flight() > 0) else { continue };
            let (used, limit) = (ByteSize::new(used), ByteSize::new(limit));
            match change {
                Change::Short => tracing::warn!(%used, %limit, "memory is short: new work is turned away"),
                Change::Enough => tracing::info!(%used, %limit, "there is memory again: new work is taken in"),
                Change::NotOurs => {
                    tracing::warn!(%used, %limit, "memory stays short although nobody is served: new work is taken in");
                }
            }
            caps.shed(pressure.is_high());
            metrics.sheds(pressure.is_high());
        }
    });
    Some(looking.abort_handle())
}

/// How memory is measured.
#[derive(Debug, PartialEq, Eq)]
enum Gauge {
    /// What is resident of the process.
    Process,
    /// What the control group in this folder uses.
    Group(PathBuf),
}

impl Gauge {
    /// What to measure, and what to measure it against.
    fn choose(written: Option<ByteSize>) -> Option<(Self, u64)> {
        if let Some(limit) = written {
            return Some((Self::Process, limit.bytes()));
        }
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let (folder, limit) = tightest(Path::new(GROUPS), &own)?;
        Some((Self::Group(folder), limit / 10 * 9))
    }

    fn used(&self) -> Option<u64> {
        match self {
            Self::Process => process::resident(),
            Self::Group(folder) => {
                let current: u64 = std::fs::read_to_string(folder.join("memory.current")).ok()?.trim().parse().ok()?;
                let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
                Some(current.saturating_sub(files.unwrap_or(0)))
            }
        }
    }
}

/// The folder below `root` of the group with the lowest limit among the group of the process, as `/proc/self/cgroup`
/// tells it, and those around it.
fn tightest(root: &Path, own: &str) -> Option<(PathBuf, u64)> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = root.join(own);
    let around = folder.ancestors().take_while(|folder| folder.starts_with(root));
    let limits = around.filter_map(|folder| {
        let limit = std::fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok()?;
        Some((folder.to_owned(), limit))
    });
    limits.min_by_key(|(_, limit)| *limit)
}

/// Whether memory is short. It is from the limit on, until a tenth below it, so that it does not flutter.
#[derive(Debug)]
struct Pressure {
    limit: u64,
    /// The limit, or more where something else than clients holds memory.
    high_at: u64,
    high: bool,
    quiet: u32,
}

/// What a look has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Memory is short.
    Short,
    /// It no longer is.
    Enough,
    /// It still is, but turning clients away does not help.
    NotOurs,
}

impl Pressure {
    fn new(limit: u64, high: bool) -> Self {
        Self { limit, high_at: limit, high, quiet: 0 }
    }

    fn is_high(&self) -> bool {
        self.high
    }

    /// `used` bytes are in use; `busy` says whether anybody is being served.
    fn look(&mut self, used: u64, busy: bool) -> Option<Change> {
        let low = self.limit - self.limit / 10;
        if used < low {
            self.high_at = self.limit;
            return std::mem::take(&mut self.high).then_some(Change::Enough);
        }
        if !self.high {
            self.high = used >= self.high_at;
            self.quiet = 0;
            return self.high.then_some(Change::Short);
        }
        self.quiet = if busy { 0 } else { self.quiet + 1 };
        if self.quiet < QUIET {
            return None;
        }
        // An allocator that gives nothing back, a neighbour in the group: for ever closed would be worse than full.
        self.high = false;
        self.high_at = used.saturating_add(self.limit / 20).max(self.limit);
        Some(Change::NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_at_the_limit_and_ends_a_tenth_below() {
        let mut pressure = Pressure::new(1000, false);
        for (used, change, high) in [
            (999, None, false),
            (1000, Some(Change::Short), true),
            (1200, None, true),
            (950, None, true),
            (900, None, true),
            (899, Some(Change::Enough), false),
            (950, None, false),
            (1000, Some(Change::Short), true),
        ] {
            assert_eq!((pressure.look(used, true), pressure.is_high()), (change, high), "{used}");
        }
    }

    #[test]
    fn what_clients_do_not_hold_closes_the_gate_for_seconds_only() {
        let mut pressure = Pressure::new(1000, false);
        assert_eq!(pressure.look(1100, true), Some(Change::Short));
        assert!((0..100).all(|_| pressure.look(1100, true).is_none()), "while somebody is served, it may yet help");
        assert!((1..QUIET).all(|_| pressure.look(1100, false).is_none()));
        assert_eq!((pressure.look(1100, false), pressure.is_high()), (Some(Change::NotOurs), false));
        // More than that is a shortage again; and once there was enough, the limit is the old one.
        assert_eq!(pressure.look(1149, true), None);
        assert_eq!(pressure.look(1150, true), Some(Change::Short));
        assert_eq!(pressure.look(800, true), Some(Change::Enough));
        assert_eq!(pressure.look(1000, true), Some(Change::Short));
    }

    #[test]
    fn the_tightest_group_around_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("slice/pod/container");
        std::fs::create_dir_all(&inner).unwrap();
        let limit = |folder: &Path, text: &str| std::fs::write(folder.join("memory.max"), text).unwrap();
        assert_eq!(tightest(root.path(), "0::/slice/pod/container\n"), None);
        limit(&inner, "max\n");
        limit(&root.path().join("slice/pod"), "500\n");
        limit(&root.path().join("slice"), "900\n");
        assert_eq!(
            tightest(root.path(), "1:name=x:/y\n0::/slice/pod/container\n"),
            Some((root.path().join("slice/pod"), 500))
        );
        std::fs::write(root.path().join("slice/pod/memory.current"), "450\n").unwrap();
        let group = Gauge::Group(root.path().join("slice/pod"));
        assert_eq!(group.used(), Some(450));
        std::fs::write(root.path().join("slice/pod/memory.stat"), "anon 1\ninactive_file 50\nfile 90\n").unwrap();
        assert_eq!(group.used(), Some(400));
    }
}
