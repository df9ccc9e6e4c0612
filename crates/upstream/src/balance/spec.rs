//! How endpoints are chosen, as it is written: a word, or a map.

use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;
use super::orca::Bounds;
use crate::probe::ProbeSpec;
use crate::sticky::StickyCookieSpec;

/// How an endpoint is chosen. Short: the method alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalanceSpec {
    /// The method: `round_robin`, `least_request`, `random`, `ewma`, `ring_hash`, `maglev` or `prequal`. Default `round_robin`.
    /// Example: `maglev`.
    #[serde(default)]
    pub method: Method,
    /// By which key of the request `ring_hash` and `maglev` choose. Default: `client`. Example: `{ header: x-tenant }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Short<BySpec>>,
    /// Keeps a client at its endpoint by a cookie: the cookie's name, or a map. Default: none. Example: `pylon_users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Short<StickyCookieSpec>>,
    /// How endpoints are asked how busy they are, for `prequal`, which needs it. Default: none. Example: `{ path: /load }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSpec>,
    /// In which time an endpoint that is new, or comes back, grows from a tenth of its share to all of it. A span of time; default:
    /// none, it has all of it at once. Example: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Span>,
    /// Takes weights from what endpoints report of their load in `endpoint-load-metrics`, in place of those that are written: `true`,
    /// or a map. Default `false`. Example: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orca: Option<Short<OrcaSpec>>,
    /// For how long endpoints of a higher priority, or nearer ones, must be well again before requests return to them. A span of
    /// time; default `10s`. Example: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_after: Option<Span>,
    /// Whether endpoints in the gateway's own zone, and then those in its region, come first. Default `true`. Example: `false`.
    #[serde(default = "yes")]
    pub nearest: bool,
}

fn yes() -> bool {
    true
}

impl Default for BalanceSpec {
    fn default() -> Self {
        Self {
            method: Method::default(),
            by: None,
            sticky: None,
            probe: None,
            slow_start: None,
            orca: None,
            return_after: None,
            nearest: true,
        }
    }
}

/// Weights from reports of load (ORCA). Short: `true`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrcaSpec {
    /// Whether weights are taken from reports. Default `true`. Example: `false`.
    pub on: bool,
    /// For how long an endpoint must have reported before that counts. A span of time; default `10s`. Example: `30s`.
    pub blackout: Span,
    /// How long after its last report the weight of an endpoint counts. A span of time; default `3m`. Example: `1m`.
    pub expiry: Span,
    /// Whether clients see the reports, too. Default `false`. Example: `true`.
    pub forward: bool,
}

impl Default for OrcaSpec {
    fn default() -> Self {
        Self { on: true, blackout: Span::from_secs(10), expiry: Span::from_secs(180), forward: false }
    }
}

impl FromScalar for OrcaSpec {
    const EXPECTING: &'static str = "`true` or `false`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::default()),
            "false" => Ok(Self { on: false, ..Self::default() }),
            other => Err(format!("`{other}` is neither `true` nor `false`")),
        }
    }
}

/// A key of the request. Short: `client` (the client's address).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BySpec {
    /// The value of this header field; requests without it go by the client's address. Default: none. Example: `x-tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The value of this cookie; requests without it go by the client's address. Default: none. Example: `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The value of this parameter of the query; requests without it go by the client's address. Default: none. Example: `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// This fact of the caller that the route's policies have proved: `subject`, `consumer`, `plan`, `claims.NAME` and the like; requests
    /// without it go by the client's address. Default: none. Example: `claims.tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

impl FromScalar for BalanceSpec {
    const EXPECTING: &'static str = "a method such as `round_robin`, `least_request`, `ewma` or `maglev`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match Method::ALL.into_iter().find(|(name, _)| *name == text) {
            Some((_, method)) => Ok(Self { method, ..Self::default() }),
            None => {
                let names: Vec<_> = Method::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
                Err(format!("`{text}` is not a way to choose endpoints: write one of {}", names.join(", ")))
            }
        }
    }
}

impl FromScalar for BySpec {
    const EXPECTING: &'static str = "`client`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        match text {
            "client" => Ok(Self::default()),
            other => Err(format!(
                "`{other}` is not something to choose by: write `client`, `{{ header: NAME }}`, `{{ cookie: NAME }}` or `{{ query: NAME }}`"
            )),
        }
    }
}

impl BalanceSpec {
    /// For how long reports count, where they do.
    pub(crate) fn bounds(&self) -> Option<Bounds> {
        let OrcaSpec { on, blackout, expiry, .. } = &**self.orca.as_ref()?;
        on.then_some(Bounds { blackout: blackout.duration(), expiry: expiry.duration() })
    }

    /// Whether clients see reports of load.
    pub(crate) fn shows_reports(&self) -> bool {
        self.orca.as_ref().is_none_or(|orca| !orca.on || orca.forward)
    }

    /// What is wrong with it by itself; `bytes` says that no HTTP is spoken.
    pub(crate) fn check(&self, bytes: bool) -> Vec<SpecError> {
        let mut errors = Vec::new();
        let mut wrong = |key: &str, problem: String, help: &str| {
            errors.push(SpecError::new(FieldPath::root().key(key), problem).help(help));
        };
        if self.by.is_some() && !self.method.is_keyed() {
            let problem = format!("`{}` does not choose by a key", self.method.as_str());
            wrong("by", problem, "write `method: maglev` or `method: ring_hash`, or leave `by` out");
        }
        match (self.method == Method::Prequal, self.probe.is_some()) {
            (true, false) => {
                let problem = "`prequal` chooses by what endpoints answer to probes".to_owned();
                wrong("method", problem, "say what they are asked: `{ method: prequal, probe: { path: /load } }`");
            }
            (false, true) => {
                let problem = format!("`{}` asks no endpoint how busy it is", self.method.as_str());
                wrong("probe", problem, "write `method: prequal`, or leave `probe` out");
            }
            _ => {}
        }
        if self.method == Method::Prequal && (self.slow_start.is_some() || self.bounds().is_some()) {
            let key = if self.slow_start.is_some() { "slow_start" } else { "orca" };
            wrong(key, "`prequal` looks at probes, and not at weights".to_owned(), "leave it out");
        }
        if self.method.is_keyed() && self.slow_start.is_some() {
            let problem = format!("`{}` sends a key where it belongs, warm or not", self.method.as_str());
            wrong("slow_start", problem, "leave it out");
        }
        if self.method.is_keyed() && self.bounds().is_some() {
            let problem = format!("the table of `{}` is by the weights that are written", self.method.as_str());
            wrong("orca", problem, "leave it out, or choose another method");
        }
        let fields = [("sticky", self.sticky.is_some()), ("orca", self.bounds().is_some())];
        for (key, there) in fields.into_iter().chain([("probe", self.probe.is_some())]) {
            if bytes && there {
                wrong(key, "no HTTP is spoken to `tcp://` endpoints".to_owned(), "leave it out");
            }
        }
        if bytes && self.by.as_ref().is_some_and(|by| **by != BySpec::default()) {
            let problem = "of a connection that is no HTTP only the client's address is known".to_owned();
            wrong("by", problem, "write `by: client`");
        }
        errors
    }
}
