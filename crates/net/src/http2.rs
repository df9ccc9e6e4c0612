//! HTTP/2 towards clients (RFC 9113): hyper's server with bounds of ours.
//!
//! Each stream is a task of the connection's worker. Floods are bounded by h2: streams that are reset before they were
//! answered (rapid reset), streams that the client makes us reset, CONTINUATION frames, frames without content. Header lists
//! and windows are capped here; a connection without streams ends after the idle time, in good order (GOAWAY). A head that
//! is not whole in time ends it at once, and a client that takes nothing of an answer loses the stream, or all of them.
//! Interim answers other than 100 are not passed on. A CONNECT for a WebSocket (RFC 8441) is handed on as the GET that it
//! would be on HTTP/1.1; its tunnel is a task of its own, for as long as which the stream counts as open.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use pylon_core::body::BodyError;
use pylon_core::connection::{Connection, Phase};
use tokio::io::AsyncWrite as _;

use crate::client_body::ClientBody;
use crate::drain::Open as OpenConnection;
use crate::handler::{Handler, Limits};
use crate::http1::Preface;
use crate::stall::Stall;
use crate::stream::{self, Stream};
use crate::timer;

mod connect;
mod frames;
mod stream_task;

use frames::Frames;
pub(crate) use stream_task::OnWorker;

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
/// The largest piece of an answer that is handed over at once: by these a client shows that it takes any.
const PIECE: usize = 16 << 10;
/// How long a client may take to close after it was told that the connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// A codec by these limits, to be shared by all connections of a worker.
pub(crate) fn codec(limits: &Limits) -> Builder<OnWorker> {
    let mut builder = Builder::new(OnWorker { patience: limits.write_time });
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

/// Serves one client connection until it ends, or has to.
pub(crate) async fn serve<H: Handler>(
    preface: Preface,
    connection: Arc<Connection>,
    handler: Arc<H>,
    codec: &Builder<OnWorker>,
    limits: Limits,
    open: &OpenConnection,
) {
    let streams = Arc::new(Streams::new(&connection));
    let service = service_fn({
        let (connection, streams, drain) = (Arc::clone(&connection), Arc::clone(&streams), Arc::clone(open.drain()));
        move |mut request: http::Request<Incoming>| {
            let started = now();
            let open = Open::begin(&streams, started);
            let upgrade = connect::upgrade(&mut request).map(|upgrade| (upgrade, Arc::clone(&drain)));
            let request = ClientBody::wrap(request, limits.body, &connection);
            let future = Arc::clone(&handler).serve(request, Arc::clone(&connection), started);
            async move { Ok::<_, Infallible>(connect::deliver::<H>(future.await, upgrade, open)) }
        }
    });
    let io = Io::new(preface, &streams, limits.write_time);
    let codec = pin!(codec.serve_connection(io, service));
    drive(codec, hyper::server::conn::http2::Connection::graceful_shutdown, &streams, limits, open).await;
}

/// Runs the codec to its end, or until the client has run out of time or has to make room.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut codec: Pin<&mut C>,
    end: impl Fn(Pin<&mut C>),
    streams: &Streams,
    limits: Limits,
    open: &OpenConnection,
) {
    let drain = open.drain();
    let mut wanted = pin!(drain.wanted());
    let mut ending = false;
    let mut timer = timer::sleep_until(now() + limits.idle.min(limits.head_time));
    poll_fn(|cx| {
        if open.is_evicted(cx) {
            end(codec.as_mut());
            let _ = codec.as_mut().poll(cx);
            return Poll::Ready(());
        }
        if let Poll::Ready(end) = codec.as_mut().poll(cx) {
            if let Err(error) = end {
                tracing::debug!(peer = %streams.connection.peer, ?error, "connection ended");
            }
            return Poll::Ready(());
        }
        if !ending && (wanted.as_mut().poll(cx).is_ready() || drain.has_begun()) {
            ending = true;
            end(codec.as_mut());
            cx.waker().wake_by_ref();
        }
        if let Some(due) = streams.head_since().map(|since| since + limits.head_time)
            && due < timer.at()
        {
            timer.reset(due);
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let now = now();
            match due(streams, limits, now) {
                Due::At(at) => timer.reset(at),
                Due::Head => {
                    end(codec.as_mut());
                    let _ = codec.as_mut().poll(cx);
                    return Poll::Ready(());
                }
                Due::Idle if ending => return Poll::Ready(()),
                Due::Idle => {
                    ending = true;
                    end(codec.as_mut());
                    cx.waker().wake_by_ref();
                    timer.reset(now + LINGER);
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// What the time has come for.
enum Due {
    /// Nothing yet.
    At(Instant),
    /// To end, since a head has not ended.
    Head,
    /// To end, since nothing has been going on.
    Idle,
}

fn due(streams: &Streams, limits: Limits, now: Instant) -> Due {
    if streams.head_since().is_some_and(|since| since + limits.head_time <= now) {
        return Due::Head;
    }
    if streams.open.load(Ordering::Relaxed) > 0 {
        return Due::At(now + limits.idle);
    }
    match streams.connection.activity.since() + limits.idle {
        at if at > now => Due::At(at),
        _ => Due::Idle,
    }
}

/// How many streams of a connection are open, and whether a head is on its way.
#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    /// Since when, in microseconds from `opened` on and never 0; 0 where there is none.
    head: AtomicU64,
    opened: Instant,
    connection: Arc<Connection>,
}

impl Streams {
    fn new(connection: &Arc<Connection>) -> Self {
        // A connection begins with its preface.
        let head = AtomicU64::new(1);
        Self { open: AtomicUsize::new(0), head, opened: now(), connection: Arc::clone(connection) }
    }

    fn head_since(&self) -> Option<Instant> {
        match self.head.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(self.opened + Duration::from_micros(micros)),
        }
    }

    fn head_begins(&self) {
        let micros = now().saturating_duration_since(self.opened).as_micros();
        self.head.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn head_ends(&self) {
        self.head.store(0, Ordering::Relaxed);
    }
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
        if stream_task::is_stalled() {
            self.0.connection.stalled.store(false, Ordering::Relaxed);
        }
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.connection.activity.enter(Phase::Idle, now());
        }
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer, whose stream counts as open for as long as it lives.
    struct Counted<B> {
        #[pin]
        body: B,
        // What is left of a piece that was too large.
        rest: Bytes,
        open: Option<Open>,
    }

    impl<B> PinnedDrop for Counted<B> {
        /// The end of the exchange is told by its body, which is dropped next.
        fn drop(this: Pin<&mut Self>) {
            if stream_task::is_stalled()
                && let Some(open) = &this.open
            {
                open.0.connection.stalled.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl<B> Counted<B> {
    fn new(body: B, open: Option<Open>) -> Self {
        stream_task::handed();
        Self { body, rest: Bytes::new(), open }
    }
}

impl<B: http_body::Body<Data = Bytes, Error = BodyError>> http_body::Body for Counted<B> {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            match this.body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => *this.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Poll::Ready(end) => return Poll::Ready(end.map(|end| end.map_err(told))),
                Poll::Pending => {
                    stream_task::awaited();
                    return Poll::Pending;
                }
            }
        }
        stream_task::handed();
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// An error as hyper tells the client of it: by the code that the upstream gave, where it gave one.
fn told(error: BodyError) -> Box<dyn Error + Send + Sync> {
    match error {
        BodyError::Reset(code) => h2::Error::from(h2::Reason::from(code)).into(),
        error => error.into(),
    }
}

/// The socket as hyper sees it, with what was read before it was known which protocol this is.
struct Io {
    stream: Stream,
    ahead: Bytes,
    frames: Frames,
    /// The number of the head that is on its way.
    head: Option<u64>,
    streams: Arc<Streams>,
    /// Ends what the client does not take.
    stall: Stall,
}

impl Io {
    fn new(preface: Preface, streams: &Arc<Streams>, write_time: Duration) -> Self {
        let (ahead, frames) = (preface.read.into(), Frames::new());
        let (streams, stall) = (Arc::clone(streams), Stall::new(write_time));
        Self { stream: preface.stream, ahead, head: frames.head(), frames, streams, stall }
    }

    /// Notes since when a head is on its way.
    fn look(&mut self) {
        let head = self.frames.head();
        if head == self.head {
            return;
        }
        self.head = head;
        if head.is_some() { self.streams.head_begins() } else { self.streams.head_ends() }
    }

    /// Passes on what a write came to, unless it has come to nothing for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.stall.watch(cx, &self.stream, &self.streams.connection, outcome)
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            let Self { stream, frames, .. } = this;
            ready!(stream::poll_fill(stream, cx, &mut buf, |bytes| {
                frames.see(bytes);
                (bytes.len(), ())
            }))?;
            this.look();
            return Poll::Ready(Ok(()));
        }
        let n = this.ahead.len().min(buf.remaining());
        let piece = this.ahead.split_to(n);
        buf.put_slice(&piece);
        this.frames.see(&piece);
        this.look();
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
