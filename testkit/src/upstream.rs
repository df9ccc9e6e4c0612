//! Services that answer by script: byte by byte over a [`Peer`], or message by message with an [`Answer`].
//!
//! Each connection has a thread. What every connection received is kept, to the byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::message::{Message, ReadError, Wire};
use crate::wait;

/// How long a service waits for what its script wants to read.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service on loopback. It ends when it is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    open: AtomicUsize,
    connections: Mutex<Vec<Arc<Record>>>,
    seen: Mutex<Vec<Message>>,
}

/// What is known of one connection.
#[derive(Debug)]
struct Record {
    received: Mutex<Vec<u8>>,
    /// While it is open: a service that sees a hundred thousand connections must not hold them all.
    socket: Mutex<Option<TcpStream>>,
}

/// How a connection ended, as the service saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side closed in good order.
    Closed,
    /// The other side reset.
    Reset,
    /// It is still open.
    Open,
}

/// The service's side of one connection.
#[derive(Debug)]
pub struct Peer {
    /// Which connection of the service this is, from 0.
    pub number: usize,
    wire: Wire<Recorded>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Recorded {
    stream: TcpStream,
    record: Arc<Record>,
}

impl Upstream {
    /// A service whose every connection is played by `script`; the connection is closed when the script returns.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn script(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::script_at("127.0.0.1:0".parse().unwrap(), script)
    }

