//! The certificate that everybody shows in a bench (ECDSA P-256), and clients that trust it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

/// The name of the gate in a bench.
pub(crate) const NAME: &str = "bench.test";

/// What a client has to trust.
#[derive(Debug)]
pub(crate) struct Trust(CertificateDer<'static>);

/// Writes a new certificate and its key to the folder, for HAProxy both in one file.
pub(crate) fn issue(home: &Path) -> Result<Trust> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = rcgen::CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    let (shown, kept) = (certificate.pem(), key.serialize_pem());
    fs::write(home.join("cert.pem"), &shown)?;
    fs::write(home.join("key.pem"), &kept)?;
    fs::write(home.join("both.pem"), shown + &kept)?;
    Ok(Trust(certificate.der().clone()))
}

impl Trust {
    /// A client of TLS 1.3 that agrees on a key by the first of these groups that the other side knows, and never resumes.
    pub(crate) fn client(&self, groups: &[&'static dyn SupportedKxGroup]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.clone())?;
        let provider = CryptoProvider { kx_groups: groups.to_vec(), ..default_provider() };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
