//! What holds for the process rather than for a snapshot: listeners, workers, limits, the admin API, telemetry.

use std::net::SocketAddr;
use std::sync::Arc;

use pylon_core::networks::PeerSet;
use pylon_core::secret::{Reveal, Secret, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_net::accept::{Front, Speaks};
use pylon_net::limits::Limits;
use pylon_net::listen::Address;
use pylon_net::spec::{self, LimitsSpec};
use pylon_net::tls::server::{Security, ServerTls};
use pylon_observe::spec::Telemetry;

use crate::diagnostic::Diagnostic;
use crate::document::Document;
use crate::load::Source;

/// The process as its document wants it.
#[derive(Debug)]
pub struct Plan {
    /// Where and how to accept.
    pub listeners: Vec<Listener>,
    /// How many workers.
    pub workers: usize,
    /// What clients may send.
    pub limits: Limits,
    /// The same as written.
    pub limits_spec: LimitsSpec,
    /// The proxies whose word counts.
    pub proxies: PeerSet,
    /// Where the admin API listens, if it does.
    pub admin: Option<Admin>,
    /// Log and metrics.
    pub telemetry: Telemetry,
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: Address,
    /// The permissions of a Unix socket, where they are written.
    pub mode: Option<u32>,
    /// What it speaks.
    pub front: Front,
}

/// The admin API.
#[derive(Debug)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// What callers must show.
    pub token: Option<Secret>,
}

/// How secrets may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlainSecrets {
    /// Only as `env:` and `file:`.
    #[default]
    Refused,
    /// Also in plain text (`--allow-plain-secrets`).
    Allowed,
}

/// Makes the plan, or tells what is wrong with it.
pub fn compile(source: &Source, document: &Document, secrets: PlainSecrets) -> Result<Plan, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    let root = FieldPath::root();
    let mut note = |base: &FieldPath, errors: Vec<SpecError>| {
        wrong.extend(errors.into_iter().map(|error| source.error(&error.below(base))));
    };
    let limits = document.limits.compile().map_err(|errors| note(&root.clone().key("limits"), errors)).ok();
    let telemetry = document.telemetry.compile().map_err(|errors| note(&root.clone().key("telemetry"), errors)).ok();
    if document.listeners.is_empty() && source.root.get("listeners").is_none_or(|node| node.items().is_empty()) {
        let error = SpecError::new(root.clone().key("listeners"), "there is no listener");
        note(&root, vec![error.help("add `listeners: [{ address: 0.0.0.0:8080 }]`")]);
    }
    let listeners = listeners(document).map_err(|errors| note(&root.clone().key("listeners"), errors)).ok();
    let base = root.clone().key("admin");
    let admin = document.admin.check().map_err(|error| vec![error]).and_then(|()| {
        let token = document.admin.token.as_ref().map(|token| reveal(token, secrets)).transpose();
        token.map_err(|error| vec![error.below(&root.clone().key("token"))])
    });
    let token = match admin {
        Ok(token) => token,
        Err(errors) => {
            for error in errors {
                wrong.push(mask(source, &error.below(&base)));
            }
            None
        }
    };
    match (limits, telemetry, listeners) {
        (Some(limits), Some(telemetry), Some(listeners)) if wrong.is_empty() => Ok(Plan {
            listeners,
            workers: document.workers.unwrap_or_else(cores),
            limits,
            limits_spec: document.limits.clone(),
            proxies: PeerSet::new(&document.trusted_proxies.networks),
            admin: document.admin.enabled.then_some(Admin { address: document.admin.address, token }),
            telemetry,
        }),
        _ => Err(wrong),
    }
}

/// The listeners with what they need from disk.
fn listeners(document: &Document) -> Result<Vec<Listener>, Vec<SpecError>> {
    let mut errors = Vec::new();
    let mut listeners = Vec::new();
    for (index, (spec, id)) in document.listeners.iter().zip(&spec::ids(&document.listeners)).enumerate() {
        let at = || FieldPath::root().index(index);
        let address = spec.address.clone();
        if document.listeners.iter().take(index).any(|other| other.address.collides(&address)) {
            errors.push(SpecError::new(at().key("address"), format!("`{address}` is listened on twice")));
        }
        let greeting =
            spec.greeting().map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at()))));
        let speaks = spec.speaks(id).map_err(|found| errors.extend(found.into_iter().map(|error| error.below(&at()))));
        let alpn = speaks.as_ref().map(Speaks::alpn).unwrap_or_default();
        let security = match &spec.tls {
            None => Ok(Security::Cleartext),
            Some(tls) => ServerTls::load(tls, &alpn).map(|tls| Security::Tls(Arc::new(tls))),
        };
        let below = |found: Vec<SpecError>| found.into_iter().map(|error| error.below(&at().key("tls")));
        let security = security.map_err(|found| errors.extend(below(found)));
        if let (Ok(greeting), Ok(security), Ok(speaks)) = (greeting, security, speaks) {
            let front = Front { greeting, security, speaks };
            listeners.push(Listener { address, mode: spec.mode.map(|mode| mode.0), front });
        }
    }
    if errors.is_empty() { Ok(listeners) } else { Err(errors) }
}

impl PlainSecrets {
    /// How secrets are read that may be written so.
    pub fn reveal(self) -> Reveal {
        match self {
            Self::Refused => |spec| reveal(spec, Self::Refused),
            Self::Allowed => |spec| reveal(spec, Self::Allowed),
        }
    }
}

/// Reads a secret from where it is kept.
pub fn reveal(spec: &SecretSpec, plain: PlainSecrets) -> Result<Secret, SpecError> {
    let at = FieldPath::root;
    let text = match spec {
        SecretSpec::Env(name) => std::env::var(name).map_err(|_| {
            SpecError::new(at(), format!("the environment variable `{name}` is not set"))
                .help(format!("set it, or write `file:PATH` instead of `env:{name}`"))
        })?,
        SecretSpec::File(path) => std::fs::read_to_string(path)
            .map_err(|error| SpecError::new(at(), format!("the file `{path}` cannot be read: {error}")))?,
        SecretSpec::Plain(secret) if plain == PlainSecrets::Allowed => return Ok(secret.clone()),
        SecretSpec::Plain(_) => {
            let error = SpecError::new(at(), "a secret stands here in plain text");
            return Err(error.help("write `env:NAME` or `file:PATH`, or give `--allow-plain-secrets`"));
        }
    };
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(SpecError::new(at(), "this secret is empty"));
    }
    Ok(Secret::new(text))
}

/// An error about a secret, shown without it.
pub(crate) fn mask(source: &Source, error: &SpecError) -> Diagnostic {
    let mut diagnostic = source.error(error);
    if error.problem.contains("plain text") {
        diagnostic.place = diagnostic.place.map(crate::diagnostic::Place::masked);
    }
    diagnostic
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
