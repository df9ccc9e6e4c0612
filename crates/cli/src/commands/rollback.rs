//! `pylon rollback N`: puts an older revision in force again, live where a gateway runs, else at its next start.

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use pylon_control::admin::history::Words;
use pylon_control::history::keeper::running;
use pylon_control::history::{Draft, Store};
use pylon_control::prepare::from_source;
use serde_json::Value;

use super::history::existing;
use crate::output;
use crate::remote::{Remote, TokenArguments};
use crate::state::StateArguments;

/// See [`super::Command::Rollback`].
#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The number of the revision, as `pylon history` shows it.
    number: u64,
    /// Why, for the history.
    #[arg(long, value_name = "WORDS")]
    why: Option<String>,
    #[command(flatten)]
    state: StateArguments,
    /// Ask this admin API, such as `http://127.0.0.1:9901`. Default: that of the gateway that runs with the state folder.
    #[arg(long, value_name = "URL")]
    live: Option<String>,
    #[command(flatten)]
    token: TokenArguments,
    /// Accept secrets that stand in the revision in plain text.
    #[arg(long)]
    allow_plain_secrets: bool,
}

impl Rollback {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(url) = &self.live {
            return self.live(url);
        }
        let store = existing(&self.state)?;
        match running(&store)? {
            None => self.at_next_start(&store),
            Some(gateway) => match gateway.admin {
                Some(address) => self.live(&address.to_string()),
                None => bail!("a gateway runs with this state folder, and it has no admin API to ask"),
            },
        }
    }

    fn live(&self, url: &str) -> anyhow::Result<ExitCode> {
        let remote = Remote::at(url, &self.token)?;
        let words = Words { who: Some(who()), why: self.why.clone() };
        let reply = remote.post(&format!("/api/rollback/{}", self.number), &serde_json::to_string(&words)?)?;
        let told: Option<Value> = serde_json::from_str(&reply.body).ok();
        match (reply.status, told) {
            (200, Some(told)) => {
                let revision = told.get("revision").and_then(Value::as_u64);
                let revision = revision.ok_or_else(|| anyhow!("it serves, but could not be written to the history"))?;
                output::line(&format!("revision {revision} serves: the document of revision {}", self.number));
                note_files();
                Ok(ExitCode::SUCCESS)
            }
            (422, Some(told)) => {
                output::note(told.get("text").and_then(Value::as_str).unwrap_or_default().trim_end());
                bail!("revision {} cannot be used any more; what served before still does", self.number)
            }
            (status, _) => bail!("the gateway answers {status}: {}", reply.body.trim()),
        }
    }

    fn at_next_start(&self, store: &Store) -> anyhow::Result<ExitCode> {
        let revision = store.read(self.number)?;
        let secrets = super::secrets(self.allow_plain_secrets);
        if let Err(diagnostics) = revision.source().and_then(|source| from_source(source, secrets)) {
            output::diagnostics(&diagnostics);
            bail!("revision {} cannot be used any more", self.number);
        }
        let newest = store.newest()?.unwrap_or_else(|| revision.clone());
        let draft = Draft::rollback(&revision, &newest, who(), self.why.clone());
        let number = store.append(draft)?.number;
        output::line(&format!("revision {number} serves at the next start: the document of revision {}", self.number));
        note_files();
        Ok(ExitCode::SUCCESS)
    }
}

fn note_files() {
    output::note("the files are left as they are: their next change, or a reload, puts them in force again");
}

/// Who runs this command.
fn who() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    let named = named.into_iter().find(|name| !name.is_empty());
    named.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
