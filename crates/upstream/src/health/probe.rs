//! One check of one endpoint, on a connection of its own: an answer to GET, `grpc.health.v1.Health/Check`, or a connection alone.
//!
//! Redirects are not followed, interim answers are passed over. Of a body the first 64 KiB are looked at; it is read to its end
//! where that comes soon, so that the service sees the connection closed by somebody who was done with it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use memchr::memmem;
use pylon_core::body::Body;
use pylon_core::connection::Interim;
use pylon_core::units::Span;
use pylon_http1::answer::{Head, HeadReader};
use pylon_http1::body::{Decoder, Piece};
use pylon_http2::{Piece as Http2Piece, RecvStream};
use pylon_net::dial::{connect, connect_unix};
use pylon_net::proxy_protocol;
use pylon_net::stream::Stream;
use pylon_net::timer::timeout_at;
use pylon_net::tls::client::Towards;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::grpc;
use super::spec::Statuses;
use crate::endpoint::Endpoint;
use crate::h1::conn::Open;
use crate::h1::encode::{self, Framing, RequestHead};
use crate::h1::exchange::{Asked, MAX_INTERIM};
use crate::h2;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How much of a body is read.
const MAX_BODY: usize = 64 * 1024;
/// For how long what is left of a body is waited for once the verdict stands.
const LINGER: Duration = Duration::from_millis(250);

/// What is asked of endpoints, and how.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) ask: Ask,
    /// The port that is asked in place of the endpoint's own.
    pub(crate) port: Option<u16>,
    /// Whether HTTP/2 is spoken in cleartext without asking, and nothing else under TLS.
    pub(crate) http2: bool,
    /// The version of the PROXY header that begins each connection.
    pub(crate) tells: Option<proxy_protocol::Version>,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Whether a connection can be made.
    Tcp,
    Http(Http),
    Grpc {
        service: String,
        host: Option<HeaderValue>,
        headers: HeaderMap,
    },
}

/// A question by HTTP, and which answers are good.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) path: PathAndQuery,
    /// In place of the endpoint's own.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    pub(crate) status: Vec<Statuses>,
    /// What the body must contain.
    pub(crate) body: Option<Bytes>,
}

/// Where an endpoint is now.
#[derive(Debug)]
pub(crate) struct Aim {
    path: Option<Arc<str>>,
    addrs: Arc<[SocketAddr]>,
    tls: Option<Towards>,
    authority: HeaderValue,
}

impl Aim {
    pub(crate) fn at(endpoint: &Endpoint) -> Self {
        Self {
            path: endpoint.path.clone(),
            addrs: Arc::clone(&endpoint.addrs),
            tls: endpoint.tls.clone(),
            authority: endpoint.authority.clone(),
        }
    }

    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { path: None, addrs: Arc::new([]), tls: None, authority: HeaderValue::from_static("nowhere") }
    }

    /// Whether that is still where it is. How it is spoken to does not change.
    pub(crate) fn is_at(&self, endpoint: &Endpoint) -> bool {
        Arc::ptr_eq(&self.addrs, &endpoint.addrs) || self.addrs == endpoint.addrs
    }
}

impl Probe {
    /// Asks once, for so long at the most. The error is for people.
    pub(crate) async fn run(&self, aim: &Aim, timeout: Duration) -> Result<(), String> {
        let deadline = now() + timeout;
        let late =
            |_| format!("no answer within {}", Span::from_millis(timeout.as_millis().try_into().unwrap_or(u64::MAX)));
        let mut rest = Rest::Nothing;
        let verdict = timeout_at(Some(deadline), self.ask(aim, deadline, &mut rest)).await.map_err(late)?;
        // How much is left of an answer, and how soon it comes, says nothing any more.
        let _ended = timeout_at(Some(now() + LINGER), rest.read(MAX_BODY)).await;
        verdict
    }

