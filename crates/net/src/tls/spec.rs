//! What a person writes about TLS on a listener and on an upstream: the key `tls`.

use std::path::PathBuf;

use pylon_core::short::OneOrMany;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// Certificates with their keys. The name that the client asks for (SNI) chooses; without a name, or with one that no
    /// certificate has, the first is shown. Two for the same name, one RSA and one ECDSA, are chosen from by what the
    /// client can verify. Files are looked at each second and read again when they changed. Required: at least one.
    /// Example: `[{ cert: certs/api.pem, key: certs/api.key }]`.
    pub certificates: Vec<CertificateSpec>,
    /// The oldest version that is spoken: `1.2` or `1.3`. Default `1.2`. Example: `1.3`.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Client certificates (mutual TLS). Default: none is asked for. Example: `{ ca: certs/clients.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub client_cert: Option<ClientCertSpec>,
    /// Hosts with demands of their own in place of `client_cert` and `min_version` above. The name that the client asks for
    /// (SNI) decides; a request for a host with other demands than those of its connection is answered with 421. Default:
    /// none. Example: `[{ host: admin.example.com, client_cert: { ca: certs/admins.pem } }]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostDemandsSpec>,
}

/// What is demanded of clients that ask for certain hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostDemandsSpec {
    /// The host, or a list of hosts. `*.example.com` stands for all names below `example.com`; the exact name counts before
    /// it. Required. Example: `admin.example.com`.
    pub host: OneOrMany<String>,
    /// Client certificates. Default: as the listener demands. Example: `{ ca: certs/admins.pem }`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub client_cert: Option<ClientCertSpec>,
    /// The oldest version that is spoken: `1.2` or `1.3`. Default: as the listener demands. Example: `1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub min_version: Option<TlsVersion>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// The file with the certificate, followed by those between it and its root, in PEM. Its subject alternative names say
    /// for which hosts it is shown. Required. Example: `certs/api.pem`.
    pub cert: PathBuf,
    /// The file with its private key, in PEM: PKCS #8, PKCS #1 or SEC 1. Required. Example: `certs/api.key`.
    pub key: PathBuf,
}

/// Which client certificates are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertSpec {
    /// The file with the roots by which clients are verified, in PEM. Read again when it changes. Required.
    /// Example: `certs/clients.pem`.
    pub ca: PathBuf,
    /// The file with lists of revoked certificates, in PEM, one of each issuer between client and root. A client whose
    /// issuer has none, or one that has run out, is refused. Read again when it changes. Default: nothing is revoked.
    /// Example: `certs/clients.crl`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "written")]
    pub crl: Option<PathBuf>,
    /// Whether a client without a certificate is turned away in the handshake. One that cannot be verified always is.
    /// Default `true`. Example: `false`.
    #[serde(default = "yes")]
    pub required: bool,
}

/// How an upstream is spoken to under TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTlsSpec {
    /// The file with the roots by which the service is verified, in PEM. Read again when it changes. Default: those of the
    /// system. Example: `certs/internal.pem`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows when the service asks for one (mutual TLS). Read again when it changes. Default:
    /// none. Example: `{ cert: certs/gate.pem, key: certs/gate.key }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<CertificateSpec>,
    /// The name that is asked for (SNI) and that the certificate must have. Default: the host of the endpoint.
    /// Example: `users.internal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// The oldest version that is spoken: `1.2` or `1.3`. Default `1.2`. Example: `1.3`.
    pub min_version: TlsVersion,
    /// Whether the certificate is verified at all. Without it anyone on the way can pretend to be the service. Default `true`.
    /// Example: `false`.
    pub verify: bool,
}

impl Default for UpstreamTlsSpec {
    fn default() -> Self {
        Self { ca: None, client_cert: None, server_name: None, min_version: TlsVersion::default(), verify: true }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

fn yes() -> bool {
    true
}

/// The key may be left out but not left empty: `client_cert:` with nothing behind it would ask for none.
fn written<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(source: D) -> Result<Option<T>, D::Error> {
    T::deserialize(source).map(Some)
}
