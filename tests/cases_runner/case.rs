//! How a case file is written. What is not listed here is an error.

use std::collections::BTreeMap;

use pylon_config::de;
use pylon_config::diagnostic::render_all;
use pylon_config::load::Source;
use serde::Deserialize;
use serde_json::Value;

/// A case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// A whole document. `http://NAME.test` in it stands for a scripted service, `certs/` for a folder with `ca.pem`, and `gate.pem` and
    /// `gate.key` for `gate.test`; where it stands there, requests come under TLS. A listener, an admin API, one worker and
    /// `trusted_proxies: 127.0.0.1` are added where it does not say otherwise.
    pub(crate) document: String,
    /// What the scripted services answer, by name; one that is not listed here answers with a JSON echo of what it saw.
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, Scripted>,
    /// What is done, in order.
    pub(crate) steps: Vec<Step>,
}

/// A scripted service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scripted {
    /// Its status.
    #[serde(default = "ok")]
    pub(crate) status: u16,
    /// Its fields.
    #[serde(default)]
    pub(crate) header: BTreeMap<String, String>,
    /// Its body.
    #[serde(default)]
    pub(crate) body: String,
    /// How long it thinks first, in milliseconds.
    #[serde(default)]
    pub(crate) delay_ms: u64,
}

fn ok() -> u16 {
    200
}

/// One request, and what becomes of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) send: Send,
    pub(crate) expect: Expect,
}

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Send {
    #[serde(default = "get")]
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) header: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) body: String,
    /// The DNS name in the certificate that the client shows, issued by `certs/ca.pem`.
    #[serde(default)]
    pub(crate) certificate: Option<String>,
    /// The client's address, as a trusted proxy tells it.
    #[serde(default)]
    pub(crate) from: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What is expected. What is not written is not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) status: u16,
    /// Fields with exactly these values; several fields of a name are joined by `, `.
    #[serde(default)]
    pub(crate) header: BTreeMap<String, String>,
    /// Fields that must not be there.
    #[serde(default)]
    pub(crate) no_header: Vec<String>,
    /// The whole body.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// Members that the body has, as JSON; others may be there as well.
    #[serde(default)]
    pub(crate) json: Option<Value>,
    /// How many requests the services saw in this step.
    #[serde(default)]
    pub(crate) upstream_calls: Option<usize>,
    /// The request as the service saw it.
    #[serde(default)]
    pub(crate) upstream: Option<Seen>,
    /// Members that the line of the access log has; others may be there as well.
    #[serde(default)]
    pub(crate) log: Option<Value>,
}

/// The request as a service saw it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Seen {
    /// Which service: `api.test`.
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) method: Option<String>,
    /// Path and query.
    #[serde(default)]
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) header: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) no_header: Vec<String>,
    #[serde(default)]
    pub(crate) body: Option<String>,
}

impl Case {
    /// Reads a file. All that is wrong in it is told, with its place.
    pub(crate) fn read(name: &str, text: &str) -> Result<Self, String> {
        if !text.starts_with("# ") {
            return Err("a case file begins with a comment that tells the reader what it shows".to_owned());
        }
        let source = Source::from_text(name, text).map_err(|wrong| render_all(&wrong, false))?;
        let case: Self = de::read(&source.root).map_err(|problems| {
            let wrong: Vec<_> = problems.into_iter().map(|problem| source.diagnostic(problem)).collect();
            render_all(&wrong, false)
        })?;
        if case.steps.is_empty() {
            return Err("a case file has at least one step".to_owned());
        }
        Ok(case)
    }
}
