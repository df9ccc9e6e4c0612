//! HTTP/1.1 towards clients: the one adapter between hyper's server and the gateway.
//!
//! hyper parses and writes; the socket's wrapper here adds what hyper does not do: a strict look at what comes in,
//! interim answers other than 100, refusals of the codec in our own words, deadlines for heads and for idle connections,
//! and a close that does not reset what the client has still to read (RFC 9112 §9.6).

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Write;
use hyper::server::conn::http1::{Builder, Connection as Codec};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use pylon_core::connection::{Connection, Phase};

use crate::client_body::{ClientBody, Source};
use crate::client_side::ClientSide;
use crate::drain::{Drain, Open};
use crate::handler::{Handler, Tunnel as _};
use crate::limits::{Limits, Told};
use crate::stream::Stream;
use crate::timer;

mod inbound;
mod io;

use io::Io;

/// How long a client is waited for that may be about to send a request when the drain begins. A connection that is closed
/// under a request loses it.
const LAST_WORD: Duration = Duration::from_millis(500);

/// A codec by these limits, to be shared by all connections of a worker.
pub(crate) fn codec(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .ignore_invalid_headers(false)
        .max_header_size(limits.head)
        .max_buf_size((limits.head + 4096).max(256 * 1024));
    builder
}

/// A connection whose first bytes are the preface of HTTP/2, and what has been read of it.
#[derive(Debug)]
pub(crate) struct Preface {
    pub(crate) stream: Stream,
    pub(crate) read: Vec<u8>,
}

/// Serves one client connection until it ends, or has to. Where `preface` says that a client may as well begin HTTP/2, and
/// it does, the connection is given back. Where an answer switches protocols, the tunnel is run here to its end.
pub(crate) async fn serve<H: Handler>(
    stream: Stream,
    preface: bool,
    connection: Arc<Connection>,
    handler: Arc<H>,
    codec: &Builder,
    told: Told,
    open: &Open,
) -> Option<Preface> {
    let io = Io::new(stream, preface, Arc::clone(&connection), Arc::clone(&handler), (told, open.limits().write_time));
    let tunnel = Arc::new(Mutex::new(None));
    let service = service_fn({
        let handler = Arc::clone(&handler);
        let connection = Arc::clone(&connection);
        let tunnel = Arc::clone(&tunnel);
        move |mut request: http::Request<Incoming>| {
            let (handler, connection) = (Arc::clone(&handler), Arc::clone(&connection));
            let started = begin(&connection);
            // hyper leaves its own handle where there is an `Upgrade`, or a CONNECT, which never switches here.
            let upgrade = request.extensions_mut().remove::<OnUpgrade>().is_some();
            let upgrade = (upgrade && request.headers().contains_key(UPGRADE))
                .then(|| (Arc::clone(&tunnel), Arc::clone(&connection)));
            let request = ClientBody::wrap(request.map(Source::Http1), open.limits().body, &connection);
            Served::<H, _> { future: handler.serve(request, connection, started), upgrade, drain: open.drain() }
        }
    });
    let mut codec = codec.serve_connection(io, service);
    let well = drive(&mut codec, &connection, &*handler, open).await;
    let mut parts = codec.into_parts();
    // The codec ends well behind an answer that switches, and only once that is written out.
    let tunnel = tunnel.lock().take();
    if let Some(tunnel) = tunnel.filter(|_| well) {
        let (stream, held) = parts.io.into_raw();
        let ahead =
            if held.is_empty() { parts.read_buf } else { Bytes::from([&parts.read_buf[..], &held[..]].concat()) };
        let client = ClientSide::http1(stream, ahead);
        // It is no idle connection, whatever became of the exchange that began it.
        connection.activity.enter(Phase::Serving, now());
        // Boxed, so that a connection is no larger for what hardly any becomes.
        Box::pin(tunnel.run(client, open.drain())).await;
        return None;
    }
    if parts.io.is_left_open() {
        // hyper takes every end of a connection on which an upgrade was asked for as the beginning of another protocol.
        let mut io = Box::new(parts.io);
        let _ = poll_fn(|cx| Write::poll_shutdown(Pin::new(&mut *io), cx)).await;
        return None;
    }
    parts.io.preface()
}

