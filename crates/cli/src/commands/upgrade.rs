//! `pylon upgrade`: asks the running gateway to give its place to the program that stands at its path now, and tells what
//! came of it. Where the new one does not come to serve, the old one goes on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use pylon_control::upgrade::{Answer, Request, ask};
use pylon_core::units::Span;

use crate::output;

/// The name of the socket in the folder of what runs.
const NAME: &str = "upgrade.sock";
/// The folder where nothing else is said.
const FOLDER: &str = "/run/pylon";

/// See [`super::Command::Upgrade`].
#[derive(Debug, Args)]
pub(super) struct Upgrade {
    /// The gateway's socket for upgrades: what `run` was given. `$RUNTIME_DIRECTORY/upgrade.sock` or
    /// `/run/pylon/upgrade.sock` unless given.
    #[arg(long = "upgrade-socket", value_name = "PATH", env = "PYLON_UPGRADE_SOCKET")]
    socket: Option<PathBuf>,
    /// Start this program instead of the one at the gateway's own path.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Let it read this document instead of the gateway's own.
    #[arg(long, value_name = "PATH")]
    document: Option<PathBuf>,
    /// How long it may take to be ready.
    #[arg(long, default_value = "60s", value_name = "SPAN")]
    timeout: Span,
}

impl Upgrade {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let socket = self.socket.or_else(in_runtime_folder).unwrap_or_else(|| Path::new(FOLDER).join(NAME));
        // The gateway may stand in another folder.
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        let (binary, document) = (absolute(self.binary)?, absolute(self.document)?);
        let request = Request { binary, document, timeout: self.timeout };
        let answer = ask(&socket, &request).with_context(|| format!("no gateway answers at {}", socket.display()))?;
        Ok(match answer {
            Answer::Upgraded(process) => {
                output::line(&format!("upgraded: process {process} serves, and the one before it drains"));
                ExitCode::SUCCESS
            }
            Answer::Failed(why) => {
                output::note(&format!("error: not upgraded, the gateway before serves on: {why}"));
                ExitCode::FAILURE
            }
        })
    }
}

/// The socket in the folder that the manager of services has made (`RuntimeDirectory=`), if it has.
pub(super) fn in_runtime_folder() -> Option<PathBuf> {
    let folders = std::env::var_os("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&folders).next().filter(|first| !first.as_os_str().is_empty()).map(|first| first.join(NAME))
}
