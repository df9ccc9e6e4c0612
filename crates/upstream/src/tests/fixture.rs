//! Scripted services, and what a call needs from the rungs above.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Version};
use http_body_util::BodyExt as _;
use pylon_core::body::Body;
use pylon_core::carry::Carry;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::{Exchange, Head};
use pylon_core::secret::{Secret, SecretSpec};
use pylon_core::short::FromScalar as _;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::{Request, Response};
use pylon_net::resolve::Resolver;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::call::CallOptions;
use crate::call::hedge::Hedge;
use crate::call::hedge::spec::ShortHedge;
use crate::call::retry::Retry;
use crate::call::retry::spec::ShortRetry;
use crate::discovery::agents::{Agents, Reading};
use crate::discovery::file::ReadYaml;
use crate::error::CallError;
use crate::locality::LocalitySpec;
use crate::spec::UpstreamSpec;
use crate::upstream::{Building, OfRoute, Upstream};

/// A service whose every connection is served by `script`.
pub(super) struct Service {
    pub(super) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Service {
    pub(super) async fn new<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// A service at `addr` that says its own address.
    pub(super) async fn named(addr: SocketAddr) -> Self {
        let ip = addr.ip().to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ip}", ip.len());
        Self::at(addr, move |mut peer, _| {
            let answer = answer.clone();
            async move { while peer.request().await.is_some() && peer.write(answer.as_bytes()).await {} }
        })
        .await
    }

    async fn at<F, Fut>(addr: SocketAddr, script: F) -> Self
    where
        F: Fn(Peer, usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = counter.fetch_add(1, SeqCst);
                tokio::spawn(script(Peer { stream, ahead: Vec::new() }, number));
            }
        });
        Self { addr, connections, task }
    }

    /// A service that gives the same answer to every request, whatever it is.
    pub(super) async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::new(move |mut peer, _| {
            let answer = Arc::clone(&answer);
            async move { while peer.request().await.is_some() && peer.write(&answer).await {} }
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many connections have been accepted.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service's end of a connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    /// The next head, with its empty line; none at the end of the connection.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.ahead.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            self.fill().await?;
        }
    }

    /// The next head and its body as it was on the wire.
    pub(super) async fn request(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let body = if let Some((_, rest)) = lower.split_once("content-length: ") {
            self.bytes(rest.lines().next().unwrap().parse().unwrap()).await?
        } else if lower.contains("transfer-encoding: chunked") {
            self.until(b"0\r\n\r\n").await?
        } else {
            Vec::new()
        };
        Some((head, body))
    }

    pub(super) async fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill().await?;
        }
        Some(self.ahead.drain(..count).collect())
    }

    pub(super) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        while !self.ahead.ends_with(end) {
            self.fill().await?;
        }
        Some(std::mem::take(&mut self.ahead))
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.ahead).await.ok()?;
        (read > 0).then_some(())
    }
}

/// An upstream made of a document, started on the runtime of the test.
pub(super) fn upstream(document: &str) -> Arc<Upstream> {
    with_servers(document, &["127.0.0.1:9".parse().unwrap()])
}

pub(super) fn with_servers(document: &str, servers: &[SocketAddr]) -> Arc<Upstream> {
    carried(document, servers, &Carry::default())
}

pub(super) fn carried(document: &str, servers: &[SocketAddr], carry: &Carry) -> Arc<Upstream> {
    asking(document, "{}", servers, carry)
}

/// The same with what a document says under `discovery`.
pub(super) fn asking(document: &str, discovery: &str, servers: &[SocketAddr], carry: &Carry) -> Arc<Upstream> {
    let spec: UpstreamSpec = serde_json::from_str(document).unwrap();
    let resolver = Resolver::new(servers).unwrap();
    let yaml: ReadYaml = |text| serde_json::from_str(text).map_err(|error| error.to_string());
    let cx = Building {
        carry,
        resolver: &resolver,
        yaml,
        agents: &agents(discovery, &resolver),
        locality: &LocalitySpec::from_scalar("here").unwrap(),
        secrets: revealed,
    };
    let upstream = Arc::new(Upstream::compile("users".into(), &spec, &cx).unwrap());
    upstream.start(&tokio::runtime::Handle::current());
    upstream
}

/// Who is asked, by what a document says under `discovery`.
pub(crate) fn agents(discovery: &str, resolver: &Resolver) -> Agents {
    let yaml: ReadYaml = |text| serde_json::from_str(text).map_err(|error| error.to_string());
    let reading = Reading { resolver, yaml, reveal: revealed };
    Agents::compile(&serde_json::from_str(discovery).unwrap(), &reading).unwrap()
}