    /// As [`Upstream::script`], at an address of choice: to come back where a service was before.
    ///
    /// # Panics
    /// If the address is taken.
    pub fn script_at(address: SocketAddr, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = listen(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (of_thread, script) = (Arc::clone(&shared), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ended.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let mut peer = Peer::new(stream, &of_thread);
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(&mut peer));
            }
        });
        Self { address, shared }
    }

    /// A service that answers each request by `answer`.
    pub fn http(answer: impl Fn(&Message) -> Answer + Send + Sync + 'static) -> Self {
        Self::script(move |peer| peer.serve(&answer))
    }

    /// A service that tells what it saw: `{ method, path, headers: { name: value }, body, trailers }`.
    pub fn echo() -> Self {
        Self::http(|request| Answer::json(&told(request)))
    }

    /// A service that answers `name`, to tell services apart.
    pub fn named(name: &str) -> Self {
        let answer = Answer::text(name);
        Self::http(move |_| answer.clone())
    }

    /// A service that gives back the field `x-tag` of each request, in a body and a field: who gets another's answer sees it.
    pub fn tags() -> Self {
        Self::http(|request| {
            let tag = request.field("x-tag").unwrap_or_default();
            Answer::text(&tag).field("x-tag", &tag)
        })
    }

    /// An address of loopback where nobody listens.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// How many connections are open, as far as the scripts have come.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// How many whole requests were read.
    pub fn requests(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// The requests that were read, in order.
    pub fn seen(&self) -> Vec<Message> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The last request that was read.
    ///
    /// # Panics
    /// If there was none.
    pub fn last(&self) -> Message {
        self.seen().pop().expect("the service has seen a request")
    }

    /// Every byte that connection `number` received.
    pub fn received(&self, number: usize) -> Vec<u8> {
        let record = self.shared.connections.lock().unwrap().get(number).map(Arc::clone);
        record.map(|record| record.received.lock().unwrap().clone()).unwrap_or_default()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        for record in self.shared.connections.lock().unwrap().iter() {
            if let Some(socket) = &*record.socket.lock().unwrap() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Peer {
    fn new(stream: TcpStream, shared: &Arc<Shared>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let record = Arc::new(Record { received: Mutex::default(), socket: Mutex::new(stream.try_clone().ok()) });
        let mut connections = shared.connections.lock().unwrap();
        let number = connections.len();
        connections.push(Arc::clone(&record));
        shared.open.fetch_add(1, SeqCst);
        Self { number, wire: Wire::new(Recorded { stream, record }), shared: Arc::clone(shared) }
    }

    /// Answers requests until the other side has no more.
    pub fn serve(&mut self, answer: impl Fn(&Message) -> Answer) {
        while let Ok(request) = self.request() {
            let answer = answer(&request);
            if !self.answer(&answer, request.method()) || answer.close {
                return;
            }
        }
    }

    /// Reads one whole request.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn request(&mut self) -> Result<Message, ReadError> {
        let request = self.wire.request()?;
        self.shared.seen.lock().unwrap().push(request.clone());
        Ok(request)
    }

    /// Reads the head of a request and none of its body.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn head(&mut self) -> Result<Message, ReadError> {
        self.wire.head()
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// As [`ReadError`] tells.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        self.wire.exactly(length)
    }

    /// Reads what is there; nothing at the end.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        self.wire.some()
    }

    /// Sends an answer; false when the other side takes no more.
    pub fn answer(&mut self, answer: &Answer, method: &str) -> bool {
        if !answer.delay.is_zero() {
            wait::pause(answer.delay);
        }
        for (bytes, pause) in answer.parts(method) {
            if !self.send(bytes) {
                return false;
            }
            if !pause.is_zero() {
                wait::pause(pause);
            }
        }
        true
    }

    /// Sends these bytes; false when the other side takes no more.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.stream.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends these bytes one by one, with a pause between.
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> bool {
        bytes.as_ref().iter().all(|byte| {
            wait::pause(pause);
            self.send([*byte])
        })
    }

    /// Is silent for a while.
    pub fn pause(&self, span: Duration) {
        wait::pause(span);
    }

    /// Closes the sending side alone.
    pub fn half_close(&self) {
        let _ = self.wire.stream.stream.shutdown(Shutdown::Write);
    }

    /// Closes in good order. Nothing can be sent or read any more.
    pub fn close(&self) {
        let _ = self.wire.stream.stream.shutdown(Shutdown::Both);
    }

    /// Ends with a reset.
    pub fn reset(&self) {
        reset(&self.wire.stream.stream);
    }

    /// Reads and drops everything until the other side ends the connection, for `limit` at the most.
    ///
    /// # Panics
    /// If the socket cannot be told.
    pub fn wait_for_end(&mut self, limit: Duration) -> End {
        let until = wait::now() + limit;
        let end = loop {
            let left = until.saturating_duration_since(wait::now());
            if left.is_zero() {
                break End::Open;
            }
            self.wire.stream.stream.set_read_timeout(Some(left)).unwrap();
            match self.wire.some() {
                Ok(bytes) if bytes.is_empty() => break End::Closed,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break End::Open,
                Err(_) => break End::Reset,
            }
        };
        self.wire.stream.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        end
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
        self.wire.stream.record.socket.lock().unwrap().take();
        self.shared.open.fetch_sub(1, SeqCst);
    }
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.record.received.lock().unwrap().extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// An address of loopback that accepts nothing: its queue is full, so that a connect hangs.
#[derive(Debug)]
pub struct Full {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Full {
    /// Fills a queue.
    ///
    /// # Panics
    /// If loopback has no free port, or the queue has no end.
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(stream);
            assert!(waiting.len() < 64, "the queue has no end");
        }
        Self { listener, _waiting: waiting }
    }

    /// `http://127.0.0.1:PORT`.
    ///
    /// # Panics
    /// If the socket cannot be asked.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

impl Default for Full {
    fn default() -> Self {
        Self::new()
    }
}

/// What the echo tells of a request.
pub fn told(request: &Message) -> Value {
    let map = |fields: &[(String, String)]| {
        let mut map = Map::new();
        for (name, value) in fields {
            match map.get_mut(name) {
                Some(Value::String(before)) => *before = format!("{before}, {value}"),
                _ => drop(map.insert(name.clone(), Value::from(value.as_str()))),
            }
        }
        map
    };
    json!({
        "method": request.method(),
        "path": request.target(),
        "headers": map(&request.fields),
        "body": request.text(),
        "trailers": map(&request.trailers),
    })
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Resets a connection whatever else holds its socket (connect(2): AF_UNSPEC dissolves the association).
pub(crate) fn reset(stream: &TcpStream) {
    let _ = rustix::net::connect_unspec(stream);
}
