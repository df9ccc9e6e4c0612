//! Builds the binary for users, guided by what it does under load: built once to be watched, put under the loads of the bench,
//! and built again by what was seen (profile-guided optimisation).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::shell;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each load runs, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Build by what was seen the last time
    #[arg(long)]
    as_before: bool,
}

/// Loads that stand for what gateways do; what they leave cold is made small instead of fast.
const LOADS: &str = "log,10k,1m,tls,handshakes,http2,grpc,websocket,policies";

/// Answers whether all went well, which it did where there is no error.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let rustc = shell::output(shell::command("rustc")?.arg("-vV"))?;
    let said = |key: &str| rustc.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let host = said("host:").context("rustc does not say for which host it builds")?;
    let folder = shell::target()?.join("guided");
    let profile = folder.join("pylon.profdata");
    if !(options.as_before && profile.is_file()) {
        let merge = merger(host, said("LLVM version:").unwrap_or_default())?;
        let raw = folder.join("raw");
        if raw.is_dir() {
            std::fs::remove_dir_all(&raw).with_context(|| format!("cannot empty {}", raw.display()))?;
        }
        let watched = build(&folder, host, &format!("-Cprofile-generate={}", raw.display()))?;
        drive(&watched, options.seconds)?;
        shell::run(Command::new(merge).arg("merge").arg("-o").arg(&profile).arg(&raw))?;
    }
    let guided = build(&folder, host, &format!("-Cprofile-use={}", profile.display()))?;
    let place = shell::target()?.join("dist");
    std::fs::create_dir_all(&place)?;
    let place = place.join("pylon");
    std::fs::copy(&guided, &place).with_context(|| format!("cannot write {}", place.display()))?;
    println!("{}", place.display());
    Ok(true)
}

/// Puts `binary` under the loads, by a program of its own: a bench keeps itself to one processor.
fn drive(binary: &Path, seconds: u32) -> Result<()> {
    let mut bench = Command::new(std::env::current_exe()?);
    bench.args(["bench", "--no-page", "--peers", "pylon", "--rounds", "1", "--rows", LOADS]);
    let status = bench.arg("--seconds").arg(seconds.to_string()).arg("--binary").arg(binary).status()?;
    // A binary that is watched misses bars.
    if !matches!(status.code(), Some(0 | 1)) {
        bail!("the loads did not run: {} ended with {status}", shell::shown(&bench));
    }
    Ok(())
}

/// Only what runs in the end is built by `flags`: a target that is named leaves build scripts out.
fn build(folder: &Path, host: &str, flags: &str) -> Result<PathBuf> {
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut cargo = shell::cargo()?;
    cargo.args(["build", "--profile", "dist", "-p", "pylon-cli", "--bin", "pylon", "--target", host, "--target-dir"]);
    shell::run(cargo.arg(folder).env("RUSTFLAGS", format!("{given} {flags}").trim()))?;
    Ok(folder.join(host).join("dist/pylon"))
}

/// The program that reads what was seen. It must be of the LLVM that rustc has.
fn merger(host: &str, llvm: &str) -> Result<PathBuf> {
    let sysroot = shell::output(shell::command("rustc")?.args(["--print", "sysroot"]))?;
    let component = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    let major = llvm.split('.').next().unwrap_or_default();
    if component.is_file() {
        return Ok(component);
    }
    let Some(packaged) = shell::find(&format!("llvm-profdata-{major}")) else {
        bail!("llvm-profdata of LLVM {major} is missing: rustup component add llvm-tools, or apt install llvm-{major}");
    };
    Ok(packaged)
}
