//! The binary `pylon`: one gate in front of many services. Commands are in `commands`, one file each.

mod commands;
mod demo;
mod output;
mod remote;
mod state;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// See decision 0010.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    match arguments.run() {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::from(output::FAILED)
        }
    }
}
