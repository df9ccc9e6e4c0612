//! `pylon check`: everything that is wrong with a document, by the code that runs it. No network, no socket.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use pylon_control::prepare::prepare;

use super::DocumentArguments;
use crate::output;

/// See [`super::Command::Check`].
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    document: DocumentArguments,
    /// How to print what is wrong.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON array, for editors and pipelines.
    Json,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (diagnostics, summary) = match prepare(&self.document.document, self.document.secrets()) {
            Ok(prepared) => {
                let snapshot = &prepared.compiled.snapshot;
                let summary = format!(
                    "{}: fine ({}, {}, document {})",
                    self.document.document.display(),
                    count(snapshot.routes.len(), "route"),
                    count(snapshot.upstreams.len(), "upstream"),
                    snapshot.hash
                );
                (prepared.compiled.warnings, Some(summary))
            }
            Err(diagnostics) => (diagnostics, None),
        };
        match (self.format, &summary) {
            (Format::Json, _) => output::diagnostics_as_json(&diagnostics)?,
            (Format::Text, Some(summary)) => {
                output::diagnostics(&diagnostics);
                output::line(summary);
            }
            (Format::Text, None) => {
                output::diagnostics(&diagnostics);
                output::note(&count(diagnostics.iter().filter(|one| one.is_error()).count(), "error"));
            }
        }
        Ok(if summary.is_some() { ExitCode::SUCCESS } else { ExitCode::from(output::FAILED) })
    }
}

fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}