    /// The verdict; what follows it on the wire is left in `rest`.
    async fn ask(&self, aim: &Aim, deadline: Instant, rest: &mut Rest) -> Result<(), String> {
        let mut stream = self.reach(aim, deadline).await?;
        let question = Question::of(&self.ask);
        let Some(question) = question else { return Ok(()) };
        let head = RequestHead {
            method: &question.method,
            path: question.path,
            headers: question.headers,
            announced: b"",
            host: question.host,
            fallback_host: &aim.authority,
            framing: question.framing(),
            websocket: false,
            expects: false,
        };
        let http2 = stream.agreed_on_http2() || self.http2 && aim.tls.is_none();
        let status = match &self.ask {
            Ask::Tcp => return Ok(()),
            Ask::Grpc { .. } if !http2 => return Err("it does not speak HTTP/2".to_owned()),
            Ask::Grpc { .. } => {
                let (status, headers, body) = send_http2(stream, aim, &head, question.body, deadline).await?;
                return grpc::serving(status, &headers, body).await;
            }
            Ask::Http(_) if http2 => {
                let (status, _, body) = send_http2(stream, aim, &head, question.body, deadline).await?;
                *rest = Rest::Http2(body);
                status
            }
            Ask::Http(_) => {
                let (answer, buf) = send_http1(&mut stream, &head).await?;
                *rest = Rest::Http1 { stream, buf, decoder: Decoder::of_answer(answer.length) };
                answer.status
            }
        };
        match &self.ask {
            Ask::Http(http) => http.judge(status, rest).await,
            Ask::Grpc { .. } | Ask::Tcp => Ok(()),
        }
    }

    async fn reach(&self, aim: &Aim, deadline: Instant) -> Result<Stream, String> {
        let connected = match (&aim.path, self.port) {
            (Some(path), _) => connect_unix(Path::new(&**path), Some(deadline)).await,
            (None, None) => connect(&aim.addrs, Some(deadline)).await,
            (None, Some(port)) => {
                let addrs: Vec<_> = aim.addrs.iter().map(|addr| SocketAddr::new(addr.ip(), port)).collect();
                connect(&addrs, Some(deadline)).await
            }
        };
        let mut socket = connected.map_err(|error| format!("no connection: {error}"))?;
        if let Some(version) = self.tells {
            // There is no client whose address could be told.
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let header = proxy_protocol::header(version, None, nowhere);
            socket.write_all(&header).await.map_err(|error| format!("no connection: {error}"))?;
        }
        match &aim.tls {
            None => Ok(Stream::Plain(socket)),
            Some(tls) => tls.connect(socket, false).await.map_err(|error| format!("no TLS: {error}")),
        }
    }
}

/// A question that is sent.
struct Question<'a> {
    method: Method,
    path: &'a PathAndQuery,
    host: Option<&'a HeaderValue>,
    headers: &'a HeaderMap,
    body: Bytes,
}

impl<'a> Question<'a> {
    /// None where nothing is sent.
    fn of(ask: &'a Ask) -> Option<Self> {
        match ask {
            Ask::Tcp => None,
            Ask::Http(http) => Some(Self {
                method: Method::GET,
                path: &http.path,
                host: http.host.as_ref(),
                headers: &http.headers,
                body: Bytes::new(),
            }),
            Ask::Grpc { service, host, headers } => Some(Self {
                method: Method::POST,
                path: grpc::path(),
                host: host.as_ref(),
                headers,
                body: grpc::question(service),
            }),
        }
    }

    fn framing(&self) -> Framing {
        if self.body.is_empty() { Framing::Empty } else { Framing::Fixed(self.body.len() as u64) }
    }
}

impl Http {
    async fn judge(&self, status: StatusCode, body: &mut Rest) -> Result<(), String> {
        if !self.status.iter().any(|good| good.has(status.as_u16())) {
            let wanted: Vec<_> = self.status.iter().map(ToString::to_string).collect();
            return Err(format!("the status {} is not {}", status.as_u16(), wanted.join(" or ")));
        }
        match &self.body {
            Some(wanted) => contains(&body.read(MAX_BODY).await?, wanted),
            None => Ok(()),
        }
    }
}

/// What is still to come of an answer, and the connection that it comes on.
enum Rest {
    Nothing,
    Http1 { stream: Stream, buf: BytesMut, decoder: Decoder },
    Http2(Answered),
}

