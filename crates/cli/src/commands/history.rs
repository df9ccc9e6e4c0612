//! `pylon history`: the revisions of the document, and what each of them says.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use pylon_control::admin::history::{Listed, listed};
use pylon_control::history::Store;

use crate::output;
use crate::state::StateArguments;

/// See [`super::Command::History`].
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    state: StateArguments,
    /// How to print the revisions.
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum What {
    /// Print the document of a revision as it was written.
    Show {
        /// The number of the revision.
        number: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// One JSON array, the newest first; `show` prints one JSON object with the files.
    Json,
}

impl History {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let store = existing(&self.state)?;
        match (self.what, self.format) {
            (None, Format::Json) => output::line(&serde_json::to_string_pretty(&listed(&store, None)?)?),
            (None, Format::Text) => output::line(table(&listed(&store, None)?).trim_end()),
            (Some(What::Show { number }), Format::Json) => {
                output::line(&serde_json::to_string_pretty(&store.read(number)?)?);
            }
            (Some(What::Show { number }), Format::Text) => {
                let revision = store.read(number)?;
                for file in &revision.files {
                    if revision.files.len() > 1 {
                        output::line(&format!("# {}", file.name.display()));
                    }
                    output::line(file.text.trim_end_matches('\n'));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The state folder of the command, which must be there.
pub(super) fn existing(state: &StateArguments) -> anyhow::Result<Store> {
    let folder = state.folder().context("no state folder is named: give `--state FOLDER`, or set PYLON_STATE")?;
    Ok(Store::existing(&folder)?)
}

fn table(all: &[Listed]) -> String {
    if all.is_empty() {
        return "no document has been put in force with this state folder".to_owned();
    }
    let who = all.iter().map(|one| one.who.as_deref().unwrap_or_default().chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!("{:>8}  {:24}  {:16}  {:who$}  {}\n", "revision", "at", "hash", "who", "why");
    for one in all {
        let mark = if one.in_force { '*' } else { ' ' };
        let of = |value: &Option<String>| value.clone().unwrap_or_default();
        let line = match &one.damage {
            Some(damage) => format!("{mark}{:>7}  {damage}", one.number),
            None => format!(
                "{mark}{:>7}  {:24}  {:16}  {:who$}  {}",
                one.number,
                of(&one.at),
                of(&one.hash),
                of(&one.who),
                of(&one.why)
            ),
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text + "* in force, or what the next start serves if the document cannot be used"
}
