//! TLS towards upstreams: who the other side must be, who the gateway is, and which protocol is settled on (ALPN).
//!
//! Files are looked at again, so that renewed roots and certificates count from the next handshake on. What cannot be used
//! leaves what was read before in force.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pylon_core::spec::{FieldPath, SpecError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, danger};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::certificates::Stamp;
use super::chain::{self, Chain};
use super::spec::UpstreamTlsSpec;
use super::{provider, versions};
use crate::socket::Socket;
use crate::stream::Stream;

/// Which protocols are offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone.
    Http2,
    /// HTTP/2 and, if the other side would rather, HTTP/1.1.
    Either,
    /// None: what is spoken is no HTTP.
    None,
}

/// TLS towards the endpoints of an upstream.
pub struct ClientTls {
    spec: UpstreamTlsSpec,
    alpn: Alpn,
    name: Option<ServerName<'static>>,
    connector: ArcSwap<Connector>,
    seen: Mutex<Vec<Stamp>>,
}

/// TLS towards one endpoint.
#[derive(Debug, Clone)]
pub struct Towards {
    tls: Arc<ClientTls>,
    name: ServerName<'static>,
}

/// A configuration that is replaced whole.
struct Connector {
    usual: TlsConnector,
    /// For what cannot go by HTTP/2.
    http1: TlsConnector,
}

impl Connector {
    fn new(config: ClientConfig) -> Self {
        let mut http1 = config.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { usual: TlsConnector::from(Arc::new(config)), http1: TlsConnector::from(Arc::new(http1)) }
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("spec", &self.spec).field("alpn", &self.alpn).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads all files. Everything that is wrong is told at once, from the key `tls` down.
    pub fn load(spec: &UpstreamTlsSpec, alpn: Alpn) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let name = spec.server_name.clone().map(ServerName::try_from).transpose().map_err(|_| {
            let written = spec.server_name.as_deref().unwrap_or_default();
            let error = SpecError::new(FieldPath::root().key("server_name"), format!("`{written}` is not a host name"));
            errors.push(error.help("write it without scheme and port, as in `api.internal`"));
        });
        let seen = stamps(spec);
        let config = config(spec, alpn).map_err(|more| errors.extend(more));
        match (name, config) {
            (Ok(name), Ok(config)) => {
                let connector = ArcSwap::from_pointee(Connector::new(config));
                Ok(Self { spec: spec.clone(), alpn, name, connector, seen: Mutex::new(seen) })
            }
            _ => Err(errors),
        }
    }

    /// From PEM that is at hand: roots, or those of the system, and the gateway's own certificate with its key. `spec` says
    /// the rest, and names no file.
    pub fn from_pem(
        spec: UpstreamTlsSpec,
        ca: Option<&[u8]>,
        identity: Option<(&[u8], &[u8])>,
        alpn: Alpn,
    ) -> Result<Self, String> {
        let name = spec.server_name.clone().map(ServerName::try_from).transpose();
        let name = name.map_err(|_| "the name of the server is not a host name".to_owned())?;
        let plain = |error: SpecError| error.problem;
        let verifier = match ca {
            Some(ca) if spec.verify => {
                let path = Path::new("the given roots");
                let certificates = chain::certificates_in(ca, path)?;
                by_roots(chain::store(path, &certificates)?.0).map_err(plain)?
            }
            _ => verifier(&spec).map_err(plain)?,
        };
        let (cert, key) = (Path::new("the given certificate"), Path::new("the given key"));
        let identity = identity.map(|(chain, private)| chain::pair((chain, cert), (private, key))).transpose()?;
        let config = built(&spec, alpn, verifier, identity).map_err(plain)?;
        let connector = ArcSwap::from_pointee(Connector::new(config));
        Ok(Self { spec, alpn, name, connector, seen: Mutex::default() })
    }

