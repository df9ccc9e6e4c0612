//! A connection that a service has switched to WebSocket (RFC 6455 §4.2.2): it carries no HTTP any more and goes back to
//! no pool.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, header};
use pylon_core::spare;
use pylon_net::stream::Stream;
use pylon_net::{client_side, websocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::{Conn, Life};
use crate::endpoint::Lease;
use crate::head::HeadError;

/// Whether the head of a 101 keeps what RFC 6455 §4.1 demands of it; `key` is that of the handshake.
pub(crate) fn check(headers: &HeaderMap, key: &[u8]) -> Result<(), HeadError> {
    let sole = |name: header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(http::HeaderValue::as_bytes)
    };
    if !sole(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes())) {
        return Err(HeadError::Handshake("`Upgrade` is not `websocket`"));
    }
    let mut options = headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|&b| b == b','));
    if !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
        return Err(HeadError::Handshake("`Connection` does not name `upgrade`"));
    }
    if sole(header::SEC_WEBSOCKET_ACCEPT) != Some(websocket::accept(key).as_bytes()) {
        return Err(HeadError::Handshake("`Sec-WebSocket-Accept` is not the proof of the key"));
    }
    Ok(())
}

/// The service's side of a tunnel. It counts as an exchange under way, and as an open connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Switched {
    stream: Stream,
    /// What was read behind the head, in as many bytes as it has: a tunnel has no buffer while it is idle.
    ahead: Bytes,
    _life: Box<Life>,
    _lease: Lease,
}

impl Switched {
    pub(crate) fn new(conn: Conn, lease: Lease) -> Self {
        let Conn { stream, buf, life } = conn;
        let ahead = Bytes::copy_from_slice(&buf);
        spare::give_read(buf);
        Self { stream, ahead, _life: life, _lease: lease }
    }
}

impl AsyncRead for Switched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, ahead, .. } = self.get_mut();
        if ahead.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        client_side::take(ahead, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn verdict(fields: &[(&'static str, &'static str)]) -> Result<(), HeadError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(&headers, b"dGhlIHNhbXBsZSBub25jZQ==")
    }

    const PROOF: (&str, &str) = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

    #[test]
    fn a_switch_is_proved_or_refused() {
        let upgrade = ("upgrade", "WebSocket");
        assert_eq!(verdict(&[upgrade, ("connection", "keep-alive, Upgrade"), PROOF]), Ok(()));
        for fields in [
            &[("connection", "upgrade"), PROOF][..],
            &[("upgrade", "h2c"), ("connection", "upgrade"), PROOF],
            &[upgrade, upgrade, ("connection", "upgrade"), PROOF],
            &[("upgrade", "websocket, h2c"), ("connection", "upgrade"), PROOF],
            &[upgrade, ("connection", "close"), PROOF],
            &[upgrade, PROOF],
            &[upgrade, ("connection", "upgrade")],
            &[upgrade, ("connection", "upgrade"), PROOF, PROOF],
            &[upgrade, ("connection", "upgrade"), ("sec-websocket-accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=")],
        ] {
            assert!(verdict(fields).is_err(), "{fields:?}");
        }
    }
}
