//! HTTP/2 towards clients (RFC 9113), on the codec of `pylon-http2`.
//!
//! All streams of a connection run in its one task, so that what many of them send goes out by one write. The codec bounds
//! what floods could make grow: streams that are reset before they were answered (rapid reset), streams that the client
//! makes us reset, CONTINUATION frames, frames without content. A connection without streams ends after the idle time, in good order (GOAWAY). A head that is not whole in time ends it at once, and a client that takes
//! nothing of an answer loses the stream, or all of them. A CONNECT for a
//! WebSocket (RFC 8441) is handed on as the GET that it would be on HTTP/1.1; its tunnel is a task of its own, for as long as
//! which the stream counts as open.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Request;
use pylon_core::connection::{Connection, Phase};
use pylon_http2::server::Server;
use pylon_http2::{Error, RecvStream, SendStream};
use tokio::task::coop::has_budget_remaining;

use crate::client_body::ClientBody;
use crate::drain::Open as OpenConnection;
use crate::handler::Handler;
use crate::http1::Preface;
use crate::limits::Limits;
use crate::timer;

mod connect;
mod exchange;
mod interim;
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
/// Streams that a client took back before they were accepted, at most: more is an attack (CVE-2023-44487).
const RESETS: usize = 20;
/// Streams that we had to reset for the client's mistakes, at most: more is an attack (CVE-2025-8671).
const MISTAKES: usize = 128;
/// How long a client may take to close after it was told that the connection ends.
const LINGER: Duration = Duration::from_secs(2);
/// How often streams and codec have their turns before other connections of the worker have theirs.
const ROUNDS: usize = 4;

/// What bounds a connection whose heads may have so many bytes.
fn bounds(head: usize) -> pylon_http2::Limits {
    pylon_http2::Limits {
        streams: STREAMS,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        head: u32::try_from(head).unwrap_or(u32::MAX),
        resets: RESETS,
        mistakes: MISTAKES,
    }
}

/// Serves one client connection until it ends, or has to.
pub(crate) async fn serve<H: Handler>(
    preface: Preface,
    connection: Arc<Connection>,
    handler: Arc<H>,
    head: usize,
    open: &OpenConnection,
) {
    let streams = Arc::new(Streams::new(&connection));
    let begin = |request: Request<RecvStream>, sending: SendStream| {
        let (started, limits) = (now(), open.limits());
        let counted = Open::begin(&streams, started);
        let (request, switch) = connect::take(request, open.drain());
        let request = ClientBody::wrap(request, limits.body, &connection);
        let future = Arc::clone(&handler).serve(request, Arc::clone(&connection), started);
        Exchange::<H, _>::new(future, sending, switch, counted, limits.write_time)
    };
    let io = Io::new(preface.stream, &connection, open.limits().write_time);
    let codec = Server::new(io, preface.read.as_slice().into(), bounds(head));
    let mut session = Session { codec, tasks: Tasks::new(), begin, head: Some((0, now())) };
    drive(&mut session, &streams, open).await;
}

/// The codec of a connection and the streams that run beside it.
struct Session<F, B> {
    codec: Server<Io>,
    tasks: Tasks<F>,
    /// Begins a stream.
    begin: B,
    /// The number of the head that is on its way, and since when it is.
    head: Option<(u64, Instant)>,
}

impl<F, B> Session<F, B>
where
    F: Future<Output = ()>,
    B: FnMut(Request<RecvStream>, SendStream) -> F,
{
    /// Tells the client that no further stream is served. Those that run are.
    fn end(&mut self) {
        self.codec.end_gracefully();
        self.tasks.codec_waker().wake_by_ref();
    }

    /// Runs codec and streams, as far as they go. Ready at the end of the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
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
    fn poll_codec(&mut self) -> Poll<Result<(), Error>> {
        let waker = self.tasks.codec_waker().clone();
        let cx = &mut Context::from_waker(&waker);
        loop {
            match self.codec.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, sending)))) => self.tasks.add((self.begin)(request, sending)),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        let head = self.codec.head_under_way();
        if head != self.head.map(|(number, _)| number) {
            self.head = head.map(|number| (number, now()));
        }
        Poll::Pending
    }

    fn head_since(&self) -> Option<Instant> {
        self.head.map(|(_, since)| since)
    }
}

/// Runs a session to its end, or until the client has run out of time or has to make room.
async fn drive<F, B>(session: &mut Session<F, B>, streams: &Streams, open: &OpenConnection)
where
    F: Future<Output = ()>,
    B: FnMut(Request<RecvStream>, SendStream) -> F,
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
        if let Some(due) = session.head_since().map(|since| since + open.limits().head_time)
            && due < timer.at()
        {
            timer.reset(due);
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let now = now();
            match due(streams, session.head_since(), open.limits(), now) {
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

fn due(streams: &Streams, head: Option<Instant>, limits: Limits, now: Instant) -> Due {
    if head.is_some_and(|since| since + limits.head_time <= now) {
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

/// How many streams of a connection are open.
#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    connection: Arc<Connection>,
}

impl Streams {
    fn new(connection: &Arc<Connection>) -> Self {
        Self { open: AtomicUsize::new(0), connection: Arc::clone(connection) }
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
