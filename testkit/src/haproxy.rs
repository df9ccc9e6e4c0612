//! HAProxy before the gateway or behind it: a real balancer that nobody here wrote.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::command;
use crate::process::Process;
use crate::{upstream::Upstream, wait};

/// A running HAProxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    address: SocketAddr,
    _folder: TempDir,
    /// Its one process.
    pub process: Process,
}

impl Haproxy {
    /// Starts HAProxy with these sections; `sections` gets the address to bind.
    ///
    /// # Panics
    /// If HAProxy is not installed or does not start.
    pub fn start(sections: impl Fn(SocketAddr) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        // The port is free now; where somebody else is quicker, the next one is tried.
        for _ in 0..5 {
            let address = Upstream::nobody();
            let timeouts = "timeout connect 5s\n timeout client 20s\n timeout server 20s";
            let config = format!("global\n nbthread 1\ndefaults\n mode tcp\n {timeouts}\n{}\n", sections(address));
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(command::installed("haproxy"));
            command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            let mut process = Process::new(command.spawn().expect("HAProxy starts"));
            let up = wait::eventually(Duration::from_secs(10), "HAProxy listens", || match process.ended() {
                Some(_) => Some(false),
                None => process.listens(address).then_some(true),
            });
            if up {
                return Self { address, _folder: folder, process };
            }
        }
        panic!("HAProxy does not start: {}", std::fs::read_to_string(&file).unwrap_or_default());
    }

    /// One that passes connections on to `server`, which may be followed by options such as `send-proxy`.
    pub fn before(server: &str) -> Self {
        Self::start(|address| format!("listen gate\n bind {address}\n server one {server}"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its version, as in `2.6.12`.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn version() -> String {
        let output = Command::new(command::installed("haproxy")).arg("-v").output().expect("HAProxy runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/`
        let version = text.split_whitespace().nth(2).unwrap_or_default();
        version.split('-').next().unwrap_or_default().to_owned()
    }
}
