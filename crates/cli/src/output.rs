//! What the commands print: diagnostics on standard error, results on standard output.

#![expect(clippy::print_stderr, reason = "a command speaks to its terminal")]

use std::io::{IsTerminal, stderr};

use pylon_config::diagnostic::{Diagnostic, render_all};

/// The exit code for a document that cannot be used, and for anything else that keeps the gateway from starting.
pub(crate) const FAILED: u8 = 2;

/// Prints diagnostics, coloured on a terminal unless `NO_COLOR` is set.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic]) {
    eprint!("{}", render_all(diagnostics, colour()));
}

/// Whether standard error shows colours: a terminal does, unless `NO_COLOR` is set.
pub(crate) fn colour() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints diagnostics as one JSON array, on standard output.
pub(crate) fn diagnostics_as_json(diagnostics: &[Diagnostic]) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(diagnostics)?);
    Ok(())
}

/// Prints an error with its causes, in one line.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Prints a note for the person at the terminal, not for a program behind a pipe.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints a result.
pub(crate) fn line(text: &str) {
    use std::io::Write;
    // A closed pipe is the reader's wish to hear no more.
    let _ = writeln!(std::io::stdout(), "{text}");
}
