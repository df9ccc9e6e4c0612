//! Runs the targets of `fuzz/` for a while each, from the corpus that is kept in `fuzz/corpus`.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u32,
    /// The one target to run; all of fuzz/Cargo.toml without it
    target: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let manifest = shell::root()?.join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&manifest).context("there are no fuzz targets: fuzz/Cargo.toml is missing")?;
    let mut targets = targets(&text);
    if let Some(wanted) = &options.target {
        if !targets.contains(wanted) {
            bail!("no fuzz target is named `{wanted}`; there are {}", targets.join(", "));
        }
        targets = vec![wanted.clone()];
    }
    install()?;
    let nightly = has_nightly();
    let mut failed = Vec::new();
    for target in targets {
        println!("fuzzing {target} for {} s", options.seconds);
        if !fuzz(&target, options.seconds, nightly)?.status()?.success() {
            failed.push(target);
        }
    }
    if failed.is_empty() {
        println!("no target found anything");
    } else {
        println!("these targets failed: {}; the inputs are in fuzz/artifacts", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// The sanitizer and coverage flags need a nightly compiler; without one the stable compiler is told to allow them.
fn fuzz(target: &str, seconds: u32, nightly: bool) -> Result<Command> {
    let mut command = shell::command("cargo")?;
    // Cargo names itself and its toolchain to what it runs; the toolchain below is another.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(variable);
    }
    if nightly {
        command.args(["+nightly", "fuzz", "run", target]);
    } else {
        command.env("RUSTC_BOOTSTRAP", "1").args(["fuzz", "run", "-s", "none", target]);
    }
    // Finds go to the first folder, which git does not see; the corpus that is kept is only read.
    command.arg(shell::scratch(&format!("fuzz-corpus/{target}"))?);
    let kept = shell::root()?.join("fuzz/corpus").join(target);
    if kept.exists() {
        command.arg(kept);
    }
    command.args([
        "--",
        &format!("-max_total_time={seconds}"),
        "-rss_limit_mb=4096",
        "-timeout=10",
        "-print_final_stats=1",
    ]);
    Ok(command)
}

fn install() -> Result<()> {
    if shell::output(shell::cargo()?.args(["fuzz", "--version"])).is_ok() {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    shell::run(shell::cargo()?.args(["install", "--locked", "cargo-fuzz"]))
}

fn has_nightly() -> bool {
    shell::find("rustup").is_some_and(|rustup| {
        shell::output(Command::new(rustup).args(["toolchain", "list"])).is_ok_and(|list| list.contains("nightly"))
    })
}

/// The names of the `[[bin]]` tables of a manifest.
fn targets(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_binary = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_binary = line == "[[bin]]";
        } else if let Some(name) = line.strip_prefix("name").filter(|_| in_binary) {
            names.push(name.trim_matches(|c: char| c == '=' || c == '"' || c.is_whitespace()).to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn the_targets_are_the_binaries_of_the_manifest() {
        let manifest = "[package]\nname = \"pylon-fuzz\"\n\n[[bin]]\nname = \"path\"\npath = \"fuzz_targets/path.rs\"\n\n[[bin]]\nname = \"host\"\n";
        assert_eq!(targets(manifest), ["path", "host"]);
    }
}
