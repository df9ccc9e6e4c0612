//! A real Redis, on a free port of loopback with its data in a folder of its own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::command;
use crate::process::Process;
use crate::tls::Issued;
use crate::upstream::Upstream;
use crate::wait;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Redis. It ends when it is dropped, and its data with it.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
    process: Process,
    /// Where it speaks TLS, and the folder of its certificate.
    secure: Option<(SocketAddr, TempDir)>,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments, such as `--requirepass secret`.
    ///
    /// # Panics
    /// If Redis is not installed or does not start.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // The port is free now; where somebody else is quicker, another one is tried.
        for _ in 0..5 {
            let address = Upstream::nobody();
            let mut process = spawn(&folder, address, &arguments);
            if is_up(address, &mut process) {
                return Self { address, folder, arguments, process, secure: None };
            }
        }
        panic!("Redis does not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    /// Starts one that speaks TLS as well, with this certificate: see [`Redis::secure_url`].
    ///
    /// # Panics
    /// If Redis does not start.
    pub fn start_secure(issued: &Issued) -> Self {
        let (address, folder) = (Upstream::nobody(), tempfile::tempdir().unwrap());
        issued.write(folder.path(), "redis");
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (port, cert, key) = (address.port().to_string(), file("redis.pem"), file("redis.key"));
        let arguments = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let arguments = [&arguments[..], &["--tls-ca-cert-file", &cert, "--tls-auth-clients", "no"]].concat();
        let started = Self::start_with(&arguments);
        Self { secure: Some((address, folder)), ..started }
    }

    /// `rediss://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// If it speaks no TLS.
    pub fn secure_url(&self) -> String {
        format!("rediss://{}", self.secure.as_ref().expect("it speaks TLS").0)
    }

    /// Where clients are answered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends it without a goodbye; what it held is gone, but for what it was told to save.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address.
    ///
    /// # Panics
    /// If it does not start.
    pub fn revive(&mut self) {
        self.process = spawn(&self.folder, self.address, &self.arguments);
        assert!(is_up(self.address, &mut self.process), "Redis does not come back");
    }

    /// Stops it as it stands: connections stay, and nobody is answered.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Sends one command in its inline form, and gives back the answer as it stands on the wire.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn say(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // Behind the answer it is told to close.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.trim_end_matches("+OK\r\n").to_owned()
    }
}

fn spawn(folder: &TempDir, address: SocketAddr, arguments: &[String]) -> Process {
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(command::installed("redis-server"));
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(folder.path());
    // What was said is there again after a death.
    command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::from(log));
    Process::new(command.spawn().expect("Redis starts"))
}

/// Whether it answers; false where it has ended.
fn is_up(address: SocketAddr, process: &mut Process) -> bool {
    wait::eventually(PATIENCE, "Redis answers", || {
        if process.ended().is_some() {
            return Some(false);
        }
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.write_all(b"PING\r\n").ok()?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).ok()?;
        // One that wants a password answers, too; one that still reads its data is not ready.
        (answer == *b"+PONG" || answer == *b"-NOAU").then_some(true)
    })
}