/// Secrets of tests stand in the document, or in files.
pub(super) fn revealed(spec: &SecretSpec) -> Result<Secret, SpecError> {
    match spec {
        SecretSpec::Plain(secret) => Ok(secret.clone()),
        SecretSpec::File(path) => std::fs::read(path)
            .map(|bytes| Secret::new(bytes.trim_ascii()))
            .map_err(|error| SpecError::new(FieldPath::root(), error.to_string())),
        SecretSpec::Env(name) => Err(SpecError::new(FieldPath::root(), format!("no variable `{name}`"))),
    }
}

/// An upstream with one endpoint and further keys.
pub(super) fn to(service: &Service, more: &str) -> Arc<Upstream> {
    upstream(&format!(r#"{{"endpoints": ["{}"]{more}}}"#, service.url()))
}

pub(crate) fn exchange(method: &Method, path: &str) -> Box<Exchange> {
    let client: SocketAddr = "127.0.0.1:40000".parse().unwrap();
    let now = tokio::time::Instant::now().into_std();
    Exchange::begin(Head {
        connection: Arc::new(Connection::new(client, "127.0.0.1:8080".parse().unwrap(), Scheme::Http, now)),
        client: client.ip(),
        scheme: Scheme::Http,
        from_trusted_proxy: false,
        request_id: HeaderValue::from_static("test"),
        started: now,
        method: method.clone(),
        version: Version::HTTP_11,
        host: Some("api.example".into()),
        path: path.parse().unwrap(),
    })
}

pub(super) fn request(method: &Method, path: &str, body: impl Into<Body>) -> Request {
    http::Request::builder().method(method).uri(path).header("host", "api.example").body(body.into()).unwrap()
}

/// One call with the exchange that it leaves behind.
pub(super) async fn call(upstream: &Upstream, request: Request) -> (Result<Response, CallError>, Box<Exchange>) {
    let mut cx = exchange(request.method(), request.uri().path_and_query().unwrap().as_str());
    let options = upstream.options(&OfRoute::default(), CallOptions::default().max_head);
    let answer = tokio::time::timeout(Duration::from_secs(20), upstream.call(request, &mut cx, &options)).await;
    (answer.expect("the call neither answered nor failed"), cx)
}

pub(super) async fn get(upstream: &Upstream, path: &str) -> (Result<Response, CallError>, Box<Exchange>) {
    call(upstream, request(&Method::GET, path, Body::Empty)).await
}

/// The whole body, and its trailers.
pub(super) async fn whole(response: Response) -> (Bytes, Option<http::HeaderMap>) {
    let collected = tokio::time::timeout(Duration::from_secs(20), response.into_body().collect()).await;
    let collected = collected.expect("the body does not end").unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

/// A body that yields what a channel brings, and ends with it.
pub(super) fn channel_body() -> (tokio::sync::mpsc::Sender<Frame>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    (sender, Body::stream(ChannelBody { receiver, length: None }))
}

/// The same with a known length.
pub(super) fn sized_body(length: u64) -> (tokio::sync::mpsc::Sender<Frame>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    (sender, Body::stream(ChannelBody { receiver, length: Some(length) }))
}

pub(super) type Frame = Result<http_body::Frame<Bytes>, pylon_core::body::BodyError>;

struct ChannelBody {
    receiver: tokio::sync::mpsc::Receiver<Frame>,
    length: Option<u64>,
}

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = pylon_core::body::BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Frame>> {
        self.receiver.poll_recv(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.length.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is what a channel of frames takes")]
pub(super) fn data(text: &str) -> Frame {
    Ok(http_body::Frame::data(Bytes::from(text.to_owned())))
}

/// Options of calls by a route that says `retry` and `hedge`, in JSON; `null` is nothing.
pub(super) fn options(upstream: &Upstream, retry: &str, hedge: &str) -> CallOptions {
    let retry: Option<ShortRetry> = serde_json::from_str(retry).unwrap();
    let hedge: Option<ShortHedge> = serde_json::from_str(hedge).unwrap();
    let retry = retry.map(|spec| Retry::compile(&spec).unwrap().map(Arc::new));
    let hedge = hedge.and_then(|spec| Hedge::compile(&spec)).map(Arc::new);
    upstream.options(&OfRoute { timeout: None, retry: retry.as_ref(), hedge: hedge.as_ref() }, 64 * 1024)
}

/// One call by these options, with the exchange that it leaves behind.
pub(super) async fn call_by(
    upstream: &Upstream,
    options: &CallOptions,
    request: Request,
) -> (Result<Response, CallError>, Box<Exchange>) {
    let mut cx = exchange(request.method(), request.uri().path_and_query().unwrap().as_str());
    let answer = tokio::time::timeout(Duration::from_secs(20), upstream.call(request, &mut cx, options)).await;
    (answer.expect("the call neither answered nor failed"), cx)
}
