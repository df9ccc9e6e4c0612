//! A small HTTP/1.1 client: one connection, one request at a time, bodies with a length. Benches and counts drive it
//! where wrk cannot: a fixed number of requests, connections that idle, a fixed rate.

use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::wire::tls;

/// A service that takes longer than this for one answer is taken for dead.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// A connection, in cleartext or under TLS.
trait Stream: Read + Write + Debug + Send {}

impl<S: Read + Write + Debug + Send> Stream for S {}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// Connects to a port of this machine.
    pub(crate) fn connect(port: u16) -> Result<Self> {
        Ok(Self { stream: Box::new(dial(port)?), buffer: Vec::new() })
    }

    /// Connects under TLS; hands are shaken with the first request.
    pub(crate) fn connect_tls(port: u16, config: &Arc<ClientConfig>) -> Result<Self> {
        let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from(tls::NAME)?)?;
        Ok(Self { stream: Box::new(StreamOwned::new(connection, dial(port)?)), buffer: Vec::new() })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer> {
        self.send(&request(path, ""))
    }

    /// The same with more fields in the request.
    pub(crate) fn get_with(&mut self, path: &str, headers: &[(String, String)]) -> Result<Answer> {
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(&request(path, &lines.concat()))
    }

    /// Sends this body there: with its length, or in chunks (RFC 9112 §7.1).
    pub(crate) fn post(&mut self, path: &str, body: &[u8], chunked: bool) -> Result<Answer> {
        let length = body.len();
        let framing =
            if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
        let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{framing}\r\n\r\n", tls::NAME).into_bytes();
        if chunked {
            bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
        bytes.extend_from_slice(body);
        if chunked {
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        self.send(&bytes)
    }

    /// Sends the only request of a connection, and waits until the other side has closed it.
    pub(crate) fn get_last(mut self, path: &str) -> Result<Answer> {
        let answer = self.send(&request(path, "Connection: close\r\n"))?;
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => Ok(answer),
            Ok(_) => bail!("there is more than the answer"),
            // Who closes TLS without a word has closed.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(answer),
            Err(error) => Err(error).context("waiting for the end of the connection"),
        }
    }

    /// Sends a request as it stands and reads its answer whole.
    fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill()?;
        };
        let (status, length) = parse(self.buffer.get(..head).unwrap_or_default())?;
        while self.buffer.len() < head + length {
            self.fill()?;
        }
        let body = self.buffer.drain(..head + length).skip(head).collect();
        Ok(Answer { status, body })
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the connection was closed before the answer was whole"),
            Ok(length) => self.buffer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading the answer"),
        }
        Ok(())
    }
}

fn dial(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Opens connections, sends one request on each and gives them back open.
pub(crate) fn hold(connect: impl Fn() -> Result<Client>, path: &str, connections: usize) -> Result<Vec<Client>> {
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        let mut client = connect().with_context(|| format!("connection {number}"))?;
        let answer = client.get(path).with_context(|| format!("connection {number}"))?;
        if answer.status != 200 {
            bail!("connection {number} was answered with {}", answer.status);
        }
        held.push(client);
    }
    Ok(held)
}

/// Sends requests at a fixed rate over some connections and gives the latencies, sorted. A request that is due while the
/// one before it is still under way waits, and its wait counts: a slow answer cannot hide those behind it.
pub(crate) fn paced(port: u16, path: &str, rate: f64, lanes: u32, lasting: Duration) -> Result<Vec<Duration>> {
    let start = Instant::now() + Duration::from_millis(50);
    let step = Duration::from_secs_f64(f64::from(lanes) / rate);
    let workers: Vec<_> = (0..lanes)
        .map(|lane| {
            let first = start + step.mul_f64(f64::from(lane) / f64::from(lanes));
            let path = path.to_owned();
            thread::spawn(move || lane_of(port, &path, first, step, lasting))
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        let Ok(of_lane) = worker.join() else { bail!("a lane of the load panicked") };
        latencies.extend(of_lane?);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

fn lane_of(port: u16, path: &str, first: Instant, step: Duration, lasting: Duration) -> Result<Vec<Duration>> {
    let mut client = Client::connect(port)?;
    let request = request(path, "");
    let mut latencies = Vec::new();
    let mut due = first;
    while due < first + lasting {
        let mut from = due;
        if let Some(pause) = due.checked_duration_since(Instant::now()) {
            thread::sleep(pause);
            // Waking up late is the fault of the load, not of the proxy.
            from = Instant::now();
        }
        if client.send(&request)?.status != 200 {
            bail!("an answer under a fixed rate was not 200");
        }
        latencies.push(from.elapsed());
        due += step;
    }
    Ok(latencies)
}

/// A request with these lines besides.
fn request(path: &str, more: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", tls::NAME).into_bytes()
}

/// The status and the length of the body.
fn parse(head: &[u8]) -> Result<(u16, usize)> {
    let head = str::from_utf8(head).context("the head of the answer is no text")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in `{line}`"))?;
    let length =
        lines.filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.context("the answer has no content-length, which this client needs")?;
    Ok((status, length.trim().parse().context("the content-length is no number")?))
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::{Client, parse};

    #[test]
    fn an_answer_is_read_whole_even_in_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for pieces in [
                ["HTTP/1.1 200 OK\r\nContent-Le", "ngth: 5\r\n\r\nhel", "lo"],
                ["HTTP/1.1 404 No\r\n", "content-length:0\r\n", "\r\n"],
            ] {
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                for piece in pieces {
                    stream.write_all(piece.as_bytes()).unwrap();
                    stream.flush().unwrap();
                }
            }
        });
        let mut client = Client::connect(port).unwrap();
        let answer = client.get("/a").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
        assert_eq!(client.get("/b").unwrap().status, 404);
        service.join().unwrap();
    }

    #[test]
    fn an_answer_without_a_length_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").unwrap(), (204, 0));
    }
}
