//! A client that sends raw bytes and reads answers strictly.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::message::{Message, ReadError, Wire};
use crate::upstream;

/// How long an answer may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection to a gateway.
#[derive(Debug)]
pub struct Raw {
    wire: Wire<Socket>,
}

/// The bytes under it.
#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// If nobody accepts.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects, where it may fail.
    ///
    /// # Errors
    /// As the system says.
    ///
    /// # Panics
    /// If the socket cannot be told.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { wire: Wire::new(Socket::Plain(stream)) };
        raw.patience(PATIENCE);
        Ok(raw)
    }

    /// Connects from an address of choice: one of loopback (`127.0.0.9`), to be told apart from others.
    ///
    /// # Panics
    /// If nobody accepts, or the address is not ours.
    pub fn connect_from(from: &str, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from = SocketAddr::new(from.parse().unwrap(), 0);
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap_or_else(|error| panic!("{address}: {error}"));
        socket.set_tcp_nodelay(true).unwrap();
        let mut raw = Self { wire: Wire::new(Socket::Plain(socket.into())) };
        raw.patience(PATIENCE);
        raw
    }

    /// Shakes hands on this connection, where it may fail; what follows goes under TLS.
    ///
    /// # Errors
    /// As the handshake tells.
    ///
    /// # Panics
    /// If `name` is no name of a host.
    pub fn try_tls(self, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let Socket::Plain(tcp) = self.wire.stream else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { wire: Wire::new(Socket::Tls(Box::new(stream))) })
    }

    /// What was agreed on in the handshake.
    ///
    /// # Panics
    /// If there was none.
    pub fn session(&self) -> &ClientConnection {
        let Socket::Tls(stream) = &self.wire.stream else { panic!("no handshake was made here") };
        &stream.conn
    }

    /// Sets how long a read or a write may take; 10 s at first.
    ///
    /// # Panics
    /// If the socket cannot be told.
    pub fn patience(&mut self, span: Duration) -> &mut Self {
        self.wire.stream.tcp().set_read_timeout(Some(span)).unwrap();
        self.wire.stream.tcp().set_write_timeout(Some(span)).unwrap();
        self
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// If the gateway does not take them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the gateway takes what is sent");
        self
    }

    /// Sends these bytes, where the gateway may refuse to take them.
    ///
    /// # Errors
    /// As the socket says.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.stream.write_all(bytes.as_ref())
    }

    /// Sends a request without a body and reads its answer.
    pub fn get(&mut self, path: &str) -> Message {
        self.send(request("GET", path, &[], b"")).response()
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
        self.send(request(method, path, fields, body)).response_to(method)
    }

    /// Reads one answer; an interim answer is an answer of its own.
    pub fn response(&mut self) -> Message {
        self.response_to("GET")
    }

    /// Reads one answer to a request with `method`.
    ///
    /// # Panics
    /// If no whole answer comes.
    pub fn response_to(&mut self, method: &str) -> Message {
        self.try_response(method).unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Reads one answer, where there may be none.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn try_response(&mut self, method: &str) -> Result<Message, ReadError> {
        self.wire.response(method)
    }

    /// Reads the head of an answer and none of its body.
    ///
    /// # Panics
    /// If none comes.
    pub fn head(&mut self) -> Message {
        self.wire.head().unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Panics
    /// If the gateway closes before.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.wire.exactly(length).unwrap_or_else(|error| panic!("no bytes: {error:?}"))
    }

    /// Reads what is there; nothing at the end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        self.wire.some()
    }

    /// Reads to the end.
    ///
    /// # Panics
    /// If the connection is reset or does not end.
    pub fn rest(&mut self) -> Vec<u8> {
        self.wire.rest().unwrap_or_else(|error| panic!("the connection does not end in good order: {error}"))
    }

    /// Wants the connection to be closed in good order, with nothing more to read.
    pub fn expect_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came before the end: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Closes the sending side alone.
    ///
    /// # Panics
    /// If the connection is gone already.
    pub fn half_close(&mut self) -> &mut Self {
        self.wire.stream.tcp().shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Goes away by a reset.
    pub fn abort(self) {
        upstream::reset(self.wire.stream.tcp());
    }

    /// The address of this side.
    ///
    /// # Panics
    /// If the socket cannot be asked.
    pub fn local(&self) -> SocketAddr {
        self.wire.stream.tcp().local_addr().unwrap()
    }

    /// The socket, for another thread to send by.
    ///
    /// # Panics
    /// If there are no file descriptors left.
    pub fn second_hand(&self) -> TcpStream {
        self.wire.stream.tcp().try_clone().unwrap()
    }
}

/// A request in wire format, with `host: gate.test` where no host is given and a length where a body is.
///
/// # Panics
/// Never: writing to a string does not fail.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |wanted: &str| fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !has("host") {
        head += "host: gate.test\r\n";
    }
    for (name, value) in fields {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
    Raw::connect(address).ask(method, path, fields, body)
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Message {
    ask(address, "GET", path, &[], b"")
}
