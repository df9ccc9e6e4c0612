//! The client's side of a tunnel: its socket on HTTP/1.1, one of its streams on HTTP/2, without a word of their codecs.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pylon_http2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::drain::Open;
use crate::stream::Stream;

/// So much goes out at once on a stream.
const PIECE: usize = 16 << 10;

/// What a client sends and reads once the protocol was switched. Its connection counts as open, and its stream as well, for
/// as long as this lives.
#[derive(Debug)]
pub struct ClientSide(Side);

#[derive(Debug)]
enum Side {
    /// The connection, and what was read of it before the switch.
    Http1 { stream: Stream, ahead: Bytes, _open: Open },
    /// One stream of a connection.
    Http2(Box<Http2>),
}

/// A stream of a connection of HTTP/2.
#[derive(Debug)]
struct Http2 {
    receiving: RecvStream,
    /// What has come and was not read yet: only then may more come.
    ahead: Bytes,
    sending: SendStream,
    _open: Box<dyn Any + Send>,
}

impl ClientSide {
    pub(crate) fn http1(stream: Stream, ahead: Bytes, open: Open) -> Self {
        // Empty as it is, it would keep the codec's whole buffer for as long as the tunnel lives.
        let ahead = if ahead.is_empty() { Bytes::new() } else { ahead };
        Self(Side::Http1 { stream, ahead, _open: open })
    }

    pub(crate) fn http2(receiving: RecvStream, sending: SendStream, open: impl Any + Send) -> Self {
        Self(Side::Http2(Box::new(Http2 { receiving, ahead: Bytes::new(), sending, _open: Box::new(open) })))
    }
}

/// Takes what was read ahead, as far as there is room for it.
#[cold]
pub fn take(ahead: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let taken = ahead.len().min(buf.remaining());
    buf.put_slice(&ahead.split_to(taken));
    if ahead.is_empty() {
        // It would keep what it is a part of.
        *ahead = Bytes::new();
    }
}

impl Http2 {
    /// Out of the way of a connection that is all the client's.
    #[inline(never)]
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.receiving.poll_data(cx)) {
                Some(Ok(data)) => self.ahead = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(error.into()),
                    });
                }
            }
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(taken));
        self.receiving.release(taken);
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(self.sending.poll_room(cx))?;
            let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
            match self.sending.send(&mut Bytes::copy_from_slice(piece), false)? {
                0 => {}
                sent => return Poll::Ready(Ok(sent)),
            }
        }
    }
}

impl AsyncRead for ClientSide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, ahead, .. } if ahead.is_empty() => Pin::new(stream).poll_read(cx, buf),
            Side::Http1 { ahead, .. } => {
                take(ahead, buf);
                Poll::Ready(Ok(()))
            }
            Side::Http2(stream) => stream.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientSide {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
            Side::Http2(stream) => stream.poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_flush(cx),
            // The task of the connection writes.
            Side::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Side::Http2(stream) => {
                // An error here means that the stream is over already.
                let _ = stream.sending.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}
