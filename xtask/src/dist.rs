//! Builds the binary that is packaged and measured: compiled twice, the second time by what the first did under load.
//!
//! The compiler lays code out, and inlines it, by how often each way through it is taken. That is counted by a binary that
//! counts, under rows of the bench, with nobody beside it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{bench, shell};

/// Counts are shares of each other: a short run gives the same.
const SECONDS: u32 = 2;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each row of the bench runs to be counted, in seconds
    #[arg(long, default_value_t = SECONDS)]
    seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: SECONDS }
    }
}

/// What is often run is laid side by side: among twenty megabytes each function would have a page of its own. The linker of
/// the GNU does so without being told, and passes over the word.
const HOT_TOGETHER: &str = "-Clink-arg=-Wl,-z,keep-text-section-prefix";

pub(crate) fn run(options: &Options) -> Result<bool> {
    println!("{}", build(options)?.display());
    Ok(true)
}

/// Builds it, where anything has changed since the last time, and tells where it is.
pub(crate) fn build(options: &Options) -> Result<PathBuf> {
    let profdata = profdata()?;
    let target = std::path::absolute(shell::target()?)?;
    let (counting, trained) = (target.join("counting"), target.join("trained"));
    let counts = counting.join("counts");
    let counter = compile(&counting, &[&format!("-Cprofile-generate={}", counts.display())])?;
    let profile = counting.join("pylon.profdata");
    if !is_newer(&profile, &counter) {
        train(&counter, &counts, options.seconds)?;
        let mut merge = Command::new(&profdata);
        shell::run(merge.args(["merge", "-o"]).arg(&profile).arg(&counts))?;
        // Cargo does not look into the profile: what was compiled by the last one would stay.
        remove(&trained)?;
    }
    compile(&trained, &[&format!("-Cprofile-use={}", profile.display()), HOT_TOGETHER])
}

/// Builds it by the same profile of cargo's, compiled once: its counts of instructions differ by its source alone.
pub(crate) fn build_untrained() -> Result<PathBuf> {
    shell::run(&mut cargo()?)?;
    Ok(shell::target()?.join("dist/pylon"))
}

/// The program of LLVM's that merges counts; it must be of the compiler's own version.
fn profdata() -> Result<PathBuf> {
    let sysroot = shell::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let with_rust = Path::new(sysroot.trim()).join("lib/rustlib").join(host()?).join("bin/llvm-profdata");
    let version = said_by_rustc("LLVM version")?;
    let major = version.split('.').next().unwrap_or_default();
    let packaged = format!("llvm-profdata-{major}");
    with_rust.is_file().then_some(with_rust).or_else(|| shell::find(&packaged)).with_context(|| {
        format!(
            "llvm-profdata of LLVM {major} is missing: rustup component add llvm-tools, or the package llvm-{major}"
        )
    })
}

fn host() -> Result<String> {
    said_by_rustc("host")
}

fn said_by_rustc(what: &str) -> Result<String> {
    let said = shell::output(Command::new("rustc").arg("-vV"))?;
    let value = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    Ok(value.with_context(|| format!("rustc -vV tells no {what}"))?.to_owned())
}

fn cargo() -> Result<Command> {
    let mut cargo = shell::cargo()?;
    cargo.args(["build", "--profile", "dist", "-p", "pylon-cli", "--bin", "pylon"]);
    Ok(cargo)
}

/// The binary, compiled with these flags into that folder.
fn compile(folder: &Path, flags: &[&str]) -> Result<PathBuf> {
    // With a target named, the flags are for what runs there, and not for what runs while it is built.
    let host = host()?;
    let mut cargo = cargo()?;
    cargo.args(["--target", &host, "--target-dir"]).arg(folder);
    shell::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", encoded(flags)))?;
    Ok(folder.join(host).join("dist/pylon"))
}

/// These flags behind those that the user has set, as cargo takes them: a folder's name may have spaces.
fn encoded(flags: &[&str]) -> String {
    let set = std::env::var("RUSTFLAGS").unwrap_or_default();
    set.split_whitespace().chain(flags.iter().copied()).collect::<Vec<_>>().join("\u{1f}")
}

/// Whether the first file is there and was written after the second.
fn is_newer(one: &Path, other: &Path) -> bool {
    let written = |file: &Path| file.metadata().and_then(|metadata| metadata.modified());
    matches!((written(one), written(other)), (Ok(one), Ok(other)) if one > other)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Has a binary that counts under load; it leaves its counts when it ends.
fn train(counter: &Path, counts: &Path, seconds: u32) -> Result<()> {
    remove(counts)?;
    bench::train(counter, seconds)?;
    let left = fs::read_dir(counts).map_or(0, Iterator::count);
    ensure!(left > 0, "the binary that counts left no counts in {}", counts.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_profile_that_is_not_newer_than_its_binary_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("pylon-dist-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let [binary, profile] = ["binary", "profile"].map(|name| folder.join(name));
        fs::write(&binary, "").unwrap();
        assert!(!is_newer(&profile, &binary));
        let file = fs::File::create(&profile).unwrap();
        let now = SystemTime::now();
        file.set_modified(now + Duration::from_mins(1)).unwrap();
        assert!(is_newer(&profile, &binary));
        file.set_modified(now - Duration::from_mins(1)).unwrap();
        assert!(!is_newer(&profile, &binary));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_compiler_tells_its_host_and_its_llvm() {
        assert!(host().unwrap().contains('-'));
        assert!(said_by_rustc("LLVM version").unwrap().split('.').next().unwrap().parse::<u32>().is_ok());
    }
}
