//! Bytes on their way to a socket: what is copied together, a large piece behind it as it is, and a few bytes behind that.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite as _;

use crate::stream::Stream;
use pylon_core::spare;

/// So much is copied together before it is written, in bytes.
const GATHER: usize = 32 * 1024;

/// What waits to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Sent first, from `sent` on.
    line: Vec<u8>,
    sent: usize,
    piece: Bytes,
    tail: &'static [u8],
    /// All that the socket has taken, in bytes.
    taken: u64,
}

impl Outbox {
    /// What is copied together. To be added to only while no piece waits behind it.
    pub fn line(&mut self) -> &mut Vec<u8> {
        if self.line.capacity() == 0 {
            self.line = spare::take_write();
        }
        &mut self.line
    }

    /// Puts a piece behind that, and `tail` behind the piece.
    pub fn put(&mut self, piece: Bytes, tail: &'static [u8]) {
        (self.piece, self.tail) = (piece, tail);
    }

    /// Puts another tail behind the piece that waits.
    pub fn end(&mut self, tail: &'static [u8]) {
        self.tail = tail;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sent >= self.line.len() && !self.has_piece() && self.tail.is_empty()
    }

    /// Whether some of a piece waits.
    pub fn has_piece(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Whether more may be added before what waits is written.
    pub fn has_room(&self) -> bool {
        !self.has_piece() && self.tail.is_empty() && self.line.len() < GATHER
    }

    /// All that the socket has taken, in bytes.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Writes what waits. Ready once all of it is with the system.
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let line = self.line.get(self.sent..).unwrap_or_default();
            let sent = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, line))?
            } else {
                let parts = [IoSlice::new(line), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
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
    pub fn rest(&mut self) {
        if self.is_empty() {
            spare::give_write(std::mem::take(&mut self.line));
            self.sent = 0;
        }
    }

    fn advance(&mut self, sent: usize) {
        self.taken = self.taken.saturating_add(sent as u64);
        let line = sent.min(self.line.len().saturating_sub(self.sent));
        self.sent = self.sent.saturating_add(line);
        let piece = sent.saturating_sub(line).min(self.piece.len());
        self.piece.advance(piece);
        let tail = sent.saturating_sub(line).saturating_sub(piece);
        self.tail = self.tail.get(tail..).unwrap_or_default();
        if self.piece.is_empty() {
            // What it was a slice of may be large.
            self.piece = Bytes::new();
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        spare::give_write(std::mem::take(&mut self.line));
    }
}
