//! `pylon diff OLD NEW`: what changes between two documents, and for which requests of a log.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use pylon_control::diff::{Diff as Difference, traffic};

use super::DocumentArguments;
use crate::output;

/// As `diff` has it: what is compared differs.
const DIFFERS: u8 = 1;

/// See [`super::Command::Diff`].
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The document before: a file, or a folder of files.
    old: PathBuf,
    /// The document after: a file, or a folder of files.
    new: PathBuf,
    /// An access log in JSON: tell which of its requests another route, policy or upstream would answer. `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How to print what changes.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Accept secrets that stand in the documents in plain text.
    #[arg(long)]
    allow_plain_secrets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object, for pipelines.
    Json,
}

impl Diff {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let document = |path: &Path| DocumentArguments {
            document: path.to_owned(),
            allow_plain_secrets: self.allow_plain_secrets,
        };
        let (old, new) = (document(&self.old).prepare(), document(&self.new).prepare());
        let (Some(old), Some(new)) = (old, new) else { return Ok(ExitCode::from(output::FAILED)) };
        let names = (self.old.display().to_string(), self.new.display().to_string());
        let mut difference = Difference::between((&names.0, &old), (&names.1, &new));
        if let Some(log) = &self.log {
            let read = traffic::replay(&old, &new, open(log)?);
            difference.traffic = Some(read.with_context(|| format!("cannot read the log {}", log.display()))?);
        }
        match self.format {
            Format::Text => output::line(difference.to_string().trim_end()),
            Format::Json => output::line(&serde_json::to_string_pretty(&difference)?),
        }
        Ok(if difference.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
    }
}

fn open(log: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if log.as_os_str() == "-" {
        return Ok(Box::new(stdin().lock()));
    }
    let file = File::open(log).with_context(|| format!("cannot open the log {}", log.display()))?;
    Ok(Box::new(BufReader::with_capacity(256 * 1024, file)))
}
