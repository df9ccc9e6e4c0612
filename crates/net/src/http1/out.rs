//! Puts an answer's body on its way, in the framing that was announced.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use pylon_http1::write;

use super::encode::Framing;
use crate::outbox::Outbox;
use crate::stream::Stream;

/// Pieces up to this size are copied behind what waits, so that one write takes both, in bytes.
const COPY: usize = 16 * 1024;

/// Heads and bodies on their way.
#[derive(Debug, Default)]
pub(super) struct Out(Outbox);

/// A body that does not fit the framing that was announced.
#[derive(Debug)]
pub(super) struct Unframed;

impl Out {
    /// What goes out next may be written here.
    pub(super) fn line(&mut self) -> &mut Vec<u8> {
        self.0.line()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether more may be added before what waits is written.
    pub(super) fn has_room(&self) -> bool {
        self.0.has_room()
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
            let line = self.line();
            line.extend_from_slice(&data);
            line.extend_from_slice(tail);
        } else {
            self.0.put(data, tail);
        }
        Ok(())
    }

    /// Ends a body, by trailers where they may be sent.
    pub(super) fn end(&mut self, framing: Framing, trailers: Option<&HeaderMap>) -> Result<(), Unframed> {
        match framing {
            Framing::Fixed(1..) => return Err(Unframed),
            Framing::Chunked => write::end(self.line(), trailers),
            Framing::Empty | Framing::Fixed(0) | Framing::UntilClose => {}
        }
        Ok(())
    }

    /// Writes what waits. Ready once all of it is with the system.
    pub(super) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write(stream, cx)
    }

    /// Gives back its memory, where nothing waits.
    pub(super) fn rest(&mut self) {
        self.0.rest();
    }
}
