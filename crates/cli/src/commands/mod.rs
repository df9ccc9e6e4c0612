//! The command line: every command with its arguments; what each does stands in its own file.

mod check;
mod demo;
mod diff;
mod docs;
mod explain;
mod history;
mod keys;
mod rollback;
mod run;
mod schema;
mod upgrade;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pylon_config::plan::PlainSecrets;
use pylon_control::prepare::{Prepared, prepare};

use crate::output;

/// One gate in front of many services.
#[derive(Debug, Parser)]
#[command(name = "pylon", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway by a document.
    Run(run::Run),
    /// Check a document by the way that `run` takes, without a socket.
    Check(check::Check),
    /// Tell which route a request meets, and why.
    Explain(explain::Explain),
    /// Tell what changes between two documents, and for which requests of a log.
    Diff(diff::Diff),
    /// List the revisions of the document.
    History(history::History),
    /// Put an older revision of the document in force again.
    Rollback(rollback::Rollback),
    /// Make, list, revoke and replace API keys, and hash passwords.
    Keys(keys::Keys),
    /// Start sample services with a gateway before them, and show the traffic.
    Demo(demo::Demo),
    /// Let the running gateway start the program that stands at its path now, and give it its place.
    Upgrade(upgrade::Upgrade),
    /// Print the JSON Schema of documents, for editors.
    Schema,
    /// Write the reference of every key, made from the types, as Markdown.
    Docs(docs::Docs),
}

/// The document that a command works on.
#[derive(Debug, Args)]
struct DocumentArguments {
    /// The document: a file, or a folder of files.
    #[arg(default_value = "pylon.yaml")]
    document: PathBuf,
    /// Accept secrets that stand in the document in plain text.
    #[arg(long)]
    allow_plain_secrets: bool,
}

impl DocumentArguments {
    /// The document, compiled; what is wrong with it has been printed where the answer is none.
    fn prepare(&self) -> Option<Prepared> {
        match prepare(&self.document, self.secrets()) {
            Ok(prepared) => {
                output::diagnostics(&prepared.compiled.warnings);
                Some(prepared)
            }
            Err(diagnostics) => {
                output::diagnostics(&diagnostics);
                None
            }
        }
    }

    fn secrets(&self) -> PlainSecrets {
        secrets(self.allow_plain_secrets)
    }
}

fn secrets(allow_plain: bool) -> PlainSecrets {
    if allow_plain { PlainSecrets::Allowed } else { PlainSecrets::Refused }
}

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Check(check) => check.run(),
            Command::Explain(explain) => explain.run(),
            Command::Diff(diff) => diff.run(),
            Command::History(history) => history.run(),
            Command::Rollback(rollback) => rollback.run(),
            Command::Keys(keys) => keys.run(),
            Command::Demo(demo) => demo.run(),
            Command::Upgrade(upgrade) => upgrade.run(),
            Command::Schema => schema::run(),
            Command::Docs(docs) => docs.run(),
        }
    }
}
