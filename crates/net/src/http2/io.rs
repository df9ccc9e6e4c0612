//! The socket of a connection of HTTP/2, with what was read before it was known which protocol this is.
//!
//! What comes in is looked at frame by frame, so that a head has its deadline; what goes out is watched, so that a client
//! that takes nothing is given up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Streams;
use super::frames::Frames;
use crate::http1::Preface;
use crate::stall::Stall;
use crate::stream::Stream;

/// The socket as the codec sees it.
pub(super) struct Io {
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
    pub(super) fn new(preface: Preface, streams: &Arc<Streams>, write_time: Duration) -> Self {
        let (ahead, frames) = (preface.read.into(), Frames::new());
        let (streams, stall) = (Arc::clone(streams), Stall::new(write_time));
        Self { stream: preface.stream, ahead, head: frames.head(), frames, streams, stall }
    }

    /// Looks at what came, and notes since when a head is on its way.
    fn look(&mut self, bytes: &[u8]) {
        self.frames.see(bytes);
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

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ahead.is_empty() {
            let piece = this.ahead.split_to(this.ahead.len().min(buf.remaining()));
            buf.put_slice(&piece);
            this.look(&piece);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.look(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
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