    /// TLS towards an endpoint at `host`, which must have a certificate for it, or for what `server_name` says instead.
    /// None where `host` can have none, as a name with `_`.
    pub fn towards(self: &Arc<Self>, host: &str) -> Option<Towards> {
        let name = self.name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())?;
        Some(Towards { tls: Arc::clone(self), name })
    }

    /// Tells apart what must not share connections.
    pub fn identity(&self) -> String {
        format!("{:?} {:?}", self.alpn, self.spec)
    }

    /// Looks at the files and takes in what is new: none where nothing changed, else whether it can be used. `now` is the
    /// time since 1970. Reads disks: not for a worker.
    pub fn refresh(&self, now: Duration) -> Option<Result<(), String>> {
        let mut seen = self.seen.lock();
        let stamps = stamps(&self.spec);
        if *seen == stamps && stamps.iter().all(|stamp| stamp.is_settled(now)) {
            return None;
        }
        let changed = *seen != stamps;
        *seen = stamps;
        match config(&self.spec, self.alpn) {
            Ok(config) => {
                self.connector.store(Arc::new(Connector::new(config)));
                changed.then_some(Ok(()))
            }
            Err(errors) => {
                changed.then(|| Err(errors.into_iter().map(|error| error.problem).collect::<Vec<_>>().join("; ")))
            }
        }
    }
}

impl Towards {
    /// Shakes hands; `http1` leaves HTTP/2 out of what is offered. Bound it by a deadline.
    pub async fn connect(&self, stream: Socket, http1: bool) -> io::Result<Stream> {
        let connector = self.tls.connector.load();
        let connector = if http1 { connector.http1.clone() } else { connector.usual.clone() };
        let stream = connector.connect(self.name.clone(), stream).await?;
        let stream = Stream::Tls(Box::new(stream.into()));
        if self.tls.alpn == Alpn::Http2 && !stream.agreed_on_http2() {
            return Err(io::Error::other("the other side does not speak HTTP/2 (ALPN)"));
        }
        Ok(stream)
    }
}

/// The state of the files that a spec names.
fn stamps(spec: &UpstreamTlsSpec) -> Vec<Stamp> {
    let identity = spec.client_cert.iter().flat_map(|pair| [&pair.cert, &pair.key]);
    spec.ca.iter().chain(identity).map(|path| Stamp::of(path)).collect()
}

fn config(spec: &UpstreamTlsSpec, alpn: Alpn) -> Result<ClientConfig, Vec<SpecError>> {
    let mut errors = Vec::new();
    let verifier = verifier(spec).map_err(|error| errors.push(error));
    let identity = spec.client_cert.as_ref().map(|pair| chain::read(&pair.cert, &pair.key)).transpose();
    let identity = identity.map_err(|trouble| {
        errors.push(SpecError::new(FieldPath::root().key("client_cert"), trouble));
    });
    let (Ok(verifier), Ok(identity)) = (verifier, identity) else { return Err(errors) };
    built(spec, alpn, verifier, identity).map_err(|error| vec![error])
}

fn built(
    spec: &UpstreamTlsSpec,
    alpn: Alpn,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Chain>,
) -> Result<ClientConfig, SpecError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(spec.min_version))
        .map_err(|error| SpecError::new(FieldPath::root(), format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(chain) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(chain.key))),
    };
    config.alpn_protocols = match alpn {
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2 => vec![b"h2".to_vec()],
        Alpn::Either => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::None => Vec::new(),
    };
    Ok(config)
}

fn verifier(spec: &UpstreamTlsSpec) -> Result<Arc<dyn ServerCertVerifier>, SpecError> {
    if !spec.verify {
        return Ok(Arc::new(Anyone));
    }
    by_roots(roots(spec.ca.as_deref())?)
}

fn by_roots(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, SpecError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| {
        SpecError::new(FieldPath::root().key("ca"), format!("upstreams cannot be verified: {error}"))
    })?;
    Ok(verifier)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, SpecError> {
    let at = || FieldPath::root().key("ca");
    if let Some(ca) = ca {
        return chain::roots(ca).map_err(|trouble| SpecError::new(at(), trouble));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let error = SpecError::new(at(), "the system has no root certificates by which an upstream could be verified");
        return Err(error.help("install the package `ca-certificates`, or write `tls: { ca: roots.pem }`"));
    }
    Ok(roots)
}

/// Takes any certificate, but not one whose key the other side does not have: `verify: false`.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
