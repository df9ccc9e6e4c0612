//! A real etcd of one member, on free ports of loopback with its data in a folder of its own.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client;
use crate::command;
use crate::message::Message;
use crate::process::Process;
use crate::upstream::Upstream;
use crate::wait;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd. It ends when it is dropped, and its data with it.
#[derive(Debug)]
pub struct Etcd {
    address: SocketAddr,
    peers: SocketAddr,
    folder: TempDir,
    process: Process,
    /// Shown with each request, once there are users.
    token: Option<String>,
}

impl Etcd {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If etcd is not installed or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The ports are free now; where somebody else is quicker, others are tried.
        for _ in 0..5 {
            let (address, peers) = (Upstream::nobody(), Upstream::nobody());
            let mut process = spawn(&folder, address, peers);
            if is_up(address, &mut process) {
                return Self { address, peers, folder, process, token: None };
            }
        }
        panic!("etcd does not start: {}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }

    /// Where clients are answered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it without a goodbye; its data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same address with the same data.
    ///
    /// # Panics
    /// If it does not start.
    pub fn revive(&mut self) {
        self.process = spawn(&self.folder, self.address, self.peers);
        assert!(is_up(self.address, &mut self.process), "etcd does not come back");
    }

    /// Stops it as it stands: connections stay, and nobody is answered.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Sets a key.
    pub fn put(&self, key: &str, value: &str) {
        self.call("kv/put", &json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) }));
    }

    /// Takes a key away.
    pub fn delete(&self, key: &str) {
        self.call("kv/deleterange", &json!({ "key": STANDARD.encode(key) }));
    }

    /// Forgets all revisions but the present one.
    ///
    /// # Panics
    /// If it does not say which that is.
    pub fn compact(&self) {
        let revision = self.call("kv/range", &json!({ "key": STANDARD.encode("/") }))["header"]["revision"].clone();
        assert!(revision.is_string(), "{revision}");
        self.call("kv/compaction", &json!({ "revision": revision }));
    }

    /// From here on everybody signs in: `reader` with `password` may read what begins with `prefix`.
    pub fn demand_users(&mut self, reader: &str, password: &str, prefix: &str, behind: &str) {
        self.call("auth/user/add", &json!({ "name": "root", "password": "root" }));
        self.call("auth/role/add", &json!({ "name": "root" }));
        self.call("auth/user/grant", &json!({ "user": "root", "role": "root" }));
        self.call("auth/user/add", &json!({ "name": reader, "password": password }));
        self.call("auth/role/add", &json!({ "name": "readers" }));
        let (key, range_end) = (STANDARD.encode(prefix), STANDARD.encode(behind));
        let perm = json!({ "permType": "READ", "key": key, "range_end": range_end });
        self.call("auth/role/grant", &json!({ "name": "readers", "perm": perm }));
        self.call("auth/user/grant", &json!({ "user": reader, "role": "readers" }));
        self.call("auth/enable", &json!({}));
        self.sign_in();
    }

    /// Signs the test itself in, as a restart makes needful: tokens do not outlive the process.
    pub fn sign_in(&mut self) {
        let answer = self.call("auth/authenticate", &json!({ "name": "root", "password": "root" }));
        self.token = answer["token"].as_str().map(str::to_owned);
    }

    /// One call of the API, which must go well.
    ///
    /// # Panics
    /// If it is refused.
    pub fn call(&self, method: &str, body: &Value) -> Value {
        let answer = ask(self.address, method, body, self.token.as_deref());
        assert_eq!(answer.status(), 200, "{method}: {}", answer.text());
        answer.json()
    }
}

fn ask(address: SocketAddr, method: &str, body: &Value, token: Option<&str>) -> Message {
    let fields: Vec<_> = token.iter().map(|token| ("authorization", *token)).collect();
    client::ask(address, "POST", &format!("/v3/{method}"), &fields, body.to_string().as_bytes())
}

fn spawn(folder: &TempDir, address: SocketAddr, peers: SocketAddr) -> Process {
    let (client, peer) = (format!("http://{address}"), format!("http://{peers}"));
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(command::installed("etcd"));
    command.args(["--name", "test", "--data-dir"]).arg(folder.path().join("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("test={peer}")]);
    command.stdout(Stdio::null()).stderr(Stdio::from(log));
    Process::new(command.spawn().expect("etcd starts"))
}

/// Whether it answers; false where it has ended.
fn is_up(address: SocketAddr, process: &mut Process) -> bool {
    wait::eventually(PATIENCE, "etcd answers", || {
        if process.ended().is_some() {
            return Some(false);
        }
        let health = client::Raw::try_connect(address).ok()?.ask("GET", "/health", &[("host", "localhost")], b"");
        (health.status() == 200).then_some(true)
    })
}
