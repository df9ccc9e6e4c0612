//! HTTP/2 towards clients (RFC 9113): hyper's server with bounds of ours.
//!
//! Each stream is a task of the connection's worker. Floods are bounded by h2: streams that are reset before they were
//! answered (rapid reset), streams that the client makes us reset, CONTINUATION frames, frames without content. Header lists
//! and windows are capped here; a connection without streams ends after the idle time, in good order (GOAWAY).
//! Interim answers other than 100 are not passed on. A CONNECT for a WebSocket (RFC 8441) is handed on as the GET that it
//! would be on HTTP/1.1; its tunnel is a task of its own, for as long as which the stream counts as open.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use pylon_core::body::BodyError;
use pylon_core::connection::{Connection, Phase};
use tokio::io::AsyncWrite as _;

use crate::accept::Drain;
use crate::client_body::ClientBody;
use crate::client_side::ClientSide;
use crate::handler::{Handler, Limits, Tunnel as _};
use crate::http1::Preface;
use crate::stream::{self, Stream};
use crate::timer;
use crate::websocket;

/// How many requests a client may have under way on one connection.
const STREAMS: u32 = 128;
/// How much of one request's body may be on its way before the gateway has taken it; and of all of them together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How much of one answer waits for the client's window.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client took back before they were accepted, at most: more is an attack (CVE-2023-44487).
const RESETS: usize = 20;
/// Streams that we had to reset for the client's mistakes, at most: more is an attack (CVE-2025-8671).
const MISTAKES: usize = 128;
/// How long a client may take to close after it was told that the connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// Runs streams on the worker of their connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnWorker;

impl<F: Future<Output: Send + 'static> + Send + 'static> Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A codec by these limits, to be shared by all connections of a worker.
pub(crate) fn codec(limits: &Limits) -> Builder<OnWorker> {
    let mut builder = Builder::new(OnWorker);
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .enable_connect_protocol();
    builder
}

/// Serves one client connection until it ends. `drain` tells that no further request is wanted.
pub(crate) async fn serve<H: Handler>(
    preface: Preface,
    connection: Arc<Connection>,
    handler: Arc<H>,
    codec: &Builder<OnWorker>,
    limits: Limits,
    drain: &Arc<Drain>,
) {
    let streams = Arc::new(Streams { open: AtomicUsize::new(0), connection: Arc::clone(&connection) });
    let service = service_fn({
        let (connection, streams, drain) = (Arc::clone(&connection), Arc::clone(&streams), Arc::clone(drain));
        move |mut request: http::Request<Incoming>| {
            let started = now();
            let open = Open::begin(&streams, started);
            let upgrade = upgrade(&mut request).map(|upgrade| (upgrade, Arc::clone(&drain)));
            let request = request.map(|body| ClientBody::wrap(body, limits.body_idle, &connection));
            let future = Arc::clone(&handler).serve(request, Arc::clone(&connection), started);
            async move { Ok::<_, Infallible>(deliver::<H>(future.await, upgrade, open)) }
        }
    });
    let io = Io { stream: preface.stream, ahead: preface.read.into() };
    let mut codec = pin!(codec.serve_connection(io, service));
    let mut wanted = pin!(drain.wanted());
    let mut ending = false;
    let mut timer = timer::sleep_until(now() + limits.idle);
    poll_fn(|cx| {
        if let Poll::Ready(end) = codec.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(peer = %connection.peer, ?error, "connection ended");
            }
            return Poll::Ready(());
        }
        if !ending && (wanted.as_mut().poll(cx).is_ready() || drain.has_begun()) {
            ending = true;
            codec.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let now = now();
            let idle = streams.open.load(Ordering::Relaxed) == 0;
            match connection.activity.since() + limits.idle {
                _ if !idle => timer.reset(now + limits.idle),
                due if due > now => timer.reset(due),
                _ if ending => return Poll::Ready(()),
                _ => {
                    ending = true;
                    codec.as_mut().graceful_shutdown();
                    cx.waker().wake_by_ref();
                    timer.reset(now + LINGER);
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// An answer as the codec gets it. Where it is a switch of protocols, what follows is a task of its own.
fn deliver<H: Handler>(
    mut answer: http::Response<H::Body>,
    upgrade: Option<(OnUpgrade, Arc<Drain>)>,
    open: Open,
) -> http::Response<Counted<H::Body>> {
    let Some((upgrade, drain)) = upgrade else { return answer.map(|body| Counted { body, _open: Some(open) }) };
    let Some(tunnel) = H::switched(&mut answer) else { return answer.map(|body| Counted { body, _open: Some(open) }) };
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            tunnel.run(ClientSide::http2(stream, open), &drain).await;
        }
    });
    answer.map(|body| Counted { body, _open: None })
}

/// What a CONNECT may become, where it is one for a WebSocket: then it takes the form that it has on HTTP/1.1. Every other
/// CONNECT stays what it is, and is refused.
fn upgrade(request: &mut http::Request<Incoming>) -> Option<OnUpgrade> {
    if *request.method() != Method::CONNECT {
        return None;
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let protocol = request.extensions_mut().remove::<Protocol>()?;
    if !protocol.as_str().eq_ignore_ascii_case(websocket::PROTOCOL) {
        return None;
    }
    *request.method_mut() = Method::GET;
    // No other request of HTTP/2 can have these: h2 refuses them (RFC 9113 §8.2.2).
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(websocket::PROTOCOL));
    Some(upgrade)
}

/// How many streams of a connection are open.
#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    connection: Arc<Connection>,
}

/// Counts a stream for as long as it is answered.
struct Open(Arc<Streams>);

impl Open {
    fn begin(streams: &Arc<Streams>, now: Instant) -> Self {
        streams.open.fetch_add(1, Ordering::Relaxed);
        streams.connection.activity.enter(Phase::Serving, now);
        Self(Arc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.connection.activity.enter(Phase::Idle, now());
        }
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer, whose stream counts as open for as long as it lives.
    struct Counted<B> { #[pin] body: B, _open: Option<Open> }
}

impl<B: http_body::Body<Data = Bytes, Error = BodyError>> http_body::Body for Counted<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The socket as hyper sees it, with what was read before it was known which protocol this is.
struct Io {
    stream: Stream,
    ahead: Bytes,
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return stream::poll_fill(&mut self.stream, cx, &mut buf, |bytes| (bytes.len(), ()));
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(self.ahead.get(..n).unwrap_or_default());
        self.ahead.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