impl Rest {
    /// Reads to the end of the body, or until there are so many bytes of it.
    async fn read(&mut self, most: usize) -> Result<BytesMut, String> {
        let mut read = BytesMut::new();
        while read.len() < most
            && let Some(data) = self.next().await?
        {
            read.extend_from_slice(&data);
        }
        Ok(read)
    }

    /// The next piece of the body; none at its end.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Nothing => Ok(None),
            Self::Http2(body) => match body.next().await? {
                Some(Http2Piece::Data(data)) => Ok(Some(data)),
                Some(Http2Piece::Trailers(_)) | None => Ok(None),
            },
            Self::Http1 { stream, buf, decoder } => loop {
                match decoder.next(buf).map_err(|error| error.to_string())? {
                    Piece::Data(data) => return Ok(Some(data)),
                    Piece::End | Piece::Trailers(_) => return Ok(None),
                    Piece::More if stream.read_buf(buf).await.map_err(broke)? == 0 => {
                        decoder.close().map_err(|error| error.to_string())?;
                        return Ok(None);
                    }
                    Piece::More => {}
                }
            },
        }
    }
}

/// Sends a question, and reads the head of its answer; what was read beyond that comes with it.
async fn send_http1(stream: &mut Stream, head: &RequestHead<'_>) -> Result<(Head, BytesMut), String> {
    let mut out = Vec::with_capacity(512);
    encode::request(&mut out, head).map_err(|error| error.to_string())?;
    stream.write_all(&out).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let (mut reader, mut buf, mut interim) = (HeadReader::default(), BytesMut::new(), 0);
    loop {
        match reader.read(&mut buf, head.method, MAX_HEAD).map_err(|error| error.to_string())? {
            Some(head) if !head.status.is_informational() => return Ok((head, buf)),
            Some(_) if interim < MAX_INTERIM => interim += 1,
            Some(_) => return Err("too many interim answers".to_owned()),
            None if stream.read_buf(&mut buf).await.map_err(broke)? == 0 => {
                return Err("the connection was closed before an answer".to_owned());
            }
            None => {}
        }
    }
}

fn broke(error: io::Error) -> String {
    format!("the connection broke: {error}")
}

fn contains(body: &[u8], wanted: &[u8]) -> Result<(), String> {
    let body = body.get(..MAX_BODY).unwrap_or(body);
    match memmem::find(body, wanted) {
        Some(_) => Ok(()),
        None => Err(format!("the body does not contain `{}`", String::from_utf8_lossy(wanted))),
    }
}

/// The body of an answer over HTTP/2, and what keeps its stream alive.
pub(super) struct Answered {
    stream: RecvStream,
    _flight: h2::exchange::Flight,
}

impl Answered {
    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Http2Piece>, String> {
        let piece = poll_fn(|cx| self.stream.poll(cx)).await.transpose();
        piece.map_err(|error| format!("the answer broke off: {error}"))
    }
}

async fn send_http2(
    stream: Stream,
    aim: &Aim,
    head: &RequestHead<'_>,
    body: Bytes,
    deadline: Instant,
) -> Result<(StatusCode, HeaderMap, Answered), String> {
    let addr = aim.addrs.first().copied().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let uncounted = Open { _counted: None, _place: None };
    let conn = h2::conn::Conn::begin(stream, addr, deadline, MAX_HEAD, uncounted).await;
    let conn = conn.map_err(|error| format!("no HTTP/2: {error}"))?;
    let place = conn.place().ok_or("the connection allows no stream")?;
    let mut body = if body.is_empty() { Body::Empty } else { Body::Full(body) };
    let flight = h2::exchange::Flight::launch(place, head, aim.tls.is_some(), &mut body);
    let mut flight = flight.map_err(|fault| fault.to_string())?;
    let interim = Interim::default();
    let asked =
        Asked { method: head.method, max_head: MAX_HEAD, interim: &interim, version: Version::HTTP_10, key: None };
    let answer = poll_fn(|cx| flight.poll_head(cx, &asked)).await.map_err(|fault| fault.to_string())?;
    let (parts, stream) = answer.into_parts();
    Ok((parts.status, parts.headers, Answered { stream, _flight: flight }))
}

/// What a field of an answer says, where it is there and a text.
pub(super) fn field<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Fields of a question by gRPC.
pub(super) fn with_grpc(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
