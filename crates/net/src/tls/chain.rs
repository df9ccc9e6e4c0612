//! Reads what stands in PEM files: chains, keys, roots, and the names and end of a certificate (RFC 5280, RFC 7468).

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use pylon_core::certificate::ClientCertificate;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use super::provider;

/// A certificate at hand.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    pub(crate) key: Arc<CertifiedKey>,
    /// The DNS names that it is for, in lower case; `*.example.com` among them.
    pub(crate) names: Vec<Box<str>>,
    /// When it ends, in seconds since 1970.
    pub(crate) expires: i64,
}

/// A file that does not hold what it should; the text names it.
pub(crate) type Trouble = String;

/// Reads a certificate with its key. The two must belong together.
pub(crate) fn read(cert: &Path, key: &Path) -> Result<Chain, Trouble> {
    pair((&file(cert)?, cert), (&file(key)?, key))
}

/// A certificate with its key, in PEM, each with the file that it is from, or the name by which it is spoken of.
pub(crate) fn pair((bytes, cert): (&[u8], &Path), (private, key): (&[u8], &Path)) -> Result<Chain, Trouble> {
    let certs = certificates_in(bytes, cert)?;
    let private = PrivateKeyDer::from_pem_slice(private)
        .map_err(|error| format!("`{}` holds no private key that can be read: {error}", key.display()))?;
    let leaf = certs.first().map(|leaf| describe(leaf)).transpose();
    let (names, expires) = leaf
        .map_err(|error| format!("the certificate in `{}` cannot be read: {error}", cert.display()))?
        .unwrap_or_default();
    let key = CertifiedKey::from_der(certs, private, &provider()).map_err(|error| {
        let (cert, key) = (cert.display(), key.display());
        match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key in `{key}` is not that of the certificate in `{cert}`")
            }
            error => format!("`{cert}` and `{key}` cannot be used: {error}"),
        }
    })?;
    Ok(Chain { key: Arc::new(key), names, expires })
}

/// Reads the roots by which peers are verified.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, Trouble> {
    Ok(store(path, &certificates(path)?)?.0)
}

/// The roots that stood in `path`, to verify peers by, and when the first of them ends, in seconds since 1970.
pub(crate) fn store(path: &Path, roots: &[CertificateDer<'static>]) -> Result<(RootCertStore, i64), Trouble> {
    let mut store = RootCertStore::empty();
    let mut ends = i64::MAX;
    for root in roots {
        let useless = |error: &dyn std::fmt::Display| format!("a root in `{}` cannot be used: {error}", path.display());
        store.add(root.clone()).map_err(|error| useless(&error))?;
        ends = ends.min(describe(root).map_err(|error| useless(&error))?.1);
    }
    Ok((store, ends))
}

/// The lists of revoked certificates of a file, of which there is at least one, and when the first of them runs out, in
/// seconds since 1970.
pub(crate) fn revocations(path: &Path) -> Result<(Vec<CertificateRevocationListDer<'static>>, i64), Trouble> {
    let bytes = file(path)?;
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| format!("`{}` is not PEM: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!("`{}` holds no revocation list in PEM", path.display()));
    }
    let mut runs_out = i64::MAX;
    for list in &all {
        let (_, list) = CertificateRevocationList::from_der(list)
            .map_err(|error| format!("a list in `{}` cannot be read: {error}", path.display()))?;
        runs_out = runs_out.min(list.next_update().map_or(i64::MAX, |next| next.timestamp()));
    }
    Ok((all, runs_out))
}

/// All certificates of a file, of which there is at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    certificates_in(&file(path)?, path)
}

/// The same of bytes that are at hand; `path` is where they are from, or the name by which they are spoken of.
pub(crate) fn certificates_in(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("`{}` holds no certificate in PEM", path.display())),
        Err(error) => Err(format!("`{}` is not PEM: {error}", path.display())),
    }
}

fn file(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

/// What the certificate of a client says of it.
pub(crate) fn client(der: &[u8]) -> Result<ClientCertificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let alternative = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let (mut uris, mut names, mut emails) = (Vec::new(), Vec::new(), Vec::new());
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).into()),
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase().into()),
            GeneralName::RFC822Name(email) => emails.push((*email).into()),
            _ => {}
        }
    }
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, der).as_ref());
    Ok(ClientCertificate {
        common_name: common_name.map(Into::into),
        uris: uris.into(),
        names: names.into(),
        emails: emails.into(),
        issuer: certificate.issuer().to_string().into(),
        serial: certificate.raw_serial_as_string().replace(':', "").into(),
        fingerprint,
        until: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default(),
    })
}

/// Names and end of a certificate.
fn describe(der: &[u8]) -> Result<(Vec<Box<str>>, i64), String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let alternative = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
        _ => None,
    });
    Ok((names.collect(), certificate.validity().not_after.timestamp()))
}
