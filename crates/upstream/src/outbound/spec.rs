//! What a person writes of the requests that go to a service: the key `outbound` of an upstream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use pylon_core::secret::SecretSpec;
use pylon_core::short::OneOrMany;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the gateway does to each attempt on its way to the service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboundSpec {
    /// Headers that are written, added or taken away. Default: none. Example: `{ set: { x-api-key: env:USERS_KEY } }`.
    #[serde(default, skip_serializing_if = "OutboundHeadersSpec::is_empty")]
    pub headers: OutboundHeadersSpec,
    /// A user name and a password (RFC 7617), in place of the client's `Authorization`. At most one of `basic`, `bearer` and
    /// `oauth2` is written. Default: none. Example: `{ user: gate, password: env:USERS_PASSWORD }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub basic: Option<BasicSpec>,
    /// A token (RFC 6750), in place of the client's `Authorization`. A file is looked at each second, and a new token counts
    /// from the next request on. Default: none. Example: `file:/run/secrets/users-token`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub bearer: Option<SecretSpec>,
    /// A token that the gateway gets for itself (OAuth 2.0 client credentials, RFC 6749 §4.4), in place of the client's
    /// `Authorization`. Default: none. Example: `{ token_url: "https://id.internal/token", client_id: gate, client_secret: env:GATE_SECRET }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub oauth2: Option<OAuth2Spec>,
}

/// Headers of requests that go to the service: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutboundHeadersSpec {
    /// Headers to write, in place of what is there in any spelling: plain text, or a secret as `env:NAME` or `file:PATH`. Default:
    /// none. Example: `{ x-api-key: env:USERS_KEY }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, ValueSpec>,
    /// Headers to add to what is there, one value or a list for each, written as in `set`. Default: none.
    /// Example: `{ x-tag: [a, b] }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, OneOrMany<ValueSpec>>,
    /// Headers to take away, in every spelling. Default: none. Example: `[cookie]`.
    #[serde(default, skip_serializing_if = "none")]
    pub remove: OneOrMany<String>,
}

impl OutboundHeadersSpec {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn none(names: &OneOrMany<String>) -> bool {
    names.iter().next().is_none()
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSpec {
    /// The user name, without a colon. Required. Example: `gate`.
    pub user: String,
    /// The password: `env:NAME` or `file:PATH`, which is looked at each second. Required. Example: `env:USERS_PASSWORD`.
    pub password: SecretSpec,
}

/// How the gateway gets a token for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Spec {
    /// Where tokens are asked for: `https://`, or `http://` on this machine alone (RFC 6749 §3.2). Required.
    /// Example: `https://id.internal/oauth2/token`.
    pub token_url: String,
    /// Who the gateway is there. Required. Example: `gate`.
    pub client_id: String,
    /// How it proves that: `env:NAME` or `file:PATH`, which is read again for each token. Required. Example: `env:GATE_SECRET`.
    pub client_secret: SecretSpec,
    /// What the token is for, one scope or a list. Default: none is asked for. Example: `[users.read, users.write]`.
    #[serde(default, skip_serializing_if = "none")]
    pub scopes: OneOrMany<String>,
    /// Whom the token is for, where the token service asks for it. Default: not sent. Example: `https://users.internal`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub audience: Option<String>,
    /// How the secret is sent (RFC 6749 §2.3.1): `basic` in `Authorization`, `post` in the body. Default `basic`. Example: `post`.
    #[serde(default)]
    pub auth: ClientAuthSpec,
    /// TLS towards the token service. Default: it is verified by the system's roots. Example: `{ ca: certs/internal.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub tls: Option<UpstreamTlsSpec>,
}

/// How the gateway proves who it is when it asks for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthSpec {
    /// In the field `Authorization`.
    #[default]
    Basic,
    /// In the body.
    Post,
}

/// The value of a header: plain text, or where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSpec {
    /// As it is sent.
    Plain(String),
    /// `env:NAME` or `file:PATH`.
    Secret(SecretSpec),
}

impl fmt::Display for ValueSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(secret) => write!(f, "{secret:?}"),
        }
    }
}

impl Serialize for ValueSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ValueSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match SecretSpec::parse(&text) {
            SecretSpec::Plain(_) => Self::Plain(text),
            secret => Self::Secret(secret),
        })
    }
}

impl JsonSchema for ValueSpec {
    fn schema_name() -> Cow<'static, str> {
        "OutboundValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Plain text, or a secret: `env:NAME` or `file:PATH`" })
    }
}

/// A key may be left out but not left empty: `bearer:` with nothing behind it could mean either.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}
