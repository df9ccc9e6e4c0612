//! Reads what the kernel knows of a process and of a processor (`proc(5)`). Times are clock ticks of 10 ms.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The kernel counts the time of a process exactly and shows it in ticks: 100 a second on every Linux.
pub(crate) const TICKS_A_SECOND: f64 = 100.0;

/// How the processors are shared: what is measured on one, load and service on the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    pub(crate) proxy: usize,
    pub(crate) load: usize,
}

impl Processors {
    pub(crate) fn split() -> Result<Self> {
        let all = std::thread::available_parallelism()?.get();
        if all < 2 {
            bail!("a bench needs two processors: one for the proxy, one for load and service");
        }
        Ok(Self { proxy: 0, load: all - 1 })
    }

    /// Moves this very program beside the load and lets it open many files; what it starts inherits both.
    pub(crate) fn settle(self) -> Result<()> {
        let own = std::process::id().to_string();
        let load = self.load.to_string();
        shell::run(Command::new("taskset").args(["--all-tasks", "-cp", &load, &own]).stdout(Stdio::null()))?;
        raise_files().map(drop)
    }
}

/// Lets this very program, and what it starts, open many files; answers how many.
pub(crate) fn raise_files() -> Result<u64> {
    let limits = fs::read_to_string("/proc/self/limits").context("cannot read /proc/self/limits")?;
    let files = open_files(&limits).context("the kernel tells no limit of open files")?;
    let own = std::process::id().to_string();
    shell::run(Command::new("prlimit").args(["--pid", &own, &format!("--nofile={files}:")]))?;
    Ok(files)
}

/// How many files we may open: as many as we want, or as the system lets us. A proxy has two for a connection.
fn open_files(limits: &str) -> Option<u64> {
    const WANTED: u64 = 40_000;
    let hard = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().nth(1)?;
    Some(hard.parse().map_or(WANTED, |hard: u64| hard.min(WANTED)))
}

/// The ticks that one processor has spent, since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processor {
    pub(crate) busy: u64,
    pub(crate) stolen: u64,
    pub(crate) total: u64,
}

impl Processor {
    pub(crate) fn read(number: usize) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&text, number).with_context(|| format!("/proc/stat does not know cpu{number}"))
    }

    fn parse(text: &str, number: usize) -> Option<Self> {
        let name = format!("cpu{number} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[user, nice, system, idle, wait, hard, soft, stolen, ..] = ticks.as_slice() else { return None };
        let busy = user + nice + system + hard + soft;
        Some(Self { busy, stolen, total: busy + idle + wait + stolen })
    }
}

/// Watches for others that take the processors away while something is measured.
#[derive(Debug)]
pub(crate) struct Watch {
    processors: Processors,
    taken: u64,
    start: Instant,
}

impl Watch {
    pub(crate) fn begin(processors: Processors) -> Result<Self> {
        Ok(Self { processors, taken: taken(processors)?, start: Instant::now() })
    }

    /// The share of both processors that others took since, in percent.
    pub(crate) fn end(&self) -> Result<f64> {
        let taken = taken(self.processors)?.saturating_sub(self.taken) as f64;
        Ok(taken / (2.0 * TICKS_A_SECOND * self.start.elapsed().as_secs_f64()) * 100.0)
    }
}

/// The ticks of both processors that went neither to us and ours nor to nobody.
fn taken(processors: Processors) -> Result<u64> {
    let (proxy, load) = (Processor::read(processors.proxy)?, Processor::read(processors.load)?);
    let all = proxy.busy + proxy.stolen + load.busy + load.stolen;
    Ok(all.saturating_sub(usage(std::process::id())?.ticks))
}

/// A process and what it started: time in ticks, memory in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) ticks: u64,
    pub(crate) resident: u64,
}

pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in family(pid)? {
        // A child may be gone by now; the process itself is asked after by whoever holds it.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        sum.ticks += ticks(&stat).unwrap_or(0);
        sum.resident += resident(&status).unwrap_or(0);
    }
    Ok(sum)
}

/// The process and all below it.
pub(crate) fn family(pid: u32) -> Result<Vec<u32>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        if let Some(parent) = fields(&stat).and_then(|mut fields| fields.nth(1)?.parse().ok()) {
            pairs.push((child, parent));
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(pairs.iter().filter(|(_, above)| *above == parent).map(|(child, _): &(u32, u32)| *child));
        next += 1;
    }
    Ok(family)
}

/// The fields behind the name of the program, which may itself hold blanks and brackets; the first is the state.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace())
}

fn ticks(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Processor, open_files, resident, ticks, usage};

    #[test]
    fn the_times_of_a_process_are_its_user_and_system_ticks() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 70 30 5 6 20 0 3 0 1000 1 2";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2048));
    }

    #[test]
    fn the_times_of_a_processor_tell_stolen_from_busy() {
        let text = "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 10 1 20 100 5 2 3 7 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(Processor::parse(text, 0), Some(Processor { busy: 36, stolen: 7, total: 148 }));
        assert_eq!(Processor::parse(text, 2), None);
    }

    #[test]
    fn as_many_files_are_opened_as_the_system_allows() {
        let limits =
            |hard: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  {hard}  files\n");
        assert_eq!(open_files(&limits("20000")), Some(20_000));
        assert_eq!(open_files(&limits("1048576")), Some(40_000));
        assert_eq!(open_files(&limits("unlimited")), Some(40_000));
    }

    #[test]
    fn a_living_process_takes_memory() {
        assert!(usage(std::process::id()).is_ok_and(|usage| usage.resident > 0));
    }
}
