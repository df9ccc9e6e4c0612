//! `pylon demo`: sample services, the gateway before them by a document that is written and named, and live traffic.
//!
//! The gateway itself comes in through [`Gateway`], so that the demo knows nothing of how it is started. Everything
//! listens on 127.0.0.1 only.

pub(crate) mod banner;
pub(crate) mod document;
mod follow;
pub(crate) mod services;
pub(crate) mod traffic;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use pylon_core::units::Span;
use tokio::time::Instant;

use crate::demo::banner::Facts;
use crate::demo::follow::{Signals, follow};
use crate::demo::services::Ports;
use crate::demo::traffic::Batch;

/// Where the admin API listens unless somebody else does.
const ADMIN_PORT: u16 = 9901;

/// What may be said on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The port of the gateway on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Where the sample document is written [default: a folder of its own in the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// End by itself after this time, such as `30s`
    #[arg(long = "for", value_name = "SPAN")]
    pub(crate) length: Option<Span>,
}

/// The running gateway, as far as the demo needs it.
pub(crate) trait Gateway {
    /// The exchanges that ended since the last call, oldest first. Called ten times a second; must not wait.
    fn recent(&mut self) -> Batch;

    /// Ends the gateway cleanly and says how many requests it has served in all.
    fn stop(self) -> u64;
}

/// Runs the demo until Ctrl-C, SIGTERM or the end of `--for`. `start` starts a gateway by the document at the path
/// that it is given, and returns once it listens.
pub(crate) fn run<G: Gateway>(options: &Options, start: impl FnOnce(&Path) -> anyhow::Result<G>) -> anyhow::Result<()> {
    // https://no-color.org: any value but an empty one.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = io::stdout().is_terminal() && !plain;
    run_on(&mut io::stdout(), colour, options, start)
}

/// As [`run`], on any output.
fn run_on<G: Gateway>(
    out: &mut impl Write,
    colour: bool,
    options: &Options,
    start: impl FnOnce(&Path) -> anyhow::Result<G>,
) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    // Listened to from the very start: a Ctrl-C while the gateway starts ends the demo as cleanly as a later one.
    let signals = runtime.block_on(async { Signals::listen() }).context("cannot listen to signals")?;

    let services = services::start(Ports::default()).context("cannot start the sample services")?;
    let (listen, admin) = choose_ports(options.port)?;
    let text = document::text(services.ports(), listen, admin);
    let document = document::write(options.dir.as_deref(), &text).context("cannot write the sample document")?;
    let mut gateway = start(&document)?;

    let began = Instant::now();
    let end = options.length.and_then(|span| began.checked_add(span.duration()));
    let greeting = banner::text(&Facts { document: &document, listen, admin }, colour);
    let shown = out
        .write_all(greeting.as_bytes())
        .and_then(|()| out.flush())
        .and_then(|()| runtime.block_on(follow(out, colour, &mut gateway, signals, end)));

    let served = gateway.stop();
    services.stop();
    let shown = shown.and_then(|()| out.write_all(closing(served, began.elapsed(), &document).as_bytes()));
    match shown {
        // The reader of our output has gone (`pylon demo | head`): that is an end like any other.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to the terminal"),
    }
}

/// A port for the gateway and one for its admin API, both free at this moment.
fn choose_ports(wanted: u16) -> anyhow::Result<(u16, u16)> {
    let listen = match bind(wanted) {
        Ok(probe) => probe,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!("port {wanted} is in use: choose another, such as `--port {}`", wanted.checked_add(1).unwrap_or(0))
        }
        Err(error) => return Err(error).with_context(|| format!("cannot listen on 127.0.0.1:{wanted}")),
    };
    // The first probe is still held, so that the two can never be the same.
    let admin = bind(ADMIN_PORT).or_else(|_| bind(0)).context("cannot find a free port for the admin API")?;
    Ok((listen.local_addr()?.port(), admin.local_addr()?.port()))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// The last words.
fn closing(served: u64, length: Duration, document: &Path) -> String {
    let requests = if served == 1 { "request" } else { "requests" };
    // To the second: the milliseconds would only look exact.
    let length = Span::from_secs(length.as_secs().max(1));
    format!(
        "\nThe demo has ended: {served} {requests} served in {length}. Its document stays at {}\n",
        document.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    struct Still(u64);

    impl Gateway for Still {
        fn recent(&mut self) -> Batch {
            Batch::default()
        }

        fn stop(self) -> u64 {
            self.0
        }
    }

    fn options(words: &[&str]) -> Options {
        Command::try_parse_from(["demo"].iter().chain(words)).unwrap().options
    }

    #[test]
    fn the_port_is_8080_unless_another_is_given_and_a_span_needs_its_unit() {
        assert_eq!(options(&[]).port, 8080);
        assert_eq!(options(&["--port", "0", "--for", "2s"]).length, Some(Span::from_secs(2)));
        let refused = Command::try_parse_from(["demo", "--for", "2"]).unwrap_err().to_string();
        assert!(refused.contains("write `2s`"), "{refused}");
    }

    #[test]
    fn the_demo_writes_its_document_names_it_and_ends_by_itself_when_asked_to() {
        let home = tempfile::tempdir().unwrap();
        let mut options = options(&["--port", "0", "--for", "150ms"]);
        options.dir = Some(home.path().to_path_buf());
        let mut out = Vec::new();
        let mut given = None;
        run_on(&mut out, false, &options, |path| {
            given = Some(path.to_path_buf());
            Ok(Still(1))
        })
        .unwrap();
        let (out, given) = (String::from_utf8(out).unwrap(), given.unwrap());
        assert_eq!(given, home.path().join("pylon.yaml"));
        assert!(out.contains(&format!("{}\n", given.display())), "{out}");
        assert!(
            out.ends_with(&format!("1 request served in 1s. Its document stays at {}\n", given.display())),
            "{out}"
        );
        assert!(!out.contains('\x1b'));
    }

    #[test]
    fn a_gateway_that_does_not_start_ends_the_demo_with_its_own_error() {
        let home = tempfile::tempdir().unwrap();
        let mut options = options(&["--port", "0"]);
        options.dir = Some(home.path().to_path_buf());
        let result = run_on(&mut Vec::new(), false, &options, |_| -> anyhow::Result<Still> { bail!("no gate today") });
        assert_eq!(result.unwrap_err().to_string(), "no gate today");
    }

    #[test]
    fn a_port_in_use_is_told_with_the_option_that_helps() {
        let held = bind(0).unwrap();
        let port = held.local_addr().unwrap().port();
        let error = choose_ports(port).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} is in use: choose another, such as `--port ")), "{error}");
    }

    #[test]
    fn the_admin_port_is_never_the_port_of_the_gateway() {
        // Another process may hold 9901; then the first choice fails and there is nothing to compare.
        if let Ok((listen, admin)) = choose_ports(ADMIN_PORT) {
            assert_ne!(listen, admin);
        }
    }

    #[test]
    fn output_that_nobody_reads_any_more_is_a_quiet_end() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let home = tempfile::tempdir().unwrap();
        let mut options = options(&["--port", "0"]);
        options.dir = Some(home.path().to_path_buf());
        run_on(&mut Gone, false, &options, |_| Ok(Still(0))).unwrap();
    }
}
