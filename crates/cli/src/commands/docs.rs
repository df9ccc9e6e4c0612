//! `pylon docs`: the reference of keys, metrics and refusals as Markdown, made from the tables and types themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::output;

/// See [`super::Command::Docs`].
#[derive(Debug, Args)]
pub(super) struct Docs {
    /// The folder to write the pages into; it is made if it is missing.
    #[arg(long, default_value = "reference", value_name = "DIR")]
    out: PathBuf,
}

impl Docs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        for (name, text) in pylon_config::reference::pages() {
            let path = self.out.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            output::line(&path.display().to_string());
        }
        Ok(ExitCode::SUCCESS)
    }
}
