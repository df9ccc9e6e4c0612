//! HTTP/1.1 towards clients: the one adapter between hyper's server and the gateway.
//!
//! hyper parses and writes; the socket's wrapper here adds what hyper does not do: interim answers other than 100,
//! refusals of the codec in our own words, deadlines for heads and for idle connections, and a close that does not
//! reset what the client has still to read (RFC 9112 §9.6).

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection as Codec};
use hyper::service::{HttpService, service_fn};
use pylon_core::Request;
use pylon_core::body::{Body, BodyError};
use pylon_core::connection::{Connection, Phase};
use pylon_core::exchange::Timer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::accept::Drain;
use crate::stream::Stream;
use crate::timer;

/// How long the close waits for the client to read what was sent.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes that nobody asked for are read meanwhile.
const LINGER_BYTES: usize = 4 << 20;

/// What answers requests: the data plane, as `net` sees it. One for each worker.
pub trait Handler: Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static;

    /// Answers one request whose head had begun to arrive at `started`.
    fn serve(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        started: Instant,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;

    /// The whole answer, in wire format, to a request that never came to be: `status` is what the codec says of it.
    /// The connection is closed behind it.
    fn refuse(&self, status: u16, connection: &Arc<Connection>) -> Vec<u8>;
}

/// Limits on what a client may send, and on how slowly.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest head, in bytes.
    pub head: usize,
    /// From the first byte of a head to its last.
    pub head_time: Duration,
    /// From the acceptance of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// Between two exchanges.
    pub idle: Duration,
    /// Between two pieces of a request's body.
    pub body_idle: Duration,
}

/// A codec by these limits, to be shared by all connections of a worker.
pub fn codec(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .ignore_invalid_headers(false)
        .max_header_size(limits.head)
        .max_buf_size((limits.head + 4096).max(256 * 1024));
    builder
}

/// Serves one client connection until it ends. `drain` tells that no further request is wanted.
pub async fn serve<H: Handler>(
    stream: Stream,
    connection: Arc<Connection>,
    handler: Arc<H>,
    codec: &Builder,
    limits: Limits,
    drain: &Drain,
) {
    let io = Io {
        stream,
        connection: Arc::clone(&connection),
        handler: Arc::clone(&handler),
        dirty: false,
        ahead: Vec::new(),
        closing: None,
    };
    let service = service_fn({
        let handler = Arc::clone(&handler);
        let connection = Arc::clone(&connection);
        move |request: http::Request<Incoming>| {
            let (handler, connection) = (Arc::clone(&handler), Arc::clone(&connection));
            let started = begin(&connection);
            let request = request.map(|body| {
                if http_body::Body::is_end_stream(&body) {
                    Body::Empty
                } else {
                    Body::stream(ClientBody { body, idle: limits.body_idle, timer: None })
                }
            });
            Served { future: handler.serve(request, connection, started) }
        }
    });
    let codec = codec.serve_connection(io, service);
    drive(codec, &connection, &*handler, limits, drain).await;
}

pin_project_lite::pin_project! {
    /// An answer that cannot fail, as hyper wants it. (An async block would hold the future twice.)
    struct Served<F> { #[pin] future: F }
}

impl<F: Future> Future for Served<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().future.poll(cx).map(Ok)
    }
}

/// The head is complete: the exchange began when its first byte came, or now when it was read ahead with the one before.
fn begin(connection: &Connection) -> Instant {
    let activity = &connection.activity;
    let started = if activity.phase() == Phase::Head { activity.since() } else { now() };
    activity.enter(Phase::Serving, started);
    started
}

