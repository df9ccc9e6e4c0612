//! How endpoints are chosen, as it is written: a word, or a map.

use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Method;

/// How an endpoint is chosen. Short: the method alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalanceSpec {
    /// The method: `round_robin`, `least_request`, `random`, `ewma`, `ring_hash` or `maglev`. Default `round_robin`.
    /// Example: `maglev`.
    #[serde(default)]
    pub method: Method,
    /// By which key of the request `ring_hash` and `maglev` choose. Default: `client`. Example: `{ header: x-tenant }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Short<BySpec>>,
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
        if bytes && self.by.as_ref().is_some_and(|by| **by != BySpec::default()) {
            let problem = "of a connection that is no HTTP only the client's address is known".to_owned();
            wrong("by", problem, "write `by: client`");
        }
        errors
    }
}
