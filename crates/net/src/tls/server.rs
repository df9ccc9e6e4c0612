//! The TLS of one listener: compiled from its spec, shared by all workers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use pylon_core::by_host::ByHost;
use pylon_core::connection::{Connection, Met, Scheme};
use pylon_core::host::HostPattern;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::outcomes::Handshake;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage};
use rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::certificates::{Certificates, Change, InForce};
use super::chain;
use super::client_certs::Clients;
use super::spec::{ClientCertSpec, TlsSpec, TlsVersion};
use super::{provider, versions};
use crate::socket::Socket;
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
    by_host: Arc<ByHost>,
    /// By their numbers: the first are those of the listener, of which there is always one.
    doors: Vec<Door>,
}

/// One way in: clients that ask for a host with these demands shake hands by this configuration.
struct Door {
    clients: Option<Clients>,
    min: TlsVersion,
    alpn: Vec<Vec<u8>>,
    config: ArcSwap<ServerConfig>,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The client began a request in cleartext, and can be told so.
    Cleartext(Socket),
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
    /// Reads all files. Everything that is wrong is told at once, from the key `tls` down. `alpn` is what clients may
    /// choose from, best first.
    pub fn load(spec: &TlsSpec, alpn: &[Vec<u8>]) -> Result<Self, Vec<SpecError>> {
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
        let (by_host, wanted) = demands(spec, &mut errors);
        let certificates = certificates.map(Arc::new);
        let mut doors = Vec::new();
        for (at, (client_cert, min)) in wanted {
            let clients = client_cert.map(Clients::load).transpose().map_err(|(key, trouble)| {
                // What an entry has from the listener was told there.
                if errors.iter().all(|told| told.problem != trouble) {
                    errors.push(SpecError::new(at.clone().key("client_cert").key(key), trouble));
                }
            });
            let (Ok(clients), Ok(certificates)) = (clients, &certificates) else { continue };
            match Door::open(clients, min, alpn.to_vec(), certificates) {
                Ok(door) => doors.push(door),
                Err(error) => errors.push(SpecError::new(at, format!("TLS cannot be set up: {error}"))),
            }
        }
        match certificates {
            Ok(certificates) if errors.is_empty() => Ok(Self { certificates, by_host: Arc::new(by_host), doors }),
            _ => Err(errors),
        }
    }

    /// Looks at the files, and takes in what is new. `now` is the time since 1970. Reads disks: not for a worker.
    pub fn refresh(&self, now: Duration) -> Vec<Change> {
        let mut changes = self.certificates.refresh(now);
        changes.extend(self.doors.iter().filter_map(|door| door.refresh(now, &self.certificates)));
        changes
    }

    /// What is in force: certificates in the order of the document, then what clients are verified by.
    pub fn in_force(&self) -> Vec<InForce> {
        let clients = self.doors.iter().filter_map(|door| door.clients.as_ref());
        self.certificates.in_force().into_iter().chain(clients.flat_map(Clients::in_force)).collect()
    }

    /// Shakes hands with a client, until `deadline` at the most, and notes on the connection what demands it has met.
    pub(crate) async fn accept(
        &self,
        stream: Socket,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<(Stream, Handshake), Failed> {
        let shaking = async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            if first[0].is_ascii_uppercase() {
                return Err(Failed::Cleartext(stream));
            }
            if let [door] = self.doors.as_slice() {
                return Ok(TlsAcceptor::from(door.config.load_full()).accept(stream).await?);
            }
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let number = self.by_host.of(asked_for(&hello.client_hello()).as_deref());
            let door = self.doors.get(number).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            // Before the handshake is over nothing is served, so nothing can be asked for.
            let _ = connection.met.set(Met { by_host: Arc::clone(&self.by_host), number });
            Ok(hello.into_stream(door.config.load_full()).await?)
        };
        let shaken = timeout_at(Some(deadline), shaking).await;
        let stream = shaken.map_err(|_| Failed::Broken(io::ErrorKind::TimedOut.into()))??;
        if let Some(leaf) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            // One that was verified and cannot be read proves nobody: the client is not let in as if it had shown none.
            let read = chain::client(leaf).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
            let _ = connection.certificate.set(read);
        }
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let how = if resumed { Handshake::Resumed } else { Handshake::Full };
        Ok((Stream::Tls(Box::new(stream.into())), how))
    }
}

/// The name that the client asks for, in the form in which hosts are compared.
fn asked_for(hello: &ClientHello<'_>) -> Option<String> {
    let name = hello.server_name()?;
    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase())
}

/// What is demanded of a client.
type Wanted<'s> = (Option<&'s ClientCertSpec>, TlsVersion);

/// The demands that differ, each with where it is written first, and which host has which of them.
fn demands<'s>(spec: &'s TlsSpec, errors: &mut Vec<SpecError>) -> (ByHost, Vec<(FieldPath, Wanted<'s>)>) {
    let own: Wanted<'_> = (spec.client_cert.as_ref(), spec.min_version);
    let mut wanted = vec![(FieldPath::root(), own)];
    let mut by_host = ByHost::default();
    for (index, entry) in spec.hosts.iter().enumerate() {
        let at = || FieldPath::root().key("hosts").index(index);
        let wants: Wanted<'_> =
            (entry.client_cert.as_ref().or(spec.client_cert.as_ref()), entry.min_version.unwrap_or(spec.min_version));
        let known = wanted.iter().position(|(_, known)| *known == wants);
        let number = known.unwrap_or(wanted.len());
        if known.is_none() {
            wanted.push((at(), wants));
        }
        if entry.host.is_empty() {
            errors.push(SpecError::new(at().key("host"), "there is no host"));
        }
        for host in entry.host.iter() {
            let wrong = |problem: String| SpecError::new(at().key("host"), problem);
            match HostPattern::parse(host) {
                Err(error) => errors.push(wrong(format!("`{host}` is no host: {error}"))),
                Ok(HostPattern::Any) => {
                    let error = wrong("`*` is every host, and none".to_owned());
                    errors.push(error.help("what holds for all hosts is written on the listener's `tls` itself"));
                }
                Ok(pattern) => {
                    if !by_host.set(pattern, number) {
                        errors.push(wrong(format!("other demands are written for `{host}` before")));
                    }
                }
            }
        }
    }
    (by_host, wanted)
}

impl Door {
    fn open(
        clients: Option<Clients>,
        min: TlsVersion,
        alpn: Vec<Vec<u8>>,
        certificates: &Arc<Certificates>,
    ) -> Result<Self, rustls::Error> {
        let verifier = clients.as_ref().map(Clients::verifier);
        let config = ArcSwap::from_pointee(config(min, alpn.clone(), Arc::clone(certificates), verifier)?);
        Ok(Self { clients, min, alpn, config })
    }

    /// Takes in new roots and revocation lists, for the next handshake.
    fn refresh(&self, now: Duration, certificates: &Arc<Certificates>) -> Option<Change> {
        let clients = self.clients.as_ref()?;
        let change = clients.refresh(now)?;
        if let Change::Renewed(file) = &change {
            match config(self.min, self.alpn.clone(), Arc::clone(certificates), Some(clients.verifier())) {
                Ok(config) => self.config.store(Arc::new(config)),
                Err(error) => return Some(Change::Refused(file.clone(), error.to_string())),
            }
        }
        Some(change)
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
