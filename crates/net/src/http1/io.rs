//! The client's socket as hyper sees it: what is put between its answers, and how it is closed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pylon_core::connection::{Connection, Phase};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Preface;
use super::inbound::Inbound;
use crate::handler::Handler;
use crate::limits::Told;
use crate::stall::Stall;
use crate::stream::{self, Stream};
use crate::timer;

/// How long the close waits for the client to read what was sent.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes that nobody asked for are read meanwhile.
const LINGER_BYTES: usize = 4 << 20;
/// What a client sends that knows that the other side speaks HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client's socket as hyper sees it.
pub(super) struct Io<H> {
    stream: Stream,
    connection: Arc<Connection>,
    handler: Arc<H>,
    /// Bytes of an answer were written and not yet all flushed, so that nothing may be put between.
    dirty: bool,
    /// Interim answers that are being written.
    ahead: Vec<u8>,
    /// What the client's bytes must pass.
    inbound: Inbound,
    /// Nothing has been read yet, and HTTP/2 would be welcome.
    fresh: bool,
    /// The client began HTTP/2; what it sent is in `ahead`.
    switched: bool,
    /// Our side is closed; what the client still sends is read and dropped.
    closing: Option<Closing>,
    /// What refusals of the codec say of its limits.
    told: Told,
    /// Ends what the client does not take.
    stall: Stall,
}

/// See [`LINGER`].
struct Closing {
    timer: timer::Sleep,
    left: usize,
}

impl<H> Io<H> {
    pub(super) fn new(
        stream: Stream,
        preface: bool,
        connection: Arc<Connection>,
        handler: Arc<H>,
        (told, write_time): (Told, Duration),
    ) -> Self {
        Self {
            stream,
            connection,
            handler,
            dirty: false,
            ahead: Vec::new(),
            inbound: Inbound::default(),
            fresh: preface,
            switched: false,
            closing: None,
            told,
            stall: Stall::new(write_time),
        }
    }

    /// The socket, once it is no longer one of HTTP/1.1, and what was read of it and never given to the codec.
    pub(super) fn into_raw(self) -> (Stream, Vec<u8>) {
        (self.stream, self.inbound.into_held())
    }

    /// Whether the codec ended without a close, though it is over with HTTP/1.1 and nothing follows it.
    pub(super) fn is_left_open(&mut self) -> bool {
        self.closing.is_none() && self.inbound.has_refused_upgrade(&self.connection)
    }

    /// The connection, where it is to go on as one of HTTP/2.
    pub(super) fn preface(self) -> Option<Preface> {
        self.switched.then_some(Preface { stream: self.stream, read: self.ahead })
    }
}

impl<H: Handler> Io<H> {
    /// Writes what waits of interim answers; where an answer is half written they come too late and are dropped.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.switched {
            return Poll::Ready(Ok(()));
        }
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
            let wrote = Pin::new(&mut self.stream).poll_write(cx, &self.ahead);
            let n = ready!(self.stall.watch(cx, &self.stream, &self.connection, wrote))?;
            self.ahead.drain(..n);
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.stall.watch(cx, &self.stream, &self.connection, flushed)
    }

    /// Whether `bytes` are a refusal of the codec's own: an answer where no request is being served.
    fn is_codecs_own(&self, bytes: &[u8]) -> Option<u16> {
        if self.dirty || !matches!(self.connection.activity.phase(), Phase::Idle | Phase::Head) {
            return None;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 "))?.get(..3)?;
        match std::str::from_utf8(status).ok()?.parse().ok()? {
            // The codec counts the head as a whole.
            431 if self.inbound.is_in_target() => Some(414),
            status => Some(status),
        }
    }
}

/// What a read came to.
enum Read {
    Some,
    /// The client has closed its sending side.
    End,
    /// Nothing for the codec yet.
    Kept,
    /// The client begins HTTP/2.
    Preface,
}

impl<H> Io<H> {
    fn poll_bytes(&mut self, cx: &mut Context<'_>, buf: &mut hyper::rt::ReadBufCursor<'_>) -> Poll<io::Result<Read>> {
        if let Some(kept) = self.inbound.poll_kept(&self.connection, buf) {
            return kept.map(|()| Ok(Read::Some));
        }
        let (fresh, ahead) = (std::mem::take(&mut self.fresh), &mut self.ahead);
        let (inbound, connection) = (&mut self.inbound, &*self.connection);
        let look = |bytes: &[u8]| {
            if fresh && bytes.len() > 2 && bytes.iter().zip(PREFACE).all(|(byte, of)| byte == of) {
                ahead.extend_from_slice(bytes);
                return (0, Read::Preface);
            }
            match inbound.admit(bytes, connection) {
                _ if bytes.is_empty() => (0, Read::End),
                0 => (0, Read::Kept),
                passed => (passed, Read::Some),
            }
        };
        let read = stream::poll_fill(&mut self.stream, cx, buf, look);
        if read.is_pending() {
            self.fresh = fresh;
        }
        read
    }
}

impl<H: Handler> hyper::rt::Read for Io<H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let read = ready!(this.poll_bytes(cx, &mut buf));
            match read.inspect_err(|_| this.connection.ended.store(true, Ordering::Relaxed))? {
                Read::Kept => continue,
                Read::End => this.connection.ended.store(true, Ordering::Relaxed),
                Read::Preface => {
                    this.switched = true;
                    return Poll::Ready(Err(io::Error::other("the client speaks HTTP/2")));
                }
                Read::Some if this.connection.activity.phase() == Phase::Idle => {
                    this.connection.activity.enter(Phase::Head, now());
                }
                Read::Some => {}
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl<H: Handler> hyper::rt::Write for Io<H> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        let this = &mut *self;
        if let Some(status) = this.is_codecs_own(bytes) {
            let answer = this.handler.refuse(status, &this.connection, this.told);
            // A fresh answer of some hundred bytes fits the socket's buffer; if it does not, the client is not reading.
            let _ = Pin::new(&mut this.stream).poll_write(cx, &answer);
            return Poll::Ready(Ok(bytes.len()));
        }
        let wrote = Pin::new(&mut this.stream).poll_write(cx, bytes);
        let n = ready!(this.stall.watch(cx, &this.stream, &this.connection, wrote))?;
        this.dirty = true;
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
        let this = &mut *self;
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        let n = ready!(this.stall.watch(cx, &this.stream, &this.connection, wrote))?;
        this.dirty = true;
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper comes here once all that it holds is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.stall.watch(cx, &this.stream, &this.connection, flushed))?;
        this.dirty = false;
        if self.connection.activity.phase() == Phase::Flushing {
            self.connection.activity.pass_to(Phase::Idle);
        }
        self.poll_interim(cx)
    }

    /// Closes so that the client can read the answer to its end: a close with bytes unread would be a reset.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.switched {
            return Poll::Ready(Ok(()));
        }
        if this.closing.is_none() {
            let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
            ready!(this.stall.watch(cx, &this.stream, &this.connection, shut))?;
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
