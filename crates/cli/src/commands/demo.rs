//! `pylon demo`: connects the demo to a real gateway.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use pylon_config::plan::PlainSecrets;
use pylon_control::gateway::Gateway;
use pylon_control::prepare::prepare;
use pylon_observe::recent::Cursor;

use crate::demo::traffic::{Batch, Recent};
use crate::demo::{self, Options};
use crate::output;

/// See [`super::Command::Demo`].
#[derive(Debug, Args)]
pub(super) struct Demo {
    #[command(flatten)]
    options: Options,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        demo::run(&self.options, start)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn start(document: &Path) -> anyhow::Result<Running> {
    match prepare(document, PlainSecrets::Refused) {
        Ok(prepared) => Ok(Running { gateway: Gateway::start(prepared)?, cursor: Cursor::default(), shown: 0 }),
        Err(diagnostics) => {
            output::diagnostics(&diagnostics);
            bail!("the sample document cannot be used");
        }
    }
}

/// The gateway of the demo, and how far its traffic has been shown.
struct Running {
    gateway: Gateway,
    cursor: Cursor,
    shown: u64,
}

impl demo::Gateway for Running {
    fn recent(&mut self) -> Batch {
        let exchanges: Vec<Recent> =
            self.gateway.observer.recent_since(&mut self.cursor).into_iter().filter_map(line).collect();
        let served = self.gateway.served();
        let missed = served.saturating_sub(self.shown + exchanges.len() as u64);
        self.shown = served.max(self.shown + exchanges.len() as u64);
        Batch { exchanges, missed }
    }

    fn stop(self) -> u64 {
        let observer = std::sync::Arc::clone(&self.gateway.observer);
        self.gateway.shut_down(Duration::from_secs(5));
        observer.metrics().served()
    }
}

fn line(recent: pylon_observe::recent::Recent) -> Option<Recent> {
    Some(Recent {
        time: recent.time.parse().ok()?,
        method: recent.method,
        path: recent.path,
        status: recent.status,
        duration: recent.duration,
        route: recent.route,
        upstream: recent.upstream,
        note: match (recent.reason, recent.timer) {
            (Some(reason), Some(timer)) => Some(format!("{reason}: {timer}")),
            (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
            (None, None) => (recent.end != "complete").then(|| recent.end.to_owned()),
        },
    })
}
