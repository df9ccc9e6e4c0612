//! Runs pylon and its peers side by side under the same load, and holds the figures against the bars of this version.

mod bars;
pub(crate) mod client;
mod figures;
mod latency;
mod load;
pub(crate) mod machine;
pub(crate) mod policies;
pub(crate) mod programs;
mod race;
mod report;
mod rows;
mod scale;
pub(crate) mod stage;
mod training;
mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{dist, shell};
use machine::Processors;
use programs::Program;
use rows::{Row, Setting};
use stage::Stage;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each program runs in a row of the bench
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long each run takes
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// The rows to run; all of them without it
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Whom to run beside pylon
    #[arg(long, value_delimiter = ',', default_values = ["nginx", "haproxy", "envoy"])]
    peers: Vec<Program>,
    /// Leave pylon out and write no page: tries the bench itself
    #[arg(long)]
    peers_only: bool,
    /// Write no page
    #[arg(long)]
    no_page: bool,
    /// Measure this binary of pylon, and build none
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Run this other binary of pylon beside, as `former`, to compare two builds; writes no page
    #[arg(long)]
    against: Option<PathBuf>,
}

/// What puts load on a program, and what holds it to its processor.
const LOADS: &[&str] = &["nginx", "wrk", "h2load", "taskset", "prlimit"];

/// Prints the tables and writes the page; `false` when a bar was missed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.rounds == 0 || options.seconds == 0 {
        bail!("a bench takes at least one round of one second");
    }
    let programs = options.programs();
    programs::install(&programs, LOADS)?;
    match &options.binary {
        Some(binary) => programs::run_ours(binary)?,
        None if options.peers_only => {}
        None => programs::run_ours(&dist::build(&dist::Options::default())?)?,
    }
    if let Some(former) = &options.against {
        programs::run_former(former)?;
    }
    let stage = set_stage("bench")?;
    let setting = Setting { stage: &stage, programs: &programs, rounds: options.rounds, seconds: options.seconds };
    let mut missed = 0;
    for row in options.rows() {
        eprintln!("{}", row.to_possible_value().map_or(String::new(), |value| format!("row {}", value.get_name())));
        let mut section = row.run(&setting)?;
        if let Some((table, of_row)) = bars::judge(&section.figures) {
            section.tables.push(table);
            missed += of_row;
        }
        println!("{section}");
        if !options.peers_only && !options.no_page && options.against.is_none() {
            let page = report::publish(&shell::root()?, &section, &how(options, row, &programs)?)?;
            eprintln!("written to {page}");
        }
    }
    if missed > 0 {
        println!("{missed} bars were missed");
    }
    Ok(missed == 0)
}

fn set_stage(name: &str) -> Result<Stage> {
    let processors = Processors::split()?;
    processors.settle()?;
    Stage::set(name, processors)
}

/// Puts a binary of pylon under load, and measures nothing.
pub(crate) fn train(binary: &Path, seconds: u32) -> Result<()> {
    let programs = [Program::Pylon];
    programs::install(&programs, LOADS)?;
    programs::run_ours(binary)?;
    let stage = set_stage("training")?;
    let setting = Setting { stage: &stage, programs: &programs, rounds: 1, seconds };
    training::run(&setting)
}

impl Options {
    /// Ours first: ratios are taken of the first over the others.
    fn programs(&self) -> Vec<Program> {
        let ours = (!self.peers_only).then_some(Program::Pylon);
        let former = self.against.as_ref().map(|_| Program::Former);
        ours.into_iter()
            .chain(former)
            .chain(self.peers.iter().copied().filter(|peer| *peer != Program::Pylon))
            .collect()
    }

    fn rows(&self) -> Vec<Row> {
        let all = Row::value_variants().iter().copied();
        // Without pylon there is nobody whose routes could be many.
        let fits = |row: &Row| !(self.peers_only && matches!(row, Row::Routes | Row::Change));
        all.filter(|row| self.rows.is_empty() || self.rows.contains(row)).filter(fits).collect()
    }
}

/// The line below a section: command, versions, machine and day.
fn how(options: &Options, row: Row, programs: &[Program]) -> Result<String> {
    let row = row.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
    let binary = options.binary.as_ref().map_or(String::new(), |binary| format!(" --binary {}", binary.display()));
    let (rounds, seconds) = (options.rounds, options.seconds);
    let command = format!("cargo xtask bench{binary} --rounds {rounds} --seconds {seconds} --rows {row}");
    let versions: Vec<String> = programs.iter().map(|program| program.version()).collect::<Result<_>>()?;
    let day = shell::output(Command::new("date").args(["-u", "+%-d %B %Y"]).env("LC_ALL", "C"))?;
    let kernel = shell::output(Command::new("uname").args(["-srm"]))?;
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!("`{command}`, {}; {}; {cores} × {model}, {}.\n", day.trim(), versions.join(", "), kernel.trim()))
}
