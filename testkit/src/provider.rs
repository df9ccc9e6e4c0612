//! A certified identity provider, `oidc-provider` from npm, where Node and it are installed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{ask, get};
use crate::command;
use crate::process::{Lines, Process};
use crate::wait;

/// How long a start may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An identity provider. Anybody may log in there under any name. It ends when it is dropped.
#[derive(Debug)]
pub struct Provider {
    process: Process,
    address: SocketAddr,
    stderr: Lines,
}

/// A client that has registered itself.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Its name.
    pub id: String,
    /// Its secret; none where it is public.
    pub secret: Option<String>,
}

impl Provider {
    /// Starts one whose access tokens are good for so many seconds, where Node and the package are; else says that they are not.
    ///
    /// # Panics
    /// If it does not start.
    #[expect(clippy::print_stderr, reason = "the run says what is not tested")]
    pub fn start(access_tokens: u64) -> Option<Self> {
        let Some((node, package)) = command::find("node").zip(package()) else {
            eprintln!(
                "oidc-provider is not there, so logins are NOT tested: ./test installs it where Node 20 and npm are"
            );
            return None;
        };
        let settings = json!({ "package": package, "accessTokens": access_tokens, "idTokenClaims": true });
        let script = root().join("tests/oidc/provider.mjs");
        let mut command = Command::new(node);
        command.arg(script).arg(settings.to_string()).stdin(Stdio::null());
        // It tells of logouts at places with certificates that nobody knows.
        command.env("NODE_TLS_REJECT_UNAUTHORIZED", "0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node starts");
        let stdout = Lines::read(child.stdout.take().unwrap());
        let stderr = Lines::read(child.stderr.take().unwrap());
        let mut process = Process::new(child);
        let port = wait::eventually(PATIENCE, "the identity provider says where it listens", || {
            assert!(process.ended().is_none(), "it ended at once: {}", stderr.text());
            stdout.all().first()?.trim().parse().ok()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until(PATIENCE, "the identity provider answers", || {
            get(address, "/.well-known/openid-configuration").status() == 200
        });
        Some(Self { process, address, stderr })
    }

    /// As it names itself.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Registers a client of a gateway at `origin`, which proves itself by `auth`, such as `client_secret_basic` or `none`.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn register(&self, origin: &str, auth: &str) -> Registered {
        self.register_with(origin, auth, true)
    }

    /// The same, for a client that is told of the logouts of its sessions or, without `sid`, of those of its users.
    ///
    /// # Panics
    /// If it is not taken.
    pub fn register_with(&self, origin: &str, auth: &str, sid: bool) -> Registered {
        let metadata = json!({
            "redirect_uris": [format!("{origin}/.session/callback")],
            "post_logout_redirect_uris": [format!("{origin}/goodbye")],
            "backchannel_logout_uri": format!("{origin}/.session/backchannel"),
            "backchannel_logout_session_required": sid,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": auth,
        });
        let fields = [("content-type", "application/json")];
        let answer = ask(self.address, "POST", "/reg", &fields, metadata.to_string().as_bytes());
        assert_eq!(answer.status(), 201, "{}", answer.text());
        let told: Value = answer.json();
        let text = |name: &str| told[name].as_str().map(str::to_owned);
        Registered { id: text("client_id").expect("a client"), secret: text("client_secret") }
    }

    /// Makes it forget all refresh tokens.
    ///
    /// # Panics
    /// If it does not.
    pub fn forget(&self) {
        assert_eq!(ask(self.address, "POST", "/test/forget", &[], b"").status(), 204);
    }

    /// How many requests for tokens it has seen.
    ///
    /// # Panics
    /// If it does not say.
    pub fn token_requests(&self) -> usize {
        get(self.address, "/test/count").text().parse().unwrap()
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// What it has complained of.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn package() -> Option<PathBuf> {
    let folder = root().join("target/test-tools/oidc/node_modules/oidc-provider");
    folder.is_dir().then_some(folder)
}
