//! Counts the instructions that a request costs, by callgrind: the steadiest figure there is, the same on every run.
//!
//! Each program runs twice, with fewer and with more requests in turn on a few kept-alive connections; the difference of the
//! two counts over the difference of the requests leaves the start and the end of the program out. What resilience may cost,
//! a second worker, and policies whose callers were seen before, stands in the bars below.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::client::Client;
use crate::bench::machine::Processors;
use crate::bench::policies;
use crate::bench::programs::{self, Program};
use crate::bench::stage::Stage;
use crate::{dist, shell};

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

/// How many connections the requests take turns on: enough that two workers have some each.
const CONNECTIONS: usize = 8;

/// What is counted.
#[derive(Debug, Clone, Copy)]
struct Row {
    name: &'static str,
    program: Program,
    template: &'static str,
    /// Its callers show who they are, and the origin of their page.
    shown: bool,
}

const PLAIN: &str = "pylon";
const SHOWN: &str = "pylon, credentials unread";
const TWO_WORKERS: &str = "pylon, two workers";
const ROWS: &[Row] = &[
    Row::ours(PLAIN, "bench/documents/log.yaml"),
    Row::ours("pylon, resilient", "bench/documents/resilient.yaml"),
    Row::ours(TWO_WORKERS, "bench/documents/two-workers.yaml"),
    Row { shown: true, ..Row::ours(SHOWN, "bench/documents/log.yaml") },
    Row { shown: true, ..Row::ours("pylon, jwt", "bench/documents/jwt.yaml") },
    Row { shown: true, ..Row::ours("pylon, api_key", "bench/documents/api-key.yaml") },
    Row { shown: true, ..Row::ours("pylon, cors", "bench/documents/cors.yaml") },
];
const NGINX: Row = Row { name: "nginx", program: Program::Nginx, template: "bench/peers/nginx-log.conf", shown: false };

/// How many more instructions than another row one may cost.
const BARS: &[(&str, &str, u64)] = &[
    // Health checks, breakers, balancing by EWMA and a budget for retries.
    ("pylon, resilient", PLAIN, 1_500),
    // A token that was good before.
    ("pylon, jwt", SHOWN, 5_000),
    ("pylon, api_key", SHOWN, 3_000),
    ("pylon, cors", SHOWN, 1_500),
];
/// What a request may cost with two workers, in percent of what it costs with one.
const MOST_FOR_A_WORKER: u64 = 102;

impl Row {
    const fn ours(name: &'static str, template: &'static str) -> Self {
        Self { name, program: Program::Pylon, template, shown: false }
    }
}

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
    let mut rows = Vec::new();
    if !options.peers_only {
        programs::run_ours(&dist::build_untrained()?)?;
        rows.extend(ROWS);
    }
    if options.peers {
        rows.push(&NGINX);
    }
    let processors = Processors::split()?;
    processors.settle()?;
    let stage = Stage::set("count", processors)?;
    println!("| program | instructions per request, 100 B, log and metrics on |\n|---|---|");
    let shown = policies::shown(&stage.home)?;
    let (mut costs, mut tops) = (HashMap::new(), String::new());
    for row in rows {
        let shown = if row.shown { shown.as_slice() } else { &[] };
        let few = count(&stage, row, shown, WARM)?;
        let many = count(&stage, row, shown, WARM + options.requests)?;
        let each = |few: u64, many: u64| many.saturating_sub(few) / u64::from(options.requests);
        let cost = each(few.all, many.all);
        println!("| {} | {cost} |", row.name);
        costs.insert(row.name, cost);
        let functions = many.functions.iter();
        let mut by_function: Vec<(u64, &String)> =
            functions.map(|(name, cost)| (each(few.functions.get(name).copied().unwrap_or(0), *cost), name)).collect();
        by_function.sort_by(|a, b| b.cmp(a));
        tops.extend([format!("\n{}, by function itself:\n", row.name)]);
        tops.extend(by_function.iter().take(TOP).map(|(cost, name)| format!("{cost:>8}  {name}\n")));
    }
    if options.top {
        print!("{tops}");
    }
    Ok(options.peers_only || bars(&costs))
}

/// Says whether nothing costs more than it may.
fn bars(costs: &HashMap<&str, u64>) -> bool {
    let cost = |name: &str| costs.get(name).copied().unwrap_or(u64::MAX);
    let judge = |kept: bool| if kept { "cleared" } else { "**missed**" };
    println!("\n| bar | wanted | counted |  |\n|---|---|---|---|");
    let mut kept = true;
    for (name, than, most) in BARS {
        let added = cost(name).saturating_sub(cost(than));
        println!("| {name} - {than} | ≤ {most} | {added} | {} |", judge(added <= *most));
        kept &= added <= *most;
    }
    let share = cost(TWO_WORKERS).saturating_mul(10_000).checked_div(cost(PLAIN)).unwrap_or(u64::MAX);
    let alone = share <= MOST_FOR_A_WORKER.saturating_mul(100);
    let (whole, part) = (share / 100, share % 100);
    println!("| {TWO_WORKERS} ÷ {PLAIN}, % | ≤ {MOST_FOR_A_WORKER} | {whole}.{part:02} | {} |", judge(alone));
    kept && alone
}

/// One run of a program under callgrind.
fn count(stage: &Stage, row: &Row, shown: &[(String, String)], requests: u32) -> Result<Count> {
    let home = stage.home.join(format!("{}-{requests}", row.name.replace([',', ' '], "")));
    // What an earlier count left would be taken for this one's.
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let valgrind = shell::find("valgrind").context("valgrind is not installed: ./test --install-bench")?;
    let out = format!("--callgrind-out-file={}", home.join("out.%p").display());
    let under = [&valgrind.display().to_string(), "--tool=callgrind", "--trace-children=no", &out].map(str::to_owned);
    let running = stage.spawn(row.program, row.template, &under)?;
    running.wait_until_it_listens_for(PATIENCE)?;
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(running.port)).collect::<Result<_>>()?;
    for (client, _) in (0..CONNECTIONS).cycle().zip(0..requests) {
        let Some(client) = clients.get_mut(client) else { continue };
        let answer = client.get_with("/s", shown)?;
        if answer.status != 200 || answer.body.len() != 100 {
            bail!("{} answered with {} and {} bytes", row.name, answer.status, answer.body.len());
        }
    }
    drop(clients);
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
