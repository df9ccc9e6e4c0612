//! HTTP/2 towards clients (RFC 9113): the codec of h2 with bounds of ours.
//!
//! All streams of a connection run in its one task, so that what many of them send goes out by one write. Floods are bounded
//! by h2: streams that are reset before they were answered (rapid reset), streams that the client makes us reset,
//! CONTINUATION frames, frames without content. Header lists and windows are capped here; a connection without streams ends
//! after the idle time, in good order (GOAWAY). A head that is not whole in time ends it at once, and a client that takes
//! nothing of an answer loses the stream, or all of them. Interim answers other than 100 are not passed on. A CONNECT for a
//! WebSocket (RFC 8441) is handed on as the GET that it would be on HTTP/1.1; its tunnel is a task of its own, for as long as
//! which the stream counts as open.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection as Codec, Handshake, SendResponse};
use http::Request;
use pylon_core::connection::{Connection, Phase};
use tokio::task::coop::has_budget_remaining;

use crate::client_body::ClientBody;
use crate::drain::Open as OpenConnection;
use crate::handler::Handler;
use crate::http1::Preface;
use crate::limits::Limits;
use crate::timer;

mod connect;
mod date;
mod exchange;
mod frames;
mod io;
mod tasks;

use exchange::Exchange;
use io::Io;
use tasks::Tasks;

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
/// How often streams and codec have their turns before other connections of the worker have theirs.
const ROUNDS: usize = 4;

/// A codec by these limits, to be shared by all connections of a worker.
pub(crate) fn codec(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(MISTAKES))
        .enable_connect_protocol();
    builder
}

/// Serves one client connection until it ends, or has to.
pub(crate) async fn serve<H: Handler>(
    preface: Preface,
    connection: Arc<Connection>,
    handler: Arc<H>,
    codec: &Builder,
    open: &OpenConnection,
) {
    let streams = Arc::new(Streams::new(&connection));
    let begin = |request: Request<RecvStream>, reply: SendResponse<Bytes>| {
        let (started, limits) = (now(), open.limits());
        let counted = Open::begin(&streams, started);
        let (request, switch) = connect::take(request, open.drain());
        let request = ClientBody::wrap(request, limits.body, &connection);
        let future = Arc::clone(&handler).serve(request, Arc::clone(&connection), started);
        Exchange::<H, _>::new(future, reply, switch, counted, limits.write_time)
    };
    let io = Io::new(preface, &streams, open.limits().write_time);
    let mut session = Session { state: State::Beginning(codec.handshake(io)), tasks: Tasks::new(), begin };
    drive(&mut session, &streams, open).await;
}

/// The codec of a connection and the streams that run beside it.
struct Session<F, B> {
    state: State,
    tasks: Tasks<F>,
    /// Begins a stream.
    begin: B,
}

enum State {
    /// Until the preface is here.
    Beginning(Handshake<Io, Bytes>),
    /// The same, of a connection that has to end behind it.
    BeginningToEnd(Handshake<Io, Bytes>),
    Serving(Codec<Io, Bytes>),
    Over,
}

impl<F, B> Session<F, B>
where
    F: Future<Output = ()>,
    B: FnMut(Request<RecvStream>, SendResponse<Bytes>) -> F,
{
    /// Tells the client that no further stream is served. Those that run are.
    fn end(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Beginning(handshake) => State::BeginningToEnd(handshake),
            State::Serving(mut codec) => {
                codec.graceful_shutdown();
                State::Serving(codec)
            }
            other => other,
        };
        self.tasks.codec_waker().wake_by_ref();
    }

    /// Runs codec and streams, as far as they go. Ready at the end of the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        self.tasks.awake(cx);
        for _ in 0..ROUNDS {
            if self.tasks.round()
                && let Poll::Ready(end) = self.poll_codec()
            {
                return Poll::Ready(end);
            }
            self.tasks.poll();
            if self.tasks.sleep().is_ready() {
                return Poll::Pending;
            }
            if !has_budget_remaining() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads, begins the streams that came, and writes.
    fn poll_codec(&mut self) -> Poll<Result<(), h2::Error>> {
        let waker = self.tasks.codec_waker().clone();
        let cx = &mut Context::from_waker(&waker);
        loop {
            match &mut self.state {
                State::Serving(codec) => match codec.poll_accept(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Ok((request, reply)))) => self.tasks.add((self.begin)(request, reply)),
                },
                State::Beginning(handshake) | State::BeginningToEnd(handshake) => {
                    let Poll::Ready(begun) = Pin::new(handshake).poll(cx) else { return Poll::Pending };
                    let mut codec = begun?;
                    if matches!(self.state, State::BeginningToEnd(_)) {
                        codec.graceful_shutdown();
                    }
                    self.state = State::Serving(codec);
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Runs a session to its end, or until the client has run out of time or has to make room.
async fn drive<F, B>(session: &mut Session<F, B>, streams: &Streams, open: &OpenConnection)
where
    F: Future<Output = ()>,
    B: FnMut(Request<RecvStream>, SendResponse<Bytes>) -> F,
{
    let drain = open.drain();
    let mut wanted = pin!(drain.wanted());
    let mut ending = false;
    let first = open.limits();
    let mut timer = timer::sleep_until(now() + first.idle.min(first.head_time));
    poll_fn(|cx| {
        if open.is_evicted(cx) {
            session.end();
            let _ = session.poll(cx);
            return Poll::Ready(());
        }
        if let Poll::Ready(end) = session.poll(cx) {
            if let Err(error) = end {
                tracing::debug!(peer = %streams.connection.peer, ?error, "connection ended");
            }
            return Poll::Ready(());
        }
        if !ending && (wanted.as_mut().poll(cx).is_ready() || drain.has_begun()) {
            ending = true;
            session.end();
            cx.waker().wake_by_ref();
        }
        if let Some(due) = streams.head_since().map(|since| since + open.limits().head_time)
            && due < timer.at()
        {
            timer.reset(due);
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let now = now();
            match due(streams, open.limits(), now) {
                Due::At(at) => timer.reset(at),
                Due::Head => {
                    session.end();
                    let _ = session.poll(cx);
                    return Poll::Ready(());
                }
                Due::Idle if ending => return Poll::Ready(()),
                Due::Idle => {
                    ending = true;
                    session.end();
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
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.connection.activity.enter(Phase::Idle, now());
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
