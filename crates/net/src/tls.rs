//! TLS by rustls with aws-lc-rs: certificates by name, renewed from disk, and handshakes with clients and upstreams.
//!
//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) with the provider's own suites and groups, X25519MLKEM768 first
//! (draft-ietf-tls-ecdhe-mlkem). Session tickets are sealed by one key for all workers, which the provider rotates; a
//! listener that asks for client certificates gives none, since a resumed session would not show them again.

pub mod certificates;
mod chain;
pub mod client;
mod client_certs;
pub mod server;
pub mod spec;

use std::sync::{Arc, LazyLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;

use self::spec::TlsVersion;

/// The one provider of primitives.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

static FROM_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

/// The versions from `min` up.
pub(crate) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}
