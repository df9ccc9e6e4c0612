//! A stream that a service has agreed to make a WebSocket of (extended CONNECT, RFC 8441 §5): bytes both ways, each as far
//! as the other side's window allows.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderValue, StatusCode};
use pylon_net::websocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Place;
use super::exchange::Answered;
use crate::endpoint::Lease;

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
    sending: SendStream<Bytes>,
    reading: RecvStream,
    /// What has been read and not taken yet.
    ahead: Bytes,
    _place: Place,
    _lease: Lease,
}

impl Tunnelled {
    pub(crate) fn new(sending: SendStream<Bytes>, reading: RecvStream, place: Place, lease: Lease) -> Self {
        Self { sending, reading, ahead: Bytes::new(), _place: place, _lease: lease }
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A frame without content is no end.
        while this.ahead.is_empty() {
            match ready!(this.reading.poll_data(cx)) {
                Some(data) => this.ahead = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.ahead.len().min(buf.remaining());
        buf.put_slice(this.ahead.get(..taken).unwrap_or_default());
        this.ahead.advance(taken);
        // Whoever takes it has room for it: more may come.
        Poll::Ready(this.reading.flow_control().release_capacity(taken).map_err(io::Error::other))
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sending = &mut self.get_mut().sending;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        sending.reserve_capacity(bytes.len());
        let room = match sending.capacity() {
            0 => match ready!(sending.poll_capacity(cx)) {
                Some(room) => room.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => room,
        };
        let piece = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        sending.send_data(Bytes::copy_from_slice(piece), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(piece.len()))
    }

    /// The task of the connection writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sending.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
