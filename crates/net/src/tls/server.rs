//! The TLS of one listener: compiled from its spec, shared by all workers.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use pylon_core::connection::Scheme;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::series::Handshake;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::spec::{ClientCertSpec, TlsSpec, TlsVersion};
use super::{chain, provider, versions};
use crate::stream::Stream;
use crate::timer::timeout_at;

/// What a listener does with the bytes of a connection before HTTP.
#[derive(Debug, Clone)]
pub enum Security {
    /// Nothing.
    Cleartext,
    /// A handshake first.
    Tls(Arc<ServerTls>),
}

/// TLS towards clients.
pub struct ServerTls {
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The client began a request in cleartext, and can be told so.
    Cleartext(TcpStream),
    /// Anything else; the client was told by an alert where that is due.
    Broken(io::Error),
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Security {
    /// The scheme by which clients come.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Cleartext => Scheme::Http,
            Self::Tls(_) => Scheme::Https,
        }
    }
}

impl ServerTls {
    /// Reads all files. Everything that is wrong is told at once, from the key `tls` down. `http2` says whether clients may
    /// choose it (ALPN).
    pub fn load(spec: &TlsSpec, http2: bool) -> Result<Self, Vec<SpecError>> {
        let root = FieldPath::root;
        let mut errors = Vec::new();
        if spec.certificates.is_empty() {
            let error = SpecError::new(root().key("certificates"), "there is no certificate");
            errors.push(error.help("write `certificates: [{ cert: api.pem, key: api.key }]`"));
        }
        let certificates = Certificates::load(&spec.certificates).map_err(|wrong| {
            let at = |index| root().key("certificates").index(index);
            errors.extend(wrong.into_iter().map(|(index, trouble)| SpecError::new(at(index), trouble)));
        });
        let verifier = spec.client_cert.as_ref().map(verifier).transpose().map_err(|trouble| {
            errors.push(SpecError::new(root().key("client_cert").key("ca"), trouble));
        });
        let (Ok(certificates), Ok(verifier), true) = (certificates, verifier, errors.is_empty()) else {
            return Err(errors);
        };
        let certificates = Arc::new(certificates);
        let alpn = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        let config = config(spec.min_version, alpn, Arc::clone(&certificates), verifier)
            .map_err(|error| vec![SpecError::new(root(), format!("TLS cannot be set up: {error}"))])?;
        Ok(Self { certificates, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The certificates, to be looked after by the control plane.
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Shakes hands with a client, until `deadline` at the most.
    pub(crate) async fn accept(&self, stream: TcpStream, deadline: Instant) -> Result<(Stream, Handshake), Failed> {
        let shaking = async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first[0].is_ascii_uppercase() {
                return Err(Failed::Cleartext(stream));
            }
            Ok(self.acceptor.accept(stream).await?)
        };
        let shaken = timeout_at(Some(deadline), shaking).await;
        let stream = shaken.map_err(|_| Failed::Broken(io::ErrorKind::TimedOut.into()))??;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let how = if resumed { Handshake::Resumed } else { Handshake::Full };
        Ok((Stream::Tls(Box::new(stream.into())), how))
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

fn config(
    min: TlsVersion,
    alpn: Vec<Vec<u8>>,
    certificates: Arc<Certificates>,
    verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(min))?;
    let asks = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = alpn;
    // Sessions are resumed by tickets alone, which any worker can open; nothing is kept for a client that went away.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asks {
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    }
    Ok(config)
}

fn verifier(spec: &ClientCertSpec) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let roots = Arc::new(chain::roots(&spec.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if spec.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| format!("`{}` cannot be used: {error}", spec.ca.display()))
}
