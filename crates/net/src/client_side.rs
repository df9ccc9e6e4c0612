//! The client's side of a tunnel: its socket on HTTP/1.1, one of its streams on HTTP/2; no word of hyper's gets out.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read as _, Write as _};
use hyper::upgrade::Upgraded;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// What a client sends and reads once the protocol was switched.
#[derive(Debug)]
pub struct ClientSide(Side);

#[derive(Debug)]
enum Side {
    /// The connection, and what was read of it before the switch.
    Http1 { stream: Stream, ahead: Bytes },
    /// One stream of a connection, which counts as open for as long as this lives.
    Http2 { stream: Upgraded, _open: Box<dyn Any + Send> },
}

impl ClientSide {
    pub(crate) fn http1(stream: Stream, ahead: Bytes) -> Self {
        // Empty as it is, it would keep the codec's whole buffer for as long as the tunnel lives.
        let ahead = if ahead.is_empty() { Bytes::new() } else { ahead };
        Self(Side::Http1 { stream, ahead })
    }

    pub(crate) fn http2(stream: Upgraded, open: impl Any + Send) -> Self {
        Self(Side::Http2 { stream, _open: Box::new(open) })
    }
}

impl AsyncRead for ClientSide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, ahead } if ahead.is_empty() => Pin::new(stream).poll_read(cx, buf),
            Side::Http1 { ahead, .. } => {
                let taken = ahead.len().min(buf.remaining());
                buf.put_slice(ahead.get(..taken).unwrap_or_default());
                ahead.advance(taken);
                if ahead.is_empty() {
                    *ahead = Bytes::new();
                }
                Poll::Ready(Ok(()))
            }
            Side::Http2 { stream, .. } => read(Pin::new(stream), cx, buf),
        }
    }
}

/// Reads into a buffer of ours by a cursor of hyper's.
fn read(stream: Pin<&mut Upgraded>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let mut into = hyper::rt::ReadBuf::new(buf.initialize_unfilled());
    ready!(stream.poll_read(cx, into.unfilled()))?;
    let read = into.filled().len();
    buf.advance(read);
    Poll::Ready(Ok(()))
}

impl AsyncWrite for ClientSide {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
            Side::Http2 { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_flush(cx),
            Side::Http2 { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1 { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Side::Http2 { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