pin_project_lite::pin_project! {
    /// An answer that cannot fail, as hyper wants it. (An async block would hold the future twice.)
    struct Served<'a, H: Handler, F> {
        #[pin]
        future: F,
        // Where the tunnel goes, if the answer may be one, and who waits for it.
        upgrade: Option<Upgrade<H>>,
        drain: &'a Drain,
    }
}

type Upgrade<H> = (Arc<Mutex<Option<<H as Handler>::Tunnel>>>, Arc<Connection>);

impl<H: Handler, F: Future<Output = http::Response<H::Body>>> Future for Served<'_, H, F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.future.poll(cx));
        if let Some((tunnel, connection)) = this.upgrade {
            let switched = H::switched(&mut answer);
            connection.upgrade.settle(switched.is_some());
            *tunnel.lock() = switched;
            // hyper has gone to sleep over a read that waited for this.
            cx.waker().wake_by_ref();
        }
        if this.drain.is_leaving() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

/// The head is complete: the exchange began when its first byte came, or now when it was read ahead with the one before.
fn begin(connection: &Connection) -> Instant {
    let activity = &connection.activity;
    let started = if activity.phase() == Phase::Head { activity.since() } else { now() };
    activity.enter(Phase::Serving, started);
    started
}

/// Runs the codec to its end, or until the client has run out of time. Answers whether the codec ended, and ended well.
async fn drive<H, S>(codec: &mut Codec<Io<H>, S>, connection: &Arc<Connection>, handler: &H, open: &Open) -> bool
where
    H: Handler,
    S: HttpService<Incoming, ResBody = H::Body> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut codec = Pin::new(codec);
    let drain = open.drain();
    let mut wanted = pin!(drain.wanted());
    let mut draining = false;
    let began = now();
    let mut timer = timer::sleep_until(began + open.limits().head_time);
    poll_fn(|cx| {
        // Before it is polled: one that is told to go has begun nothing.
        if open.is_evicted(cx) {
            return Poll::Ready(false);
        }
        if let Poll::Ready(end) = codec.as_mut().poll(cx) {
            if let Err(error) = &end {
                tracing::debug!(peer = %connection.peer, %error, "connection ended");
            }
            return Poll::Ready(end.is_ok());
        }
        let mut last_word = None;
        if !draining && (drain.has_begun() || wanted.as_mut().poll(cx).is_ready()) {
            last_word = awaited(connection, open.limits(), began).filter(|until| *until > now());
            if let Some(until) = last_word {
                if until < timer.at() {
                    timer.reset(until);
                }
            } else {
                draining = true;
                codec.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
        }
        while Pin::new(&mut timer).poll(cx).is_ready() {
            let (now, limits) = (now(), open.limits());
            match deadline(connection, limits, now) {
                due if due > now => timer.reset(last_word.map_or(due, |until| until.min(due))),
                _ => {
                    if connection.activity.phase() == Phase::Head {
                        // Written by the flush of one last poll.
                        connection.interim.push(&handler.refuse(408, connection, limits.told()));
                        let _ = codec.as_mut().poll(cx);
                    }
                    return Poll::Ready(false);
                }
            }
        }
        Poll::Pending
    })
    .await
}

/// Until when a request that the client may have sent is waited for, once the drain has begun. The codec would close a
/// connection on which it knows of none.
fn awaited(connection: &Connection, limits: Limits, began: Instant) -> Option<Instant> {
    let activity = &connection.activity;
    match activity.phase() {
        Phase::Idle => Some(activity.since().max(began) + LAST_WORD),
        Phase::Head => Some(activity.since() + limits.head_time),
        Phase::Serving | Phase::Flushing => None,
    }
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
