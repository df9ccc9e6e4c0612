//! What a person writes of tokens that the gateway signs: the key `mint`.

use std::collections::BTreeMap;

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::written;

/// The shortest and the longest life of a token, in seconds.
const TTL: std::ops::RangeInclusive<u64> = 10..=3600;
/// How often keys may be replaced, in seconds.
const ROTATE: std::ops::RangeInclusive<u64> = 60..=90 * 24 * 3600;

/// The tokens that services get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MintSpec {
    /// Who makes the tokens, as it shall stand in their `iss`: the gateway's own name, by convention a URL. Required.
    #[schemars(example = &"https://gate.example.com")]
    pub issuer: String,
    /// Whom the tokens are for, one or a list, as it shall stand in their `aud`: the services behind this route. Required.
    #[schemars(example = &"orders")]
    pub audience: OneOrMany<String>,
    /// How long a token lives, from 10 seconds to an hour; it ends with the caller's credential at the latest. Default: `60s`.
    #[serde(default = "one_minute")]
    #[schemars(example = &"2m")]
    pub ttl: Span,
    /// The header that services find it in: behind `Bearer` in `authorization`, alone in any other. Default: `authorization`.
    #[serde(default = "authorization")]
    #[schemars(example = &"x-identity")]
    pub header: String,
    /// What else it tells of the caller: facts by claim, as in `headers` of the policies that find out who is asking. Claims of the caller's own
    /// credential keep their types. Default: nothing but `sub`, `scope` and `groups`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("email", "claims.email"), ("plan", "plan")]))]
    pub claims: BTreeMap<String, String>,
    /// Private keys in PEM, one or a list of `file:PATH` and `env:NAME`: P-256 (ES256), Ed25519 (EdDSA) or RSA from 2048 bits (RS256). The
    /// first signs, all are published. Default: the gateway makes its own.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(with = "OneOrMany<String>", example = vec!["file:/etc/pylon/mint-2.pem", "file:/etc/pylon/mint-1.pem"])]
    pub keys: OneOrMany<SecretSpec>,
    /// The algorithm of keys that the gateway makes: `ES256` or `EdDSA`. Default: `ES256`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MadeSpec", example = MadeSpec::EdDsa)]
    pub algorithm: Option<MadeSpec>,
    /// How often the gateway makes a new key, from a minute to 90 days. Default: `24h`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Span", example = &"12h")]
    pub rotate: Option<Span>,
    /// The path at which public keys are published. Default: `/.well-known/jwks.json`.
    #[serde(default = "well_known")]
    #[schemars(example = &"/internal/jwks.json")]
    pub jwks: String,
}

/// The kinds of keys that the gateway makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum MadeSpec {
    /// ECDSA over P-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl MintSpec {
    /// How often keys are replaced that the gateway makes.
    pub(super) fn rotation(&self) -> Span {
        self.rotate.unwrap_or(Span::from_secs(24 * 3600))
    }

    /// What is wrong but for header, claims and keys themselves.
    pub(super) fn check(&self) -> Vec<SpecError> {
        let at = |key: &str| FieldPath::root().key(key);
        let mut errors = Vec::new();
        if self.issuer.trim().is_empty() {
            let error = SpecError::new(at("issuer"), "without a name nobody knows whose token it is");
            errors.push(error.help("write the gateway's own, such as `https://gate.example.com`"));
        }
        if self.audience.is_empty() || self.audience.iter().any(|one| one.trim().is_empty()) {
            let error = SpecError::new(at("audience"), "a token for nobody is taken by everybody or by none");
            errors.push(error.help("name the service that it is for"));
        }
        if !TTL.contains(&self.ttl.duration().as_secs()) {
            errors.push(SpecError::new(at("ttl"), "a token lives for 10 seconds to an hour").help("write `60s`"));
        }
        if !ROTATE.contains(&self.rotation().duration().as_secs()) {
            errors.push(SpecError::new(at("rotate"), "keys are replaced every minute to 90 days").help("write `24h`"));
        }
        let made = [("algorithm", self.algorithm.is_some()), ("rotate", self.rotate.is_some())];
        for (key, _) in made.into_iter().filter(|(_, written)| *written && !self.keys.is_empty()) {
            let error =
                SpecError::new(at(key), format!("`{key}` is for keys that the gateway makes, and these are given"));
            errors.push(error.help(format!("take out `{key}` or `keys`")));
        }
        errors
    }
}

fn one_minute() -> Span {
    Span::from_secs(60)
}

fn authorization() -> String {
    "authorization".to_owned()
}

fn well_known() -> String {
    "/.well-known/jwks.json".to_owned()
}
