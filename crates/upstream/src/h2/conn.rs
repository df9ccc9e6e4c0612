//! One connection to an upstream that speaks HTTP/2, shared by the exchanges of a worker.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_http2::client::{self, Answer, Requests};
use pylon_http2::{Error, Limits, SendStream};
use pylon_net::stream::Stream;

use super::encode::Sendable;
use crate::h1::conn::Open;

/// How much of one answer, and of all of them, may be on its way before the client has taken it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams at once where the other side sets no limit.
const MAX_STREAMS: usize = 1024;
/// Streams that the other side made us reset, more than there were others, before the connection ends.
const MISTAKES: usize = 1024;

/// A connection that carries many exchanges.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) addr: SocketAddr,
    /// When it takes no further request.
    expires: Instant,
    /// Set when it is not to be used any more: it ended, or does not answer.
    retired: AtomicBool,
    requests: Requests,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    streams: usize,
    /// When the last stream ended.
    idle_since: Instant,
}

/// A stream that counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place(Arc<Conn>);

impl Conn {
    /// Begins HTTP/2 on `stream`, and waits until the other side has said what it allows: one that says nothing is no
    /// server of HTTP/2, and costs the connect timer and not that of the answer.
    pub(crate) async fn begin(
        stream: Stream,
        addr: SocketAddr,
        expires: Instant,
        max_head: usize,
        open: Open,
    ) -> Result<Arc<Self>, Error> {
        let limits = Limits {
            // The other side opens none.
            streams: 0,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            // Twice, so that we can name our own limit where it is passed.
            head: u32::try_from(max_head.saturating_mul(2)).unwrap_or(u32::MAX),
            resets: 0,
            mistakes: MISTAKES,
        };
        let (requests, mut driver) = client::begin(stream, limits);
        let begun = poll_fn(|cx| match Pin::new(&mut driver).poll(cx) {
            Poll::Ready(end) => Poll::Ready(Err(end.unwrap_or(Error::Over))),
            Poll::Pending if requests.is_settled() => Poll::Ready(requests.check()),
            Poll::Pending => Poll::Pending,
        });
        begun.await?;
        let now = tokio::time::Instant::now().into_std();
        let counts = Mutex::new(Counts { streams: 0, idle_since: now });
        let conn = Arc::new(Self { addr, expires, retired: AtomicBool::new(false), requests, counts });
        let watched = Arc::downgrade(&conn);
        tokio::spawn(async move {
            // Counts as open until the driver ends.
            let _open = open;
            let end = driver.await;
            if let Some(conn) = watched.upgrade() {
                conn.retire();
            }
            if let Some(error) = end {
                tracing::debug!(%addr, %error, "a connection of HTTP/2 ended");
            }
        });
        Ok(conn)
    }

    /// Takes no further request. Those under way go on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Whether it can be used at all.
    pub(crate) fn is_of_use(&self, now: Instant) -> bool {
        !self.retired.load(Relaxed) && now < self.expires
    }

    /// Whether nothing has been under way here for so long.
    pub(crate) fn has_idled(&self, now: Instant, span: Duration) -> bool {
        let counts = self.counts.lock();
        counts.streams == 0 && now.saturating_duration_since(counts.idle_since) >= span
    }

    /// A place for one more stream, if there is one.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        let allowed = self.requests.allowed().min(MAX_STREAMS);
        let mut counts = self.counts.lock();
        if counts.streams >= allowed {
            return None;
        }
        counts.streams = counts.streams.saturating_add(1);
        drop(counts);
        Some(Place(Arc::clone(self)))
    }
}

impl Place {
    /// Sends the head of a request. An error means that nothing of it was sent: the connection takes no more.
    pub(crate) fn send(&self, head: &Sendable<'_>, ends: bool) -> Result<(Answer, SendStream), Error> {
        let sent = self.0.requests.send(head.method(), ends, |fields| head.write(fields));
        sent.inspect_err(|_| self.0.retire())
    }

    /// Whether the other side's settings allow streams that become WebSockets (RFC 8441 §3).
    pub(crate) fn takes_websockets(&self) -> bool {
        self.0.requests.takes_websockets()
    }

    /// The connection.
    pub(crate) fn conn(&self) -> &Conn {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.streams = counts.streams.saturating_sub(1);
        if counts.streams == 0 {
            counts.idle_since = tokio::time::Instant::now().into_std();
        }
    }
}
