//! What a person writes of tokens: the key `jwt`.

use std::collections::BTreeMap;
use std::fmt;

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_core::units::Span;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::written;

/// The tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
    /// Claims that must be there: names, or names with the value that they must have (one or a list of which one is enough). Names may be
    /// paths such as `realm.tenant`. Default: none but `iss`, `aud`, `exp` and the subject.
    #[serde(default, skip_serializing_if = "RequiredSpec::is_empty")]
    #[schemars(example = BTreeMap::from([("tenant", "shop")]))]
    pub required: RequiredSpec,
    /// The claim that names the caller. Default: `sub`.
    #[serde(default = "sub")]
    #[schemars(example = &"preferred_username")]
    pub subject_claim: String,
    /// The claim with the scopes: a text with blanks between them, or a list. Default: `scope`, and `scp` where that is not there.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"permissions")]
    pub scopes_claim: Option<String>,
    /// The claim with the groups of the caller: a name or a path; a text or a list. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"realm_access.roles")]
    pub groups_claim: Option<String>,
    /// What the header `typ` must say. Default: nothing, `JWT` or `at+jwt`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"at+jwt")]
    pub typ: Option<String>,
    /// Where tokens stand; of several places the first that has one counts. Default: `Authorization: Bearer …`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FromSpec", example = FromSpec { header: None, cookie: Some("token".into()), query: None })]
    pub from: Option<FromSpec>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-user", "subject"), ("x-email", "claims.email")]))]
    pub headers: BTreeMap<String, String>,
    /// Whether services see the token. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub forward: bool,
    /// How the issuer is spoken to under TLS: roots of your own, as in `upstreams.NAME.tls`. Default: the roots of the system.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamTlsSpec", example = BTreeMap::from([("ca", "certs/internal.pem")]))]
    pub tls: Option<UpstreamTlsSpec>,
    /// For how long keys serve while the issuer gives no others, from a minute to 30 days. Default: `24h`.
    #[serde(default = "one_day")]
    #[schemars(example = &"12h")]
    pub keys_valid_for: Span,
    /// How long a token with an unknown key waits before keys are fetched for its like again, from a second to an hour. Default: `30s`.
    #[serde(default = "thirty_seconds")]
    #[schemars(example = &"1m")]
    pub cool_down: Span,
}

/// Where tokens stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromSpec {
    /// The header that holds the token: behind `Bearer` in `authorization`, alone in any other. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"x-token")]
    pub header: Option<String>,
    /// The cookie that holds it. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"token")]
    pub cookie: Option<String>,
    /// The parameter of the query that holds it. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"access_token")]
    pub query: Option<String>,
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

/// Claims that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequiredSpec {
    /// With any value.
    Names(Vec<String>),
    /// With one of these values.
    Values(BTreeMap<String, OneOrMany<Value>>),
}

impl RequiredSpec {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }
}

impl Default for RequiredSpec {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Serialize for RequiredSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Values(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RequiredSpec {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Claims;

        impl<'de> Visitor<'de> for Claims {
            type Value = RequiredSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a claim, a list of names, or names with values")
            }

            fn visit_str<E>(self, name: &str) -> Result<RequiredSpec, E> {
                Ok(RequiredSpec::Names(vec![name.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RequiredSpec, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(RequiredSpec::Names(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<RequiredSpec, A::Error> {
                let mut values = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    values.insert(name, OneOrMany(if let Value::Array(many) = value { many } else { vec![value] }));
                }
                Ok(RequiredSpec::Values(values))
            }
        }

        source.deserialize_any(Claims)
    }
}

impl JsonSchema for RequiredSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RequiredSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "items": { "type": "string" } },
                { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "array"] } },
            ]
        })
    }
}

fn thirty_seconds() -> Span {
    Span::from_secs(30)
}

fn one_day() -> Span {
    Span::from_secs(24 * 3600)
}

fn sub() -> String {
    "sub".to_owned()
}
