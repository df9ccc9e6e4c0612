//! TLS before a service of a test: what comes in under TLS goes on in cleartext.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Ends TLS on a port of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Terminator {
    address: SocketAddr,
    shaken: Arc<Mutex<Vec<Shaken>>>,
    /// Runs the connections.
    _runtime: Runtime,
}

/// What a client showed in its handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaken {
    /// The name that was asked for.
    pub name: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
    /// Whether a certificate was shown.
    pub certificate: bool,
}

impl Terminator {
    /// Ends TLS by `config` before the service at `service`.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn before(service: SocketAddr, config: ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shaken: Arc<Mutex<Vec<Shaken>>> = Arc::default();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let told = Arc::clone(&shaken);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    told.lock().unwrap().push(Shaken {
                        name: session.server_name().map(str::to_owned),
                        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                        certificate: session.peer_certificates().is_some(),
                    });
                    let Ok(mut service) = TcpStream::connect(service).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut service).await;
                });
            }
        });
        Self { address, shaken, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://HOST:PORT`.
    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// The handshakes that came about, in order.
    pub fn shaken(&self) -> Vec<Shaken> {
        self.shaken.lock().unwrap().clone()
    }
}
