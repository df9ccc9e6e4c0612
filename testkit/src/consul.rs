//! Consul: the real program where it is installed, else a double that follows the documented protocol. Both are asked by the
//! same requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::answer::Answer;
use crate::client;
use crate::command;
use crate::message::Message;
use crate::process::Process;
use crate::upstream::Upstream;
use crate::wait::{self, now};

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The token that may do everything, where the agent demands one.
pub const TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// An agent of Consul. It ends when it is dropped.
#[derive(Debug)]
pub struct Consul {
    address: SocketAddr,
    kind: Kind,
    demands_token: bool,
}

#[derive(Debug)]
enum Kind {
    Real { process: Process, _folder: TempDir },
    Double { _service: Upstream },
}

impl Consul {
    /// Starts the real one where it is installed, else the double, and says so.
    ///
    /// # Panics
    /// If it does not start.
    #[expect(clippy::print_stderr, reason = "the run says what it was tested against")]
    pub fn start(demands_token: bool) -> Self {
        let Some(program) = installed() else {
            eprintln!("Consul is not there, so a double is tested against: ./test installs it where Go is");
            return Self::double(demands_token);
        };
        for _ in 0..5 {
            if let Some(consul) = Self::real(&program, demands_token) {
                return consul;
            }
        }
        panic!("consul does not start");
    }

    /// A double that follows the documented protocol.
    pub fn double(demands_token: bool) -> Self {
        let catalogue = Arc::new(Catalogue::default());
        let service = Upstream::script(move |peer| {
            while let Ok(request) = peer.request() {
                let answer = catalogue.answer(&request, demands_token);
                if !peer.answer(&answer, request.method()) {
                    return;
                }
            }
        });
        Self { address: service.address(), kind: Kind::Double { _service: service }, demands_token }
    }

    fn real(program: &PathBuf, demands_token: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let [address, server, serf] = [Upstream::nobody(), Upstream::nobody(), Upstream::nobody()];
        let ports = json!({ "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
            "http": address.port(), "server": server.port(), "serf_lan": serf.port() });
        let tokens = json!({ "initial_management": TOKEN, "agent": TOKEN });
        let policy = if demands_token { "deny" } else { "allow" };
        let config =
            json!({ "ports": ports, "acl": { "enabled": demands_token, "default_policy": policy, "tokens": tokens } });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-node", "test", "-bind", "127.0.0.1", "-client", "127.0.0.1"]);
        command.args(["-disable-host-node-id", "-config-file"]).arg(folder.path().join("config.json"));
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::new(command.spawn().expect("consul starts"));
        let up = wait::eventually(PATIENCE, "consul answers", || {
            if process.ended().is_some() {
                return Some(false);
            }
            let mut raw = client::Raw::try_connect(address).ok()?;
            let fields = [("host", "localhost"), ("x-consul-token", TOKEN)];
            let answer = raw.ask("GET", "/v1/health/service/consul?passing=1", &fields, b"");
            answer.text().contains("serfHealth").then_some(true)
        });
        up.then_some(Self { address, kind: Kind::Real { process, _folder: folder }, demands_token })
    }

    /// Whether it is the real one.
    pub fn is_real(&self) -> bool {
        matches!(self.kind, Kind::Real { .. })
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Registers an instance that passes, with what `more` says besides.
    pub fn register(&self, service: &str, at: SocketAddr, more: &Value) {
        let mut body = json!({
            "ID": format!("{service}-{}", at.port()), "Name": service,
            "Address": at.ip().to_string(), "Port": at.port(),
            "Check": { "TTL": "10m", "Status": "passing" },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.put("/v1/agent/service/register", body.to_string().as_bytes());
    }

    /// Takes an instance away.
    pub fn deregister(&self, service: &str, at: SocketAddr) {
        self.put(&format!("/v1/agent/service/deregister/{service}-{}", at.port()), b"");
    }

    /// Says whether an instance is well.
    pub fn check(&self, service: &str, at: SocketAddr, passes: bool) {
        let word = if passes { "pass" } else { "fail" };
        self.put(&format!("/v1/agent/check/{word}/service:{service}-{}", at.port()), b"");
    }

    /// Ends a real one without a goodbye; a double stays.
    pub fn kill(&mut self) {
        if let Kind::Real { process, .. } = &mut self.kind {
            process.kill();
        }
    }

    fn put(&self, path: &str, body: &[u8]) {
        let token = [("x-consul-token", TOKEN)];
        let fields = if self.demands_token { &token[..] } else { &[] };
        let answer = client::ask(self.address, "PUT", path, fields, body);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    }
}

fn installed() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/consul");
    built.is_file().then_some(built).or_else(|| command::find("consul"))
}

/// What the double knows.
#[derive(Debug, Default)]
struct Catalogue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    index: u64,
    /// By id: the registration, and whether it passes.
    instances: BTreeMap<String, (Value, bool)>,
}

impl Catalogue {
    fn answer(&self, request: &Message, demands_token: bool) -> Answer {
        let token = request.field("x-consul-token");
        if token.as_deref().is_some_and(|token| demands_token && token != TOKEN) {
            return Answer::new(403).body("ACL not found");
        }
        let sees = !demands_token || token.is_some();
        let target = request.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if let Some(service) = path.strip_prefix("/v1/health/service/") {
            return self.health(service, query, sees);
        }
        let mut state = self.state.lock().unwrap();
        let change = path.strip_prefix("/v1/agent/").unwrap_or_default();
        if change == "service/register" {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            state.instances.insert(body["ID"].as_str().unwrap().to_owned(), (body, true));
        } else if let Some(id) = change.strip_prefix("service/deregister/") {
            state.instances.remove(id);
        } else if let Some((word, id)) = change.strip_prefix("check/").and_then(|check| check.split_once("/service:")) {
            if let Some((_, passes)) = state.instances.get_mut(id) {
                *passes = word == "pass";
            }
        } else {
            return Answer::new(404);
        }
        state.index += 1;
        self.changed.notify_all();
        Answer::new(200)
    }

    fn health(&self, service: &str, query: &str, sees: bool) -> Answer {
        let value = |key: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
        };
        let one = |key: &str| value(key).first().cloned();
        let index: u64 = one("index").map_or(0, |text| text.parse().unwrap());
        let wait = one("wait").map_or(300, |text| text.trim_end_matches('s').parse().unwrap());
        let until = now() + Duration::from_secs(wait);
        let mut state = self.state.lock().unwrap();
        while index > 0 && state.index <= index && now() < until {
            state = self.changed.wait_timeout(state, until - now()).unwrap().0;
        }
        let tags = value("tag");
        let has_tags = |body: &Value| {
            tags.iter().all(|tag| body["Tags"].as_array().is_some_and(|all| all.iter().any(|one| one == tag.as_str())))
        };
        let instances = state
            .instances
            .values()
            .filter(|(body, passes)| sees && *passes && body["Name"] == service && has_tags(body));
        let shown = instances.map(|(body, _)| {
            let weights = body.get("Weights").cloned().unwrap_or(json!({ "Passing": 1, "Warning": 1 }));
            json!({
                "Node": { "Node": "test", "Address": "127.0.0.1", "Datacenter": "dc1", "Meta": {} },
                "Service": { "ID": body["ID"], "Service": service, "Tags": body["Tags"], "Address": body["Address"],
                    "Port": body["Port"], "Weights": weights, "Meta": body["Meta"] },
                "Checks": [],
            })
        });
        let shown = Value::Array(shown.collect());
        Answer::json(&shown).field("x-consul-index", &state.index.max(1).to_string())
    }
}
