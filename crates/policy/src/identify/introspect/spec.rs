//! What a person writes of tokens that are asked about: the key `introspect`.

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::units::Span;
use pylon_upstream::outbound::spec::ClientAuthSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tokens::token_spec;
use crate::written;

token_spec! {
    /// Whom to ask about tokens, and what of the answer counts.
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
