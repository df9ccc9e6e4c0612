//! What waits to be written to a client: heads and small pieces copied together, a large piece as it is.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use pylon_http1::write;
use tokio::io::AsyncWrite as _;

use super::encode::Framing;
use crate::spare;
use crate::stream::Stream;

/// Pieces up to this size are copied behind what waits, so that one write takes both, in bytes.
const COPY: usize = 16 * 1024;
/// So much is gathered before it is written, in bytes.
const GATHER: usize = 32 * 1024;

/// Bytes on their way.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// Sent first, from `sent` on.
    line: Vec<u8>,
    sent: usize,
    data: Bytes,
    tail: &'static [u8],
}

/// A body that does not fit the framing that was announced.
#[derive(Debug)]
pub(super) struct Unframed;

impl Out {
    /// What goes out next may be written here.
    pub(super) fn line(&mut self) -> &mut Vec<u8> {
        if self.line.capacity() == 0 {
            self.line = spare::take_write();
        }
        &mut self.line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent >= self.line.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether more may be added before what waits is written.
    pub(super) fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.line.len() < GATHER
    }

    /// Adds a piece of a body; `last` says that it is the last one.
    pub(super) fn data(&mut self, framing: &mut Framing, data: Bytes, last: bool) -> Result<(), Unframed> {
        let tail: &'static [u8] = match framing {
            Framing::Empty => return Ok(()),
            Framing::Fixed(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unframed)?;
                b""
            }
            Framing::UntilClose => b"",
            // An empty chunk would be the last.
            Framing::Chunked if data.is_empty() && last => write::LAST,
            Framing::Chunked if data.is_empty() => return Ok(()),
            Framing::Chunked => {
                write::size(self.line(), data.len());
                if last { b"\r\n0\r\n\r\n" } else { b"\r\n" }
            }
        };
        if data.len() <= COPY {
            self.line().extend_from_slice(&data);
            self.line.extend_from_slice(tail);
        } else {
            (self.data, self.tail) = (data, tail);
        }
        Ok(())
    }

    /// Ends a body, by trailers where they may be sent.
    pub(super) fn end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> Result<(), Unframed> {
        match framing {
            Framing::Fixed(1..) => return Err(Unframed),
            Framing::Chunked => {
                write::end(self.line(), trailers);
            }
            Framing::Empty | Framing::Fixed(0) | Framing::UntilClose => {}
        }
        Ok(())
    }

    /// Writes what waits. Ready once all of it is with the system.
    pub(super) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let line = self.line.get(self.sent..).unwrap_or_default();
            let sent = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, line))?
            } else {
                let parts = [IoSlice::new(line), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &parts))?
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(sent);
        }
        self.line.clear();
        self.sent = 0;
        // Under TLS, what was taken may still wait for the socket.
        Pin::new(stream).poll_flush(cx)
    }

    /// Gives back its memory, where nothing waits.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            spare::give_write(std::mem::take(&mut self.line));
            self.sent = 0;
        }
    }

    fn advance(&mut self, sent: usize) {
        let line = sent.min(self.line.len().saturating_sub(self.sent));
        self.sent = self.sent.saturating_add(line);
        let data = sent.saturating_sub(line).min(self.data.len());
        self.data.advance(data);
        let tail = sent.saturating_sub(line).saturating_sub(data);
        self.tail = self.tail.get(tail..).unwrap_or_default();
        if self.data.is_empty() {
            // What it was a slice of may be large.
            self.data = Bytes::new();
        }
    }
}
