//! `pylon run`: binds, serves, and ends cleanly on SIGINT or SIGTERM; a second signal ends at once.
//!
//! SIGTERM comes from a manager of services, with a balancer before the gateway that has to see that it goes: it is served
//! on for a while. SIGINT comes from a keyboard. What happens in between stands in `life`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use pylon_config::diagnostic::{Diagnostic, render_all};
use pylon_control::gateway::{Gateway, Manner};
use pylon_control::handover::{Left, Predecessor};
use pylon_control::history::Store;
use pylon_control::history::keeper::Past;
use pylon_control::history::start::{Because, Chosen, choose};
use pylon_control::manager::Manager;
use pylon_control::prepare::Prepared;
use pylon_core::units::Span;
use pylon_net::files;
use pylon_net::inherit::{self, Inheritance};

use super::DocumentArguments;
use super::upgrade::in_runtime_folder;
use crate::output;
use crate::state::StateArguments;

mod life;

use life::{Life, Own};

/// See [`super::Command::Run`].
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    document: DocumentArguments,
    #[command(flatten)]
    state: StateArguments,
    /// Whether to reload when the files of the document change. SIGHUP and the admin API reload in any case.
    #[arg(long, default_value = "on", value_name = "SWITCH", env = "PYLON_WATCH")]
    watch: Switch,
    /// How long to go on accepting after SIGTERM, so that balancers see that the gateway is not ready any more; or `off`.
    #[arg(long, default_value = "5s", value_name = "SPAN", env = "PYLON_DRAIN_DELAY", value_parser = delay)]
    drain_delay: Delay,
    /// How long exchanges under way may take to finish once nothing new is accepted.
    #[arg(long, default_value = "20s", value_name = "SPAN", env = "PYLON_GRACE")]
    grace: Span,
    /// Where `pylon upgrade` reaches this gateway. `$RUNTIME_DIRECTORY/upgrade.sock` unless given; nowhere without that.
    #[arg(long, value_name = "PATH", env = "PYLON_UPGRADE_SOCKET")]
    upgrade_socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// A span that may be none at all.
#[derive(Debug, Clone, Copy)]
struct Delay(Option<Span>);

fn delay(text: &str) -> Result<Delay, String> {
    match text {
        "off" | "0" | "0s" => Ok(Delay(None)),
        span => Span::parse(span).map(|span| Delay(Some(span))),
    }
}

/// What was handed over to this process.
#[derive(Default)]
struct HandedOver {
    sockets: Inheritance,
    /// By whom, if it was a gateway.
    predecessor: Option<Predecessor>,
    document: Option<PathBuf>,
}

impl HandedOver {
    /// By the gateway before this one, or by the manager of services.
    fn from_environment() -> anyhow::Result<Self> {
        if let Some(Left { predecessor, sockets, document }) = Predecessor::from_environment()? {
            return Ok(Self { sockets, predecessor: Some(predecessor), document });
        }
        let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| std::env::var(name).ok());
        let sockets = inherit::from_manager(pid.as_deref(), count.as_deref(), names.as_deref())
            .context("the sockets of the manager of services cannot be taken")?;
        Ok(Self { sockets: Inheritance::new(sockets), ..Self::default() })
    }

    /// Tells the gateway before, if there is one, why this one does not serve.
    fn fail(&self, why: &str) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.fail(why);
        }
    }
}

impl Run {
    pub(super) fn run(mut self) -> anyhow::Result<ExitCode> {
        logging();
        // Sockets may be handed over before the gateway starts, which does this for itself.
        files::raise();
        let mut handed = HandedOver::from_environment()?;
        let own = Own::new(handed.document.take())?;
        if let Some(document) = &own.document {
            self.document.document.clone_from(document);
        }
        let store = self.state.folder().map(|folder| Store::open(&folder)).transpose()?;
        let Some(Chosen { prepared, because }) = self.choose(store.as_ref(), &handed) else {
            return Ok(ExitCode::from(output::FAILED));
        };
        let (hash, routes) = (prepared.compiled.snapshot.hash.clone(), prepared.compiled.snapshot.routes.len());
        let folder = store.as_ref().map(|store| store.folder().to_owned());
        let mut gateway = self.start(prepared, Past { store, because }, &mut handed)?;
        // Those that were not taken are closed by the gateway before, once nobody waits there.
        drop(handed);
        let manager = Arc::new(Manager::from_environment());
        manager.ready();
        for address in &gateway.listeners {
            tracing::info!(%address, routes, document = hash, "serving");
        }
        if let Some(address) = gateway.admin {
            tracing::info!(%address, "admin API");
        }
        match folder {
            Some(folder) => tracing::info!(folder = %folder.display(), "the history of documents is kept"),
            None => tracing::info!("no history of documents is kept: name a folder with `--state`"),
        }
        if self.watch == Switch::On {
            gateway.watch_document();
        }
        let control = gateway.control().clone();
        let delay = self.drain_delay;
        control.block_on(async {
            Life::new(&mut gateway, &manager, &own)?.run(delay).await;
            anyhow::Ok(())
        })?;
        let cut = gateway.shut_down(self.grace.duration());
        if cut > 0 {
            tracing::warn!(connections = cut, "cut connections that had not ended within the grace time");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Starts, and takes the place of the gateway before where there is one.
    fn start(&mut self, prepared: Prepared, past: Past, handed: &mut HandedOver) -> anyhow::Result<Gateway> {
        let upgrade = self.upgrade_socket.take().or_else(in_runtime_folder);
        let manner = Manner { past, upgrade: upgrade.as_deref(), grace: self.grace.duration() };
        let started = Gateway::start_with(prepared, &mut handed.sockets, manner);
        let gateway = started.map_err(|error| {
            let error = anyhow::Error::from(error);
            handed.fail(&format!("{error:#}"));
            error
        })?;
        if let Some(predecessor) = &handed.predecessor {
            match predecessor.ready(handed.sockets.taken()) {
                Ok(charge) => gateway.in_charge(charge),
                Err(error) => life::stand_down(&error),
            }
        }
        Ok(gateway)
    }

    /// What to serve; what is wrong has been printed where the answer is none.
    fn choose(&self, store: Option<&Store>, handed: &HandedOver) -> Option<Chosen> {
        let path = &self.document.document;
        let refuse = |wrong: &[Diagnostic]| {
            output::diagnostics(wrong);
            handed.fail(&render_all(wrong, false));
        };
        let chosen = choose(path, self.document.secrets(), store).map_err(|wrong| refuse(&wrong)).ok()?;
        if let (Because::LastGood(_, wrong), Some(predecessor)) = (&chosen.because, &handed.predecessor)
            && !predecessor.is_gone()
        {
            // The gateway before serves something better than that.
            refuse(wrong);
            return None;
        }
        output::diagnostics(&chosen.prepared.compiled.warnings);
        match &chosen.because {
            Because::Document => {}
            Because::RolledBack(revision) => tracing::warn!(
                revision,
                document = %path.display(),
                "a revision is served, to which was rolled back: the document has not changed since"
            ),
            Because::LastGood(revision, wrong) => {
                output::diagnostics(wrong);
                tracing::error!(
                    revision,
                    document = %path.display(),
                    "THE DOCUMENT CANNOT BE USED: the last good revision is served in its place"
                );
            }
        }
        Some(chosen)
    }
}

/// The gateway's own messages, to standard error: `RUST_LOG` chooses, by default `info`.
fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::colour())
        .with_target(false)
        .compact()
        .init();
}
