//! The real program under a document: started in a folder of its own, killed when it is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{self, Raw};
use crate::command;
use crate::message::Message;
use crate::process::{Lines, Process};
use crate::wait;

/// How long a start, or a line of the log, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that runs.
#[derive(Debug)]
pub struct Binary {
    /// Its process.
    pub process: Process,
    /// Where it accepts, in the order of the document.
    pub listeners: Vec<SocketAddr>,
    /// Where its admin API listens.
    pub admin: SocketAddr,
    stdout: Lines,
    stderr: Lines,
    folder: TempDir,
}

impl Binary {
    /// Starts `pylon run` by this document and waits until it is ready. What the document does not say is added:
    /// a listener and an admin API, both on free ports of loopback.
    ///
    /// # Panics
    /// If it does not come to be ready.
    pub fn start(document: &str) -> Self {
        Self::start_with(document, &[], |_| {})
    }

    /// As [`Binary::start`], with more arguments and files beside the document, which `prepare` writes into its folder.
    ///
    /// # Panics
    /// If it does not come to be ready.
    pub fn start_with(document: &str, arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pylon.yaml"), complete(document)).unwrap();
        prepare(folder.path());
        Self::run(folder, "pylon.yaml", arguments, &[])
    }

    /// As [`Binary::start`], with files beside the document and variables of the environment.
    ///
    /// # Panics
    /// If it does not come to be ready.
    pub fn start_in(document: &str, environment: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pylon.yaml"), complete(document)).unwrap();
        prepare(folder.path());
        Self::run(folder, "pylon.yaml", &[], environment)
    }

    /// Starts the gateway with the document at `path`, a file or folder that the test keeps and that is [`complete`].
    ///
    /// # Panics
    /// If it does not come to be ready.
    pub fn start_at(path: &str, arguments: &[&str]) -> Self {
        Self::run(tempfile::tempdir().unwrap(), path, arguments, &[])
    }

    fn run(folder: TempDir, document: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command::base(folder.path())
            .args(["run", document])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .expect("pylon starts");
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        let mut process = Process::new(child);
        let (listeners, admin) = wait::eventually(PATIENCE, "the gateway says where it listens", || {
            let ended = process.ended();
            assert!(ended.is_none(), "it ended at once: {}", stderr.text());
            let lines = stderr.all();
            let admin = lines.iter().find(|line| line.contains("admin API")).and_then(|line| address(line))?;
            let serving = lines.iter().filter(|line| line.contains("serving"));
            Some((serving.filter_map(|line| address(line)).collect::<Vec<_>>(), admin))
        });
        wait::until(PATIENCE, "the gateway is ready", || {
            Raw::try_connect(admin)
                .is_ok_and(|mut raw| raw.ask("GET", "/readyz", &[("host", "localhost")], b"").status() == 200)
        });
        Self { process, listeners, admin, stdout, stderr, folder }
    }

    /// The first address that accepts.
    ///
    /// # Panics
    /// If there is none.
    pub fn address(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// The folder in which it runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection to it.
    pub fn connect(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Message {
        client::get(self.address(), path)
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
        client::ask(self.address(), method, path, fields, body)
    }

    /// One GET at the admin API.
    pub fn admin(&self, path: &str) -> Message {
        client::ask(self.admin, "GET", path, &[("host", "localhost")], b"")
    }

    /// Writes another document in place of the one it was started with, as [`Binary::start`] does.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, document: &str) {
        std::fs::write(self.folder().join("pylon.yaml"), complete(document)).unwrap();
    }

    /// Asks the admin API for a reload.
    pub fn reload(&self) -> Message {
        client::ask(self.admin, "POST", "/api/reload", &[("host", "localhost")], b"")
    }

    /// Writes another document and has it put in force.
    ///
    /// # Panics
    /// If it is refused.
    pub fn apply(&self, document: &str) {
        self.write(document);
        let answer = self.reload();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// The value of a metric, by its name with labels as `/metrics` writes them: `pylon_client_aborts_total`.
    ///
    /// # Panics
    /// If its value is no number.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.trim().parse().expect("a number"))
    }

    /// The lines of the access log so far, where it goes to standard output, which is the default.
    pub fn log(&self) -> Vec<Value> {
        self.stdout.all().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the line of the exchange with this path, which must be the only one: workers write their lines in any order.
    pub fn logged(&self, path: &str) -> Value {
        let of_path = || self.log().into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
        wait::eventually(PATIENCE, &format!("a line in the log about {path}"), || of_path().pop());
        let mut lines = of_path();
        assert_eq!(lines.len(), 1, "which of these is meant? {lines:?}");
        lines.remove(0)
    }

    /// Waits for a line about this path that says `value` under `key`.
    pub fn logged_with(&self, path: &str, key: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        wait::eventually(PATIENCE, &format!("a line in the log about {path} whose {key} is {value}"), || {
            self.log().into_iter().find(|line| line["path"] == path && line[key] == value)
        })
    }

    /// What it said on standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// What it wrote on standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Asks for the end by SIGTERM and gives the exit code.
    pub fn end(&mut self) -> Option<i32> {
        self.process.terminate();
        self.process.code(PATIENCE)
    }
}

impl Drop for Binary {
    /// No test leaves behind a gateway in which something has panicked.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let told = self.stderr();
            assert!(!told.contains("panicked at"), "something panicked in the gateway:\n{told}");
        }
    }
}

/// The document with what every gateway of a test has. It is added at the end, so that lines keep their numbers.
pub fn complete(document: &str) -> String {
    let mut whole = document.trim_end().to_owned();
    let has = |key: &str| document.lines().any(|line| line.starts_with(key));
    for (key, addition) in
        [("listeners:", "listeners: [{ address: 127.0.0.1:0 }]"), ("admin:", "admin: { address: 127.0.0.1:0 }")]
    {
        if !has(key) {
            whole = format!("{whole}\n{addition}");
        }
    }
    whole + "\n"
}

/// The address in a line such as `INFO serving address=127.0.0.1:8080 routes=1`.
fn address(line: &str) -> Option<SocketAddr> {
    line.split_once("address=")?.1.split_whitespace().next()?.parse().ok()
}
