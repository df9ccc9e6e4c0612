//! The chores of the project that are no tests: `cargo xtask tidy`, `dist`, `bench`, `count`, `fuzz`, `soak`,
//! `simulate`, `docs` and `deny`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal speaks through it")]
#![expect(
    clippy::disallowed_methods,
    reason = "benches measure real time, and nothing here is tested with a paused clock"
)]

mod bench;
mod count;
mod deny;
mod dist;
mod docs;
mod fuzz;
mod shell;
mod simulate;
mod soak;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The chores of the project that are no tests")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Hold the source against the rules of the house: ladder, dialers, sizes, module docs, case files, habits, words
    Tidy,
    /// Build the binary that is packaged and measured, and tell where it is
    Dist(dist::Options),
    /// Run pylon and its peers side by side, print the table and write it to docs/benchmarks.md
    Bench(bench::Options),
    /// Instructions per request, by valgrind
    Count(count::Options),
    /// Run each fuzz target for a while
    Fuzz(fuzz::Options),
    /// Run the long forms of tests
    Soak(soak::Options),
    /// Compare the ways to choose an endpoint in a simulated world, and write the table into the manual
    Simulate(simulate::Options),
    /// Build the manual and the generated reference
    Docs,
    /// Licences, bans and sources of the dependencies
    Deny,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Tidy => tidy::run(),
        Chore::Dist(options) => dist::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::Count(options) => count::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Soak(options) => soak::run(&options),
        Chore::Simulate(options) => simulate::run(&options),
        Chore::Docs => docs::run(),
        Chore::Deny => deny::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
