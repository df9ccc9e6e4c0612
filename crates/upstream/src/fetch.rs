//! The gateway's own requests, off the request path: to Consul, etcd and Kubernetes, for tokens and for keys.
//!
//! One exchange of HTTP/1.1 on a connection of its own, in cleartext, under TLS or by a Unix socket. Each step is bounded by an
//! instant, and each body by a size; long answers are read piece by piece or line by line. Runs on the control runtime, never
//! on a worker. Deliberately not here: redirects, cookies, pools and HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_http1::answer::HeadReader;
use pylon_http1::body::{Decoder, Incomplete, Piece};
use pylon_http1::fault::Fault;
use pylon_net::dial::{connect, connect_unix};
use pylon_net::resolve::{ResolveError, Resolver};
use pylon_net::stream::Stream;
use pylon_net::timer::timeout_at;
use pylon_net::tls::client::{Alpn, ClientTls, Towards};
use pylon_net::tls::spec::UpstreamTlsSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::endpoint::Place;
use crate::h1::encode::{self, EncodeError, Framing, RequestHead};
use crate::h1::exchange::MAX_INTERIM;
use crate::head::HeadError;
use pylon_core::spare;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("pylon/", env!("CARGO_PKG_VERSION")));

/// A service that the gateway asks for itself.
#[derive(Debug, Clone)]
pub struct Remote {
    place: Place,
    /// Stands before the path of each request, without a `/` at its end.
    base: String,
    tls: Option<(Arc<ClientTls>, Towards)>,
    resolver: Resolver,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query behind the path of the service's own URL; may be empty.
    pub path: String,
    /// The fields, but `Host` and those of the body's length.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    stream: Stream,
    buf: BytesMut,
    decoder: Decoder,
    /// What was read of the line that is not whole yet.
    line: BytesMut,
}

