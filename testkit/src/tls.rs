//! An authority of a test: certificates for names, and clients that trust it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// Signs certificates; its own is in no system's store.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate with its key, both in PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key`.
    ///
    /// # Panics
    /// If the folder cannot be written to.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.cert).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new("Authority of a test")
    }
}

impl Authority {
    /// A new one, with a key of its own.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, with an ECDSA key, good for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &KeyPair::generate().unwrap(), |_| {})
    }

    /// A certificate for this key, with whatever `change` wants.
    ///
    /// # Panics
    /// If a name is none, or nothing can be signed.
    pub fn issue_with(&self, names: &[&str], key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let cert = params.signed_by(key, &self.0).unwrap();
        Issued { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A certificate for these names as one would have it of a public authority: for ninety days, and with a word of where
    /// it would stand were it revoked.
    ///
    /// # Panics
    /// If no key can be made.
    #[expect(clippy::disallowed_methods, reason = "a certificate is dated by the wall clock")]
    pub fn issue_in_public(&self, names: &[&str]) -> Issued {
        self.issue_with(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = SystemTime::now().into();
            params.not_after = params.not_before + Duration::from_secs(90 * 24 * 3600);
            let uris = vec!["http://authority.test/revoked.crl".to_owned()];
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        })
    }

    /// A certificate for these names with this serial number.
    ///
    /// # Panics
    /// If no key can be made.
    pub fn issue_numbered(&self, names: &[&str], serial: u64) -> Issued {
        let key = KeyPair::generate().unwrap();
        self.issue_with(names, &key, |params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    /// A certificate for a service that goes by a URI, such as a SPIFFE id.
    ///
    /// # Panics
    /// If it is no URI.
    pub fn issue_to_uri(&self, uri: &str) -> Issued {
        let uri = SanType::URI(uri.try_into().unwrap());
        self.issue_with(&[], &KeyPair::generate().unwrap(), |params| params.subject_alt_names.push(uri))
    }

    /// A list of revoked certificates by their serial numbers, in PEM, which runs out in the year `until`.
    ///
    /// # Panics
    /// If nothing can be signed.
    pub fn revoke(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A client that trusts this authority, shows `identity` if asked, and speaks these versions.
    ///
    /// # Panics
    /// If what was issued is not what it should be.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], identity: Option<&Issued>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let cert = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        }
    }

    /// A server that shows `issued` and, where it `asks`, wants a certificate of this authority.
    ///
    /// # Panics
    /// If what was issued is not what it should be.
    pub fn server(&self, issued: &Issued, alpn: &[&str], asks: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(rustls::DEFAULT_VERSIONS).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = if asks {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let cert = CertificateDer::from_pem_slice(issued.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(vec![cert], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// A client that trusts this authority and has nothing to show.
    pub fn plain_client(&self) -> Arc<ClientConfig> {
        Arc::new(self.client(rustls::DEFAULT_VERSIONS, None))
    }
}
