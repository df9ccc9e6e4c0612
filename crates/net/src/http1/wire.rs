//! The client's socket: bytes that were read ahead, bytes that wait to be written, and a close that resets nothing.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use pylon_core::connection::{Connection, Phase};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::now;
use super::out::Out;
use super::upload::{Feed, poll_into};
use crate::stall::Stall;
use crate::stream::Stream;
use crate::timer::{self, Sleep};
use pylon_core::spare;

/// How long the close waits for the client to read what was sent.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes that nobody asked for are read meanwhile.
const LINGER_BYTES: usize = 4 << 20;

/// One client's socket.
pub(super) struct Wire {
    pub(super) stream: Stream,
    pub(super) connection: Arc<Connection>,
    /// What was read and belongs to no request yet. Holds no memory while the connection idles.
    pub(super) buf: BytesMut,
    pub(super) out: Out,
    /// Ends what the client does not take.
    stall: Stall,
    /// The client has closed its sending side, or the socket broke.
    ended: bool,
}

/// Our side is closed; what the client still sends is read and dropped. See [`LINGER`].
struct Closing {
    timer: Sleep,
    left: usize,
}

impl Wire {
    pub(super) fn new(stream: Stream, connection: &Arc<Connection>, write_time: Duration) -> Self {
        Self {
            stream,
            connection: Arc::clone(connection),
            buf: BytesMut::new(),
            out: Out::default(),
            stall: Stall::new(write_time),
            ended: false,
        }
    }

    /// Reads once, between exchanges. Ready with whether something came.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.buf.capacity() == 0 {
            self.buf = spare::take_read();
        }
        self.buf.reserve(spare::READ / 4);
        let read = match poll_into(&mut self.stream, cx, &mut self.buf) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                if self.buf.is_empty() {
                    spare::give_read(std::mem::take(&mut self.buf));
                }
                return Poll::Pending;
            }
        };
        Poll::Ready(match read {
            Ok(1..) => {
                if self.connection.activity.phase() == Phase::Idle {
                    self.connection.activity.enter(Phase::Head, now());
                }
                true
            }
            Ok(0) | Err(_) => {
                self.has_ended();
                false
            }
        })
    }

    /// Reads what the request's reader waits for; where it waits for nothing, looks whether the client is still there.
    /// Ready with true where the reader may go on, with false where the client is gone.
    pub(super) fn poll_client(&mut self, feed: Option<&Feed>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.ended {
            return Poll::Pending;
        }
        match feed {
            Some(feed) if feed.is_wanted() => {
                if !matches!(ready!(feed.poll_read(&mut self.stream, cx)), Ok(1..)) {
                    self.has_ended();
                }
                return Poll::Ready(true);
            }
            Some(feed) if !feed.is_empty() => return Poll::Pending,
            None if !self.buf.is_empty() => return Poll::Pending,
            _ => {}
        }
        // A few bytes, so that no buffer is needed where, as nearly always, nothing is there.
        let mut few = [0; 64];
        let mut into = ReadBuf::new(&mut few);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into));
        if read.is_err() || into.filled().is_empty() {
            self.has_ended();
            return Poll::Ready(false);
        }
        match feed {
            Some(feed) => feed.put(into.filled()),
            None => {
                self.buf = spare::take_read();
                self.buf.extend_from_slice(into.filled());
            }
        }
        Poll::Pending
    }

    fn has_ended(&mut self) {
        self.ended = true;
        self.connection.ended.store(true, Ordering::Relaxed);
    }

    /// Puts interim answers on their way that wait for it. Only where no answer has begun.
    pub(super) fn take_interim(&mut self) {
        if self.connection.interim.is_waiting() {
            let interim = self.connection.interim.take();
            self.out.line().extend_from_slice(&interim);
        }
    }

    /// Writes what waits, unless the client takes nothing for too long.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = self.out.poll_write(&mut self.stream, cx);
        self.stall.watch(cx, &self.stream, &self.connection, wrote)
    }

    /// Closes so that the client can read the answer to its end: a close with bytes unread would be a reset
    /// (RFC 9112 §9.6).
    pub(super) async fn close(&mut self) {
        let shut = std::future::poll_fn(|cx| {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            self.stall.watch(cx, &self.stream, &self.connection, shut)
        });
        if shut.await.is_err() || self.ended {
            return;
        }
        let mut closing = Closing { timer: timer::sleep_until(now() + LINGER), left: LINGER_BYTES };
        std::future::poll_fn(|cx| closing.poll(&mut self.stream, cx)).await;
    }
}

impl Closing {
    fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4096];
        loop {
            let mut into = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *stream).poll_read(cx, &mut into) {
                Poll::Pending => return Pin::new(&mut self.timer).poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {}
            }
            self.left = self.left.saturating_sub(into.filled().len());
            if into.filled().is_empty() || self.left == 0 {
                return Poll::Ready(());
            }
        }
    }
}
