//! What a person writes of tokens that are asked about: the key `introspect`.

use std::collections::BTreeMap;

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::units::Span;
use pylon_net::tls::spec::UpstreamTlsSpec;
use pylon_upstream::outbound::spec::ClientAuthSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identify::jwt::spec::{FromSpec, RequiredSpec};
use crate::written;

/// Whom to ask about tokens, and what of the answer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectSpec {
    /// Where is asked: a URL, `https://` or on this machine. Default: where the `issuer` says; one of both is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"https://id.example.com/oauth2/introspect")]
    pub url: Option<String>,
    /// Who makes the tokens. Without `url` it tells at `/.well-known/openid-configuration` where is asked; an `iss` in the answer must be this
    /// one. Default: none; one of both is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"https://id.example.com")]
    pub issuer: Option<String>,
    /// The client as which the gateway asks. Required.
    #[schemars(example = &"gate")]
    pub client_id: String,
    /// What proves that: `env:NAME` or `file:PATH`, which is read again for each question. Required.
    #[schemars(with = "String", example = &"env:GATE_SECRET")]
    pub client_secret: SecretSpec,
    /// How the secret is sent (RFC 6749 §2.3.1): `basic` in `Authorization`, `post` in the body. Default: `basic`.
    #[serde(default)]
    #[schemars(with = "String", example = &"post")]
    pub auth: ClientAuthSpec,
    /// Whom the tokens are for: one of these stands in `aud` of the answer. Default: it is not looked at.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = &"api")]
    pub audience: OneOrMany<String>,
    /// Members that the answer must have: names, or names with the value that they must have (one or a list of which one is enough). Names may
    /// be paths such as `realm.tenant`. Default: none.
    #[serde(default, skip_serializing_if = "RequiredSpec::is_empty")]
    #[schemars(example = BTreeMap::from([("tenant", "shop")]))]
    pub required: RequiredSpec,
    /// The member that names the caller. Default: `sub`, or where there is none `username` or `client_id`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"username")]
    pub subject_claim: Option<String>,
    /// The member with the scopes: a text with blanks between them, or a list. Default: `scope`, and `scp` where that is not there.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"permissions")]
    pub scopes_claim: Option<String>,
    /// The member with the groups of the caller: a name or a path; a text or a list. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"realm_access.roles")]
    pub groups_claim: Option<String>,
    /// Where tokens stand; of several places the first that has one counts. Default: `Authorization: Bearer …`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FromSpec", example = FromSpec { header: None, cookie: Some("token".into()), query: None })]
    pub from: Option<FromSpec>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-user", "subject")]))]
    pub headers: BTreeMap<String, String>,
    /// Whether services see the token. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub forward: bool,
    /// How the server is spoken to under TLS: roots of your own, as in `upstreams.NAME.tls`. Default: the roots of the system.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamTlsSpec", example = BTreeMap::from([("ca", "certs/internal.pem")]))]
    pub tls: Option<UpstreamTlsSpec>,
    /// How long an answer may take, at most 30 seconds. Default: `3s`.
    #[serde(default = "three_seconds")]
    #[schemars(example = &"500ms")]
    pub timeout: Span,
    /// For how long it is believed that a token is active, from a second to five minutes; never beyond its `exp`. Default: `30s`.
    #[serde(default = "thirty_seconds")]
    #[schemars(example = &"10s")]
    pub ttl: Span,
    /// For how long it is believed that a token is not active, at most a minute. Default: `5s`.
    #[serde(default = "five_seconds")]
    #[schemars(example = &"1s")]
    pub inactive_ttl: Span,
}

fn three_seconds() -> Span {
    Span::from_secs(3)
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn five_seconds() -> Span {
    Span::from_secs(5)
}
