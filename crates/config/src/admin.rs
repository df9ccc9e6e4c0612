//! The key `admin`: where the admin API listens and who may use it.

use std::net::SocketAddr;

use pylon_core::secret::SecretSpec;
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The admin API: probes, metrics, a view of what runs, and reloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSpec {
    /// Whether it listens at all. Default `true`. Example: `false`.
    pub enabled: bool,
    /// Address and port. Anything but loopback needs a `token`. Default `127.0.0.1:9901`. Example: `127.0.0.1:9000`.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// What callers must send as `Authorization: Bearer …`, for everything but `/livez` and `/readyz`. Default: none,
    /// which loopback alone allows. Example: `env:PYLON_ADMIN_TOKEN`.
    #[serde(deserialize_with = "written", skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSpec>,
}

/// A token may be left out but not left empty: `token:` with nothing behind it would open what it is to close.
fn written<'de, D: Deserializer<'de>>(source: D) -> Result<Option<SecretSpec>, D::Error> {
    SecretSpec::deserialize(source).map(Some)
}

impl Default for AdminSpec {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from(([127, 0, 0, 1], 9901)), token: None }
    }
}

impl AdminSpec {
    /// What is wrong with it, from the key `admin` down.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.enabled && self.token.is_none() && !self.address.ip().is_loopback() {
            let problem = format!("the admin API would be open to everyone who reaches {}", self.address);
            let error = SpecError::new(FieldPath::root().key("address"), problem);
            return Err(error.help("listen on 127.0.0.1, or set `token: env:PYLON_ADMIN_TOKEN`"));
        }
        Ok(())
    }
}