/// An answer that is all here.
#[derive(Debug, Clone)]
pub struct Whole {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No connection could be made.
    #[error("no connection to `{0}`: {1}")]
    Connect(String, io::Error),
    /// The request cannot be written.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// The time was over.
    #[error("no answer in time")]
    Late,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The answer is not HTTP.
    #[error("the answer is not valid: {0}")]
    Head(#[from] HeadError),
    /// The body is not framed well.
    #[error("the answer is not valid: {0}")]
    Framing(#[from] Fault),
    /// The body is cut.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// The body, or a line of it, is larger than it may be, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl From<EncodeError> for FetchError {
    fn from(error: EncodeError) -> Self {
        Self::Request(error.to_string())
    }
}

impl Remote {
    /// The service at `url`, which may have a path. What is wrong with it is told at `at`, what is wrong with TLS at the key `tls`.
    pub fn new(
        url: &str,
        at: &FieldPath,
        tls: Option<&UpstreamTlsSpec>,
        resolver: &Resolver,
    ) -> Result<Self, Vec<SpecError>> {
        let below = FieldPath::root().key("tls");
        let (place, base) = parse(url).map_err(|(problem, help)| vec![SpecError { at: at.clone(), problem, help }])?;
        let tls = match (tls, place.tls) {
            (None, false) => None,
            (Some(_), false) => {
                let error = SpecError::new(below, format!("`tls` is written, but `{url}` is not reached under TLS"));
                return Err(vec![error.help("write the address as `https://host:port`")]);
            }
            (spec, true) => {
                let loaded = ClientTls::load(&spec.cloned().unwrap_or_default(), Alpn::Http1);
                let tls = loaded
                    .map_err(|errors| -> Vec<_> { errors.into_iter().map(|error| error.below(&below)).collect() })?;
                Some(Arc::new(tls))
            }
        };
        Self::secured(place, base, tls, resolver).map_err(|error| vec![error.below(at)])
    }

    /// The same where TLS is at hand, which `https://` needs.
    pub(crate) fn with_tls(url: &str, tls: Option<&Arc<ClientTls>>, resolver: &Resolver) -> Result<Self, SpecError> {
        let parsed = parse(url);
        let (place, base) = parsed.map_err(|(problem, help)| SpecError { at: FieldPath::root(), problem, help })?;
        if place.tls && tls.is_none() {
            return Err(SpecError::new(FieldPath::root(), format!("there is no TLS for `{url}`")));
        }
        let tls = tls.filter(|_| place.tls).cloned();
        Self::secured(place, base, tls, resolver)
    }

    fn secured(
        place: Place,
        base: String,
        tls: Option<Arc<ClientTls>>,
        resolver: &Resolver,
    ) -> Result<Self, SpecError> {
        let tls = match tls {
            None => None,
            Some(tls) => {
                let Some(towards) = tls.towards(&place.host) else {
                    let problem = format!("no certificate can be for `{}`", place.host);
                    let error = SpecError::new(FieldPath::root(), problem);
                    return Err(error.help("say which name it is for: `tls: { server_name: users.internal }`"));
                };
                Some((tls, towards))
            }
        };
        Ok(Self { place, base, tls, resolver: resolver.clone() })
    }

    /// Host and port, for people.
    pub fn shown(&self) -> String {
        self.place.id().to_string()
    }

    /// Whether nobody on the way can read what is said: it is said under TLS, or does not leave this machine.
    pub fn is_private(&self) -> bool {
        let place = &self.place;
        let local = || place.literal().is_some_and(|addr| addr.ip().is_loopback()) || place.host == "localhost";
        self.tls.is_some() || place.path.is_some() || local()
    }

    /// Asks, and reads the whole answer, whose body has at most `cap` bytes.
    pub async fn fetch(&self, ask: &Ask, cap: usize, deadline: Instant) -> Result<Whole, FetchError> {
        self.ask(ask, deadline).await?.whole(cap, deadline).await
    }

    /// Asks, and reads the head of the answer. The body may be read beyond `deadline`.
    pub async fn ask(&self, ask: &Ask, deadline: Instant) -> Result<Answer, FetchError> {
        let head = self.head(ask)?;
        timeout_at(Some(deadline), self.exchange(head, ask, deadline)).await.unwrap_or(Err(FetchError::Late))
    }

    async fn exchange(&self, head: Vec<u8>, ask: &Ask, deadline: Instant) -> Result<Answer, FetchError> {
        let mut stream = self.connect(deadline).await?;
        stream.write_all(&head).await?;
        stream.write_all(&ask.body).await?;
        stream.flush().await?;
        let (mut reader, mut buf) = (HeadReader::default(), BytesMut::new());
        for _ in 0..=MAX_INTERIM {
            let head = loop {
                if let Some(head) = reader.read(&mut buf, &ask.method, MAX_HEAD).map_err(HeadError::from)? {
                    break head;
                }
                fill(&mut stream, &mut buf).await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(HeadError::Switched.into());
            }
            if !head.status.is_informational() {
                let (status, headers, decoder) = (head.status, head.headers, Decoder::of_answer(head.length));
                return Ok(Answer { status, headers, stream, buf, decoder, line: BytesMut::new() });
            }
        }
        Err(HeadError::Interim.into())
    }

    fn head(&self, ask: &Ask) -> Result<Vec<u8>, FetchError> {
        let path = PathAndQuery::try_from(format!("{}{}", self.base, ask.path))
            .map_err(|error| FetchError::Request(error.to_string()))?;
        let mut headers = ask.headers.clone();
        headers.entry(header::USER_AGENT).or_insert(AGENT);
        let framing = if ask.body.is_empty() { Framing::Empty } else { Framing::Fixed(ask.body.len() as u64) };
        let mut out = Vec::with_capacity(512);
        encode::request(
            &mut out,
            &RequestHead {
                method: &ask.method,
                path: &path,
                headers: &headers,
                announced: b"connection: close\r\n",
                host: None,
                fallback_host: &self.place.authority,
                framing,
                websocket: false,
                expects: false,
            },
        )?;
        Ok(out)
    }

    async fn connect(&self, deadline: Instant) -> Result<Stream, FetchError> {
        let failed = |error| FetchError::Connect(self.shown(), error);
        let socket = match &self.place.path {
            Some(path) => connect_unix(Path::new(&**path), Some(deadline)).await,
            None => connect(&self.addresses().await?, Some(deadline)).await,
        };
        let socket = socket.map_err(failed)?;
        let Some((tls, towards)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let files = Arc::clone(tls);
        // Renewed roots and certificates count from here on. What cannot be read leaves those before in force.
        let _read = tokio::task::spawn_blocking(move || files.refresh(pylon_observe::clock::unix_now())).await;
        towards.connect(socket, true).await.map_err(failed)
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, FetchError> {
        let resolved = self.resolver.lookup_ip(&self.place.host).await?;
        Ok(resolved.addrs.into_iter().map(|ip| SocketAddr::new(ip, self.place.port)).collect())
    }
}

impl Ask {
    /// A GET.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A POST of such a body.
    pub fn post(path: impl Into<String>, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { method: Method::POST, path: path.into(), headers, body: body.into() }
    }

    /// With a field more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

impl Answer {
    /// The whole body, of at most `cap` bytes.
    pub async fn whole(mut self, cap: usize, deadline: Instant) -> Result<Whole, FetchError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece(deadline).await? {
            if body.len().saturating_add(piece.len()) > cap {
                return Err(FetchError::TooLarge(cap));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Whole { status: self.status, headers: self.headers, body: body.freeze() })
    }

    /// The next piece of the body, as it comes; none at its end.
    pub async fn piece(&mut self, deadline: Instant) -> Result<Option<Bytes>, FetchError> {
        timeout_at(Some(deadline), self.next()).await.unwrap_or(Err(FetchError::Late))
    }

    /// The next line of the body that is not empty, without its end; none at the end of the body. A line is never longer than
    /// `cap`. After [`FetchError::Late`] it may be asked for again.
    pub async fn line(&mut self, cap: usize, deadline: Instant) -> Result<Option<Bytes>, FetchError> {
        let mut looked = 0;
        loop {
            let fresh = self.line.get(looked..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', fresh) {
                let line = self.line.split_to(looked.saturating_add(end).saturating_add(1)).freeze();
                looked = 0;
                if line.len() > cap {
                    return Err(FetchError::TooLarge(cap));
                }
                let text = line.trim_ascii();
                if !text.is_empty() {
                    return Ok(Some(line.slice_ref(text)));
                }
                continue;
            }
            if self.line.len() > cap {
                return Err(FetchError::TooLarge(cap));
            }
            looked = self.line.len();
            match self.piece(deadline).await? {
                Some(piece) => self.line.extend_from_slice(&piece),
                None => {
                    let rest = self.line.split().freeze();
                    let text = rest.trim_ascii();
                    return Ok((!text.is_empty()).then(|| rest.slice_ref(text)));
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            match self.decoder.next(&mut self.buf)? {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End | Piece::Trailers(_) => return Ok(None),
                Piece::More => {
                    if fill(&mut self.stream, &mut self.buf).await?.is_none() {
                        self.decoder.close()?;
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl Whole {
    /// The beginning of the body, for a message: as text, on one line.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(self.body.get(..self.body.len().min(200)).unwrap_or_default()).into_owned();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Reads once. None at the end of the connection.
async fn fill(stream: &mut Stream, buf: &mut BytesMut) -> io::Result<Option<()>> {
    buf.reserve(spare::READ);
    match stream.read_buf(buf).await {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(())),
        // Many services leave out TLS' own end of a connection; a body that is cut by it is told by its framing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where it is, and the path that stands before all others.
fn parse(url: &str) -> Result<(Place, String), (String, Option<String>)> {
    let rest = url.find("://").and_then(|colon| url.get(colon.saturating_add(3)..));
    let path = rest.and_then(|rest| rest.find('/').and_then(|slash| rest.get(slash..))).unwrap_or_default();
    let bad = |problem: &str| (format!("`{url}` {problem}"), Some("write it as `https://host:port`".to_owned()));
    if url.contains(['?', '#']) {
        return Err(bad("has a query or a fragment"));
    }
    if url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("tcp:")) {
        return Err(bad("is not spoken to by HTTP"));
    }
    let place = Place::from_url(url.strip_suffix(path).unwrap_or(url))?;
    let base = path.trim_end_matches('/').to_owned();
    if PathAndQuery::try_from(format!("{base}/")).is_err() {
        return Err(bad("has no valid path"));
    }
    Ok((place, base))
}
