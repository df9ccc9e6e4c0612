//! Which state folder a command means: `--state`, else what the environment says.

use std::path::PathBuf;

use clap::Args;

/// The state folder.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateArguments {
    /// The folder with the history of documents and the keys that `mint` makes. Default: the first that systemd's
    /// `STATE_DIRECTORY` names; without that, neither is kept.
    #[arg(long = "state", value_name = "FOLDER", env = "PYLON_STATE", global = true)]
    state: Option<PathBuf>,
}

impl StateArguments {
    /// The folder, if there is one.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        // An empty variable is none.
        let named = self.state.clone().filter(|folder| !folder.as_os_str().is_empty());
        named.or_else(|| {
            let folders = std::env::var("STATE_DIRECTORY").ok()?;
            folders.split(':').find(|folder| !folder.is_empty()).map(PathBuf::from)
        })
    }
}
