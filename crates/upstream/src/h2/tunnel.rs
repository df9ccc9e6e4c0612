//! A stream that a service has agreed to make a WebSocket of (extended CONNECT, RFC 8441 §5): bytes both ways, each as far
//! as the other side's window allows.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderValue, StatusCode};
use pylon_http2::{RecvStream, SendStream};
use pylon_net::websocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Place;
use super::exchange::Answered;
use crate::endpoint::Lease;

/// So much goes out at once.
const PIECE: usize = 16 << 10;

/// Gives an answer that agrees the form that it has on HTTP/1.1, with the proof of `key` that is not asked for here.
pub(crate) fn agreed(head: &mut Answered, key: &HeaderValue) {
    if head.status().is_success()
        && let Ok(proof) = HeaderValue::try_from(websocket::accept(key.as_bytes()))
    {
        head.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
        *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
}

/// The stream. Dropped before both sides have ended, it is reset.
#[derive(Debug)]
pub(crate) struct Tunnelled {
    sending: SendStream,
    reading: RecvStream,
    /// What has been read and not taken yet.
    ahead: Bytes,
    _place: Place,
    _lease: Lease,
}

impl Tunnelled {
    pub(crate) fn new(sending: SendStream, reading: RecvStream, place: Place, lease: Lease) -> Self {
        Self { sending, reading, ahead: Bytes::new(), _place: place, _lease: lease }
    }
}

impl AsyncRead for Tunnelled {
    /// Out of the way of a connection that is all the service's.
    #[inline(never)]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A frame without content is no end.
        while this.ahead.is_empty() {
            match ready!(this.reading.poll_data(cx)) {
                Some(data) => this.ahead = data?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.ahead.len().min(buf.remaining());
        buf.put_slice(this.ahead.get(..taken).unwrap_or_default());
        this.ahead.advance(taken);
        // Whoever takes it has room for it: more may come.
        this.reading.release(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sending = &mut self.get_mut().sending;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            ready!(sending.poll_room(cx))?;
            let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
            match sending.send(&mut Bytes::copy_from_slice(piece), false)? {
                0 => {}
                sent => return Poll::Ready(Ok(sent)),
            }
        }
    }

    /// The task of the connection writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sending.end().map_err(io::Error::from))
    }
}
