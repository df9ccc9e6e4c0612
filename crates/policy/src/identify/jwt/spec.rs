//! What a person writes of tokens: the key `jwt`.

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tokens::token_spec;
use crate::written;

token_spec! {
    /// The tokens of one issuer.
    pub struct JwtSpec {
        /// Who makes the tokens, exactly as it stands in their `iss`. Without `jwks` and `secret` it is also the URL where its keys are
        /// found (OpenID Connect Discovery). Required.
        #[schemars(example = &"https://id.example.com")]
        pub issuer: String,
        /// Whom the tokens are for: one of these stands in their `aud`. `"*"` takes tokens for anybody. Required.
        #[schemars(example = &"api")]
        pub audience: OneOrMany<String>,
        /// Where the issuer's keys are: a URL, or `file:PATH`, which is looked at each second. Default: the issuer tells it
        /// at `/.well-known/openid-configuration`.
        #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "String", example = &"https://id.example.com/jwks.json")]
        pub jwks: Option<String>,
        /// The secret that issuer and gateway share, for HS256 and its like: `env:NAME` or `file:PATH`. Default: none.
        #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "String", example = &"env:TOKEN_SECRET")]
        pub secret: Option<SecretSpec>,
        /// The algorithms that are taken, one or a list. A key's own kind, curve and `alg` bind it all the same. Default: what
        /// each key says; RS256 for RSA keys that say nothing, HS256 for a secret.
        #[serde(default, skip_serializing_if = "written::is_empty")]
        #[schemars(example = vec!["RS256", "ES256"])]
        pub algorithms: OneOrMany<AlgorithmSpec>,
        /// How far clocks may differ, at most five minutes. Default: `30s`.
        #[serde(default = "thirty_seconds")]
        #[schemars(example = &"10s")]
        pub leeway: Span,
        /// What the header `typ` must say. Default: nothing, `JWT` or `at+jwt`.
        #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "String", example = &"at+jwt")]
        pub typ: Option<String>,
        /// For how long keys serve while the issuer gives no others, from a minute to 30 days. Default: `24h`.
        #[serde(default = "one_day")]
        #[schemars(example = &"12h")]
        pub keys_valid_for: Span,
        /// How long a token with an unknown key waits before keys are fetched for its like again, from a second to an hour. Default: `30s`.
        #[serde(default = "thirty_seconds")]
        #[schemars(example = &"1m")]
        pub cool_down: Span,
    }
}

/// An algorithm of signatures (RFC 7518 §3.1, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AlgorithmSpec {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    Rs384,
    /// RSA, PKCS #1 v1.5, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// RSA, PSS, SHA-384.
    Ps384,
    /// RSA, PSS, SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// ECDSA on P-521.
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// HMAC, SHA-256.
    Hs256,
    /// HMAC, SHA-384.
    Hs384,
    /// HMAC, SHA-512.
    Hs512,
}

impl AlgorithmSpec {
    /// The algorithm of this name, as tokens and keys write it.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            // RFC 9864 §2.2 names the curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            _ => return None,
        })
    }
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn one_day() -> Span {
    Span::from_secs(24 * 3600)
}
