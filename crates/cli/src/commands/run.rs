//! `pylon run`: binds, serves, and ends cleanly on SIGINT or SIGTERM; a second signal ends at once.
//!
//! SIGTERM comes from a manager of services, with a balancer before the gateway that has to see that it goes: it is served
//! on for a while. SIGINT comes from a keyboard.

use std::process::ExitCode;

use clap::Args;
use pylon_control::gateway::Gateway;
use pylon_control::history::Store;
use pylon_control::history::keeper::Past;
use pylon_control::history::start::{Because, Chosen, choose};
use pylon_control::reload::{Cause, Who};
use pylon_core::units::Span;
use tokio::signal::unix::{SignalKind, signal};

use super::DocumentArguments;
use crate::output;
use crate::state::StateArguments;

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

impl Run {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        logging();
        raise_file_limit();
        let store = self.state.folder().map(|folder| Store::open(&folder)).transpose()?;
        let Some(Chosen { prepared, because }) = self.choose(store.as_ref()) else {
            return Ok(ExitCode::from(output::FAILED));
        };
        let (hash, routes) = (prepared.compiled.snapshot.hash.clone(), prepared.compiled.snapshot.routes.len());
        let folder = store.as_ref().map(|store| store.folder().to_owned());
        let gateway = Gateway::start_with(prepared, Past { store, because })?;
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
            gateway.watch();
        }
        wait_for_the_end(&gateway, self.drain_delay)?;
        let cut = gateway.shut_down(self.grace.duration());
        if cut > 0 {
            tracing::warn!(connections = cut, "cut connections that had not ended within the grace time");
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    /// What to serve; what is wrong has been printed where the answer is none.
    fn choose(&self, store: Option<&Store>) -> Option<Chosen> {
        let path = &self.document.document;
        let chosen = choose(path, self.document.secrets(), store).map_err(|wrong| output::diagnostics(&wrong)).ok()?;
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

/// Blocks until SIGINT, or SIGTERM and `delay` behind it. From the first of them on either ends the process at once.
/// SIGHUP reloads the document; SIGUSR1 opens the access log anew, after a rotation.
fn wait_for_the_end(gateway: &Gateway, delay: Delay) -> anyhow::Result<()> {
    gateway.control().block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (mut hang_up, mut rotate) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
        let delay = loop {
            tokio::select! {
                _ = interrupt.recv() => break Delay(None),
                _ = terminate.recv() => break delay,
                _ = hang_up.recv() => gateway.reloader().ask(Cause { who: Who::Signal, why: None }),
                _ = rotate.recv() => gateway.observer.reopen(),
            }
        };
        gateway.leave();
        tracing::info!("ending: exchanges under way finish, a second signal ends at once");
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            end_at_once();
        });
        if let Delay(Some(delay)) = delay {
            tracing::info!(%delay, "balancers have time to see it: whoever comes meanwhile is served");
            tokio::time::sleep(delay.duration()).await;
        }
        Ok(())
    })
}

#[expect(clippy::exit, reason = "the second signal asks for exactly this")]
fn end_at_once() {
    std::process::exit(130);
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

/// A gateway holds two sockets for each exchange: it takes all the file descriptors that it may have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}
