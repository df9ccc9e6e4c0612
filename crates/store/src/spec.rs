//! What a person writes of a store.

use pylon_core::secret::SecretSpec;
use pylon_core::short::FromScalar;
use pylon_core::units::Span;
use pylon_net::tls::spec::UpstreamTlsSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// A server of Redis 7 or later, or of Valkey. Short: its URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSpec {
    /// Where it is: `redis://host:port/database`, or `rediss://` under TLS. Port 6379 and database 0 may be left out. Required.
    #[schemars(example = &"redis://redis.internal:6379/0")]
    pub url: String,
    /// The user as which the gateway comes. Default: none is named.
    #[serde(default, deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"pylon")]
    pub username: Option<String>,
    /// The password: `env:NAME` or `file:PATH`, which is read again for each connection. Default: none.
    #[serde(default, deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"env:REDIS_PASSWORD")]
    pub password: Option<SecretSpec>,
    /// What the names of all keys begin with; gateways that are to share have the same. Default: `pylon`.
    #[serde(default = "pylon")]
    #[schemars(example = &"shop")]
    pub prefix: String,
    /// How long one call may take, from 10 milliseconds to 5 seconds. Default: `250ms`.
    #[serde(default = "quarter_of_a_second")]
    #[schemars(example = &"100ms")]
    pub timeout: Span,
    /// How it is spoken to under TLS: roots of your own, a certificate of the gateway's, as in `upstreams.NAME.tls`. Default: the roots of the system.
    #[serde(default, deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamTlsSpec", example = std::collections::BTreeMap::from([("ca", "certs/internal.pem")]))]
    pub tls: Option<UpstreamTlsSpec>,
}

impl FromScalar for RedisSpec {
    const EXPECTING: &'static str = "a URL such as `redis://redis.internal:6379`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let (username, password, tls) = (None, None, None);
        Ok(Self { url: text.into(), username, password, prefix: pylon(), timeout: quarter_of_a_second(), tls })
    }
}

fn pylon() -> String {
    "pylon".to_owned()
}

fn quarter_of_a_second() -> Span {
    Span::from_millis(250)
}

/// A key may be left out but not left empty: `password:` with nothing behind it would be none.
fn written<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}
