//! The service's side of a tunnel: a connection of HTTP/1.1 that has switched, or a stream of HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::endpoint::Lease;
use crate::h1::conn::Conn;
use crate::{h1, h2};

/// What a service sends and reads once it has agreed. It counts as an exchange under way until it is dropped.
#[derive(Debug)]
pub struct ServiceSide(Side);

#[derive(Debug)]
enum Side {
    Http1(h1::switch::Switched),
    Http2(h2::tunnel::Tunnelled),
}

impl ServiceSide {
    pub(crate) fn http1(conn: Conn, lease: Lease) -> Self {
        Self(Side::Http1(h1::switch::Switched::new(conn, lease)))
    }

    pub(crate) fn http2(stream: h2::tunnel::Tunnelled) -> Self {
        Self(Side::Http2(stream))
    }
}

impl AsyncRead for ServiceSide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1(side) => Pin::new(side).poll_read(cx, buf),
            Side::Http2(side) => Pin::new(side).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ServiceSide {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Side::Http1(side) => Pin::new(side).poll_write(cx, bytes),
            Side::Http2(side) => Pin::new(side).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1(side) => Pin::new(side).poll_flush(cx),
            Side::Http2(side) => Pin::new(side).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Side::Http1(side) => Pin::new(side).poll_shutdown(cx),
            Side::Http2(side) => Pin::new(side).poll_shutdown(cx),
        }
    }
}