/// Runs the codec to its end, or until the client has run out of time.
async fn drive<H, S>(codec: Codec<Io<H>, S>, connection: &Arc<Connection>, handler: &H, limits: Limits, drain: &Drain)
where
    H: Handler,
    S: HttpService<Incoming, ResBody = H::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut codec = pin!(codec);
    let mut wanted = pin!(drain.wanted());
    let mut draining = false;
    let mut timer = timer::sleep_until(now() + limits.head_time);
    poll_fn(|cx| {
        if let Poll::Ready(end) = codec.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(peer = %connection.peer, %error, "connection ended");
            }
            return Poll::Ready(());
        }
        if !draining && (wanted.as_mut().poll(cx).is_ready() || drain.has_begun()) {
            draining = true;
            codec.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let now = now();
            match deadline(connection, limits, now) {
                due if due > now => timer.reset(due),
                _ => {
                    if connection.activity.phase() == Phase::Head {
                        // Written by the flush of one last poll.
                        connection.interim.push(&handler.refuse(408, connection));
                        let _ = codec.as_mut().poll(cx);
                    }
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// When the connection, as it is at `now`, has run out of time.
fn deadline(connection: &Connection, limits: Limits, now: Instant) -> Instant {
    match connection.activity.phase() {
        Phase::Idle => connection.activity.since() + limits.idle,
        Phase::Head => connection.activity.since() + limits.head_time,
        // The deadlines of the exchange hold here.
        Phase::Serving | Phase::Flushing => now + limits.head_time,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A body that arrives from a client, piece by piece, none too long after the one before.
struct ClientBody {
    body: Incoming,
    idle: Duration,
    /// Runs while a piece is waited for.
    timer: Option<timer::Sleep>,
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            if let Some(Ok(frame)) = &frame
                && frame.trailers_ref().is_some_and(http::HeaderMap::is_empty)
            {
                // hyper stops at a lone LF behind the last chunk but has read on to the next empty line: what it swallowed
                // may have been the next request.
                return Poll::Ready(Some(Err(BodyError::Client("the last chunk ends by a lone LF".to_owned()))));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Client(error.to_string()))));
        }
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| timer::sleep_until(now() + idle));
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(Some(Err(BodyError::Timeout(Timer::ClientBody))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The client's socket as hyper sees it.
struct Io<H> {
    stream: Stream,
    connection: Arc<Connection>,
    handler: Arc<H>,
    /// Bytes of an answer were written and not yet all flushed, so that nothing may be put between.
    dirty: bool,
    /// Interim answers that are being written.
    ahead: Vec<u8>,
    /// Our side is closed; what the client still sends is read and dropped.
    closing: Option<Closing>,
}

/// See [`LINGER`].
struct Closing {
    timer: timer::Sleep,
    left: usize,
}

impl<H: Handler> Io<H> {
    /// Writes what waits of interim answers; where an answer is half written they come too late and are dropped.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.dirty {
            if self.connection.interim.is_waiting() {
                drop(self.connection.interim.take());
            }
            return Poll::Ready(Ok(()));
        }
        if self.ahead.is_empty() && self.connection.interim.is_waiting() {
            self.ahead = self.connection.interim.take();
        }
        if self.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.ahead.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.ahead))?;
            self.ahead.drain(..n);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Whether `bytes` are a refusal of the codec's own: an answer where no request is being served.
    fn is_codecs_own(&self, bytes: &[u8]) -> Option<u16> {
        if self.dirty || !matches!(self.connection.activity.phase(), Phase::Idle | Phase::Head) {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
        std::str::from_utf8(status).ok()?.parse().ok()
    }
}

impl<H: Handler> hyper::rt::Read for Io<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // SAFETY: `ReadBuf::uninit` writes only what it initialises and never de-initialises.
        #[expect(unsafe_code, reason = "hyper's cursor can only be filled through uninitialised memory")]
        let unfilled: &mut [MaybeUninit<u8>] = unsafe { buf.as_mut() };
        let mut into = ReadBuf::uninit(unfilled);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut into))
            .inspect_err(|_| this.connection.ended.store(true, Ordering::Relaxed))?;
        let n = into.filled().len();
        // SAFETY: exactly `n` bytes of the cursor were filled, and so initialised, above.
        #[expect(unsafe_code, reason = "hyper's cursor can only be advanced so")]
        unsafe {
            buf.advance(n);
        }
        if n == 0 {
            this.connection.ended.store(true, Ordering::Relaxed);
        } else if this.connection.activity.phase() == Phase::Idle {
            this.connection.activity.enter(Phase::Head, now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<H: Handler> hyper::rt::Write for Io<H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        if let Some(status) = self.is_codecs_own(bytes) {
            let answer = self.handler.refuse(status, &self.connection);
            // A fresh answer of some hundred bytes fits the socket's buffer; if it does not, the client is not reading.
            let _ = Pin::new(&mut self.stream).poll_write(cx, &answer);
            return Poll::Ready(Ok(bytes.len()));
        }
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.dirty = true;
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(first) = bufs.first()
            && self.is_codecs_own(first).is_some()
        {
            return self.poll_write(cx, first);
        }
        ready!(self.poll_interim(cx))?;
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.dirty = true;
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper comes here once all that it holds is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.dirty = false;
        if self.connection.activity.phase() == Phase::Flushing {
            self.connection.activity.pass_to(Phase::Idle);
        }
        self.poll_interim(cx)
    }

    /// Closes so that the client can read the answer to its end: a close with bytes unread would be a reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if this.connection.ended.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let closing = this
            .closing
            .get_or_insert_with(|| Closing { timer: timer::sleep_until(now() + LINGER), left: LINGER_BYTES });
        let mut scrap = [0; 4096];
        loop {
            let mut into = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.stream).poll_read(cx, &mut into) {
                Poll::Pending => return Pin::new(&mut closing.timer).poll(cx).map(Ok),
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
            }
            closing.left = closing.left.saturating_sub(into.filled().len());
            if into.filled().is_empty() || closing.left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
