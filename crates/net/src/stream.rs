//! The bytes of a connection, in cleartext or under TLS, as one type.
//!
//! The TLS half is boxed: a cleartext connection, of which there may be many, does not pay for its size.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use crate::socket::Socket;

/// A connection to a client or to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// In cleartext.
    Plain(Socket),
    /// Under TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// How many bytes were sent that the other side has not taken yet, where the system tells.
    pub(crate) fn unsent(&self) -> Option<u64> {
        match self {
            Self::Plain(socket) => socket.unsent(),
            Self::Tls(stream) => stream.get_ref().0.unsent(),
        }
    }

    /// Whether the handshake of TLS has settled on HTTP/2 (ALPN, RFC 7301).
    pub fn agreed_on_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// The address of the other side.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }

    /// The name that the client asked for in the handshake.
    pub(crate) fn server_name(&self) -> Option<Box<str>> {
        match self {
            Self::Tls(stream) => match &**stream {
                TlsStream::Server(stream) => {
                    let name = stream.get_ref().1.server_name()?;
                    Some(name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into())
                }
                TlsStream::Client(_) => None,
            },
            Self::Plain(_) => None,
        }
    }

    /// From here on the end of the connection is a reset, which nobody takes for the end of what was sent.
    pub(crate) fn reset_at_close(&self) {
        match self {
            Self::Plain(socket) => socket.reset_at_close(),
            Self::Tls(stream) => stream.get_ref().0.reset_at_close(),
        }
    }

    /// Writes what can be written at once. What is left, and what TLS still holds back, goes with later polls.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(stream) => at_once(Pin::new(stream).poll_write(&mut nobody(), bytes)),
        }
    }

    /// Whether all that was written is with the system.
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(stream) => !stream.get_ref().1.wants_write(),
        }
    }

    /// Whether the peer has neither closed nor sent anything. No system call where nothing happened.
    pub fn is_quiet(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        let read = match self {
            Self::Plain(stream) => stream.try_read(&mut byte).map(|_| ()),
            Self::Tls(stream) => at_once(Pin::new(stream).poll_read(&mut nobody(), &mut ReadBuf::new(&mut byte))),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A context that wakes nobody: for a look at what is there now. Whoever waits polls again with a context of its own.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn at_once<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

// What TLS does stands out of the way of what is in cleartext.

#[inline(never)]
fn read_tls(stream: &mut TlsStream<Socket>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_read(cx, buf)
}

#[inline(never)]
fn write_tls(stream: &mut TlsStream<Socket>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, bytes)
}

#[inline(never)]
fn flush_tls(stream: &mut TlsStream<Socket>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_flush(cx)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => read_tls(stream, cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => write_tls(stream, cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// In cleartext, what was written is with the system already; under TLS it may still wait for the socket.
    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => flush_tls(stream, cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
