//! Counts the instructions that a request costs, by callgrind: the steadiest figure there is, the same on every run.
//!
//! Each program runs twice, with fewer and with more requests on one kept-alive connection; the difference of the two
//! counts over the difference of the requests leaves the start and the end of the program out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::client::Client;
use crate::bench::machine::Processors;
use crate::bench::programs::{self, Program};
use crate::bench::stage::Stage;
use crate::shell;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many requests the longer of the two runs sends more than the shorter
    #[arg(long, default_value_t = 2_000)]
    requests: u32,
    /// Count nginx the same way
    #[arg(long)]
    peers: bool,
    /// Leave pylon out: tries the count itself
    #[arg(long, requires = "peers")]
    peers_only: bool,
    /// Show the functions that cost most by themselves
    #[arg(long)]
    top: bool,
}

/// Requests before anything counts: pools, arenas and lazy tables are filled by then.
const WARM: u32 = 500;

/// How many functions `--top` shows.
const TOP: usize = 25;

/// A program under valgrind runs some fifty times slower.
const PATIENCE: Duration = Duration::from_mins(1);

/// Instructions of a run: all of them, and by function.
#[derive(Debug)]
struct Count {
    all: u64,
    functions: HashMap<String, u64>,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.requests == 0 {
        bail!("no requests, no count");
    }
    programs::install(&[Program::Nginx], &["nginx", "valgrind", "taskset", "prlimit"])?;
    let mut programs = Vec::new();
    if !options.peers_only {
        programs::build_pylon()?;
        programs.push(Program::Pylon);
    }
    if options.peers {
        programs.push(Program::Nginx);
    }
    let processors = Processors::split()?;
    processors.settle()?;
    let stage = Stage::set("count", processors)?;
    println!("| program | instructions per request, 100 B, log and metrics on |\n|---|---|");
    let mut tops = String::new();
    for program in programs {
        let few = count(&stage, program, WARM)?;
        let many = count(&stage, program, WARM + options.requests)?;
        let each = |few: u64, many: u64| many.saturating_sub(few) / u64::from(options.requests);
        println!("| {} | {} |", program.name(), each(few.all, many.all));
        let mut costs: Vec<(u64, &String)> = many
            .functions
            .iter()
            .map(|(name, cost)| (each(few.functions.get(name).copied().unwrap_or(0), *cost), name))
            .collect();
        costs.sort_by(|a, b| b.cmp(a));
        tops.extend([format!("\n{}, by function itself:\n", program.name())]);
        tops.extend(costs.iter().take(TOP).map(|(cost, name)| format!("{cost:>8}  {name}\n")));
    }
    if options.top {
        print!("{tops}");
    }
    Ok(true)
}

/// One run of a program under callgrind.
fn count(stage: &Stage, program: Program, requests: u32) -> Result<Count> {
    let home = stage.home.join(format!("{}-{requests}", program.name()));
    // What an earlier count left would be taken for this one's.
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let valgrind = shell::find("valgrind").context("valgrind is not installed: ./test --install-bench")?;
    let out = format!("--callgrind-out-file={}", home.join("out.%p").display());
    let under = [&valgrind.display().to_string(), "--tool=callgrind", "--trace-children=no", &out].map(str::to_owned);
    let running = stage.spawn(program, program.template(true), &under)?;
    running.first_answer("/s", PATIENCE)?;
    let mut client = Client::connect(running.port)?;
    for _ in 0..requests {
        let answer = client.get("/s")?;
        if answer.status != 200 || answer.body.len() != 100 {
            bail!("{} answered with {} and {} bytes", program.name(), answer.status, answer.body.len());
        }
    }
    drop(client);
    running.end()?;
    sum(&home)
}

/// Adds up what the processes of a program left: a master and its worker have a file each.
fn sum(home: &Path) -> Result<Count> {
    let mut count = Count { all: 0, functions: HashMap::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(home)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    for file in files {
        let mut annotate = Command::new("callgrind_annotate");
        annotate.args(["--threshold=100", "--auto=no"]).arg(&file);
        let text = shell::output(&mut annotate)?;
        for (cost, name) in text.lines().filter_map(line) {
            match name {
                "PROGRAM TOTALS" => count.all += cost,
                name => *count.functions.entry(name.to_owned()).or_default() += cost,
            }
        }
    }
    if count.all == 0 {
        bail!("callgrind left no count in {}", home.display());
    }
    Ok(count)
}

/// The cost and the name in a line such as `12,345 (1.2%)  file.c:function [object]`.
fn line(line: &str) -> Option<(u64, &str)> {
    let (cost, rest) = line.trim_start().split_once(' ')?;
    let cost = cost.replace(',', "").parse().ok()?;
    let (_, name) = rest.split_once("%)")?;
    let name = name.trim();
    // The file of a function says little in a stripped binary, and its object is always the same.
    let name = name.split_once(" [").map_or(name, |(name, _)| name);
    Some((cost, name.strip_prefix("???:").unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines_of_callgrind_are_read() {
        assert_eq!(line("12,345 (100.0%)  PROGRAM TOTALS"), Some((12_345, "PROGRAM TOTALS")));
        assert_eq!(line(" 1,200 ( 9.7%)  ???:pylon_route::find [target/pylon]"), Some((1_200, "pylon_route::find")));
        assert_eq!(line("Ir  file:function"), None);
        assert_eq!(line("--------"), None);
    }
}
