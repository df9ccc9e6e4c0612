//! One connection to an upstream that speaks HTTP/2, shared by the exchanges of a worker.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Error, SendStream};
use http::Request;
use parking_lot::Mutex;
use pylon_net::stream::Stream;
use pylon_observe::series::OpenUpstreamConnection;
use tokio::sync::Notify;

/// How much of one answer, and of all of them, may be on its way before the client has taken it.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams at once where the other side sets no limit.
const MAX_STREAMS: usize = 1024;

/// A connection that carries many exchanges.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) addr: SocketAddr,
    /// When it takes no further request.
    expires: Instant,
    /// Set when it is not to be used any more: it ended, or does not answer.
    retired: AtomicBool,
    requests: Mutex<Requests>,
}

#[derive(Debug)]
struct Requests {
    sender: SendRequest<Bytes>,
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
        open: Option<OpenUpstreamConnection>,
    ) -> Result<Arc<Self>, Error> {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // Twice, so that we can name our own limit where it is passed.
            .max_header_list_size(u32::try_from(max_head.saturating_mul(2)).unwrap_or(u32::MAX))
            // None until the other side's settings are here.
            .initial_max_send_streams(0);
        let (sender, mut driver) = builder.handshake(stream).await?;
        let now = tokio::time::Instant::now().into_std();
        let requests = Mutex::new(Requests { sender, streams: 0, idle_since: now });
        let conn = Arc::new(Self { addr, expires, retired: AtomicBool::new(false), requests });
        let settled = Arc::new(Notify::new());
        let (watched, told) = (Arc::downgrade(&conn), Arc::clone(&settled));
        tokio::spawn(async move {
            // Counts as open until the driver ends.
            let _open = open;
            let mut waiting = true;
            let end = poll_fn(|cx| {
                let end = pin!(&mut driver).poll(cx);
                if waiting && (end.is_ready() || driver.max_concurrent_send_streams() > 0) {
                    waiting = false;
                    told.notify_one();
                }
                end
            })
            .await;
            if let Some(conn) = watched.upgrade() {
                conn.retire();
            }
            if let Err(error) = end {
                tracing::debug!(%addr, %error, "a connection of HTTP/2 ended");
            }
        });
        settled.notified().await;
        conn.check().map(|()| conn)
    }

    /// An error where the connection ended or is about to.
    fn check(&self) -> Result<(), Error> {
        let ready = self.requests.lock().sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        match ready {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
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
        let requests = self.requests.lock();
        requests.streams == 0 && now.saturating_duration_since(requests.idle_since) >= span
    }

    /// A place for one more stream, if there is one.
    pub(crate) fn place(self: &Arc<Self>) -> Option<Place> {
        let mut requests = self.requests.lock();
        if requests.streams >= requests.sender.current_max_send_streams().min(MAX_STREAMS) {
            return None;
        }
        requests.streams = requests.streams.saturating_add(1);
        drop(requests);
        Some(Place(Arc::clone(self)))
    }
}

impl Place {
    /// Sends the head of a request. An error means that nothing of it was sent: the connection takes no more.
    pub(crate) fn send(&self, request: Request<()>, ends: bool) -> Result<(ResponseFuture, SendStream<Bytes>), Error> {
        let sent = self.0.requests.lock().sender.send_request(request, ends);
        sent.inspect_err(|_| self.0.retire())
    }

    /// Whether the other side's settings allow streams that become WebSockets (RFC 8441 §3).
    pub(crate) fn takes_websockets(&self) -> bool {
        self.0.requests.lock().sender.is_extended_connect_protocol_enabled()
    }

    /// The connection.
    pub(crate) fn conn(&self) -> &Conn {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut requests = self.0.requests.lock();
        requests.streams = requests.streams.saturating_sub(1);
        if requests.streams == 0 {
            requests.idle_since = tokio::time::Instant::now().into_std();
        }
    }
}
