//! Connections that wait to be accepted, and how a listening socket is closed without losing one of them.
//!
//! The kernel resets what waits in the queue of a socket that is closed, and a client may be in the middle of its handshake
//! meanwhile. So nobody new is let in first: on TCP a filter of the socket drops each SYN, which the client sends again a
//! second later, to whoever listens by then. Handshakes that had begun end in the queue, and only when that has been empty
//! for long enough is the socket closed.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{SockFilter, SockRef};

use crate::listen::Listener;
use crate::socket::Socket;
use crate::timer;

/// How long a worker that has run out of file descriptors waits before it accepts again.
pub(crate) const OUT_OF_FILES: Duration = Duration::from_millis(50);
/// How long a handshake that has begun may take to come into the queue once nobody new is let in.
const HANDSHAKE: Duration = Duration::from_millis(250);
/// More than a queue can hold: a bound for the last look where no filter keeps clients out.
const MOST: usize = 8192;

/// What lets everything through but the beginning of a connection: the flags of TCP are its byte 13 (RFC 9293 §3.1), SYN
/// is 2 and ACK 16; classic BPF, as in `linux/filter.h`.
const NO_SYN: [(u16, u8, u8, u32); 5] =
    [(0x30, 0, 0, 13), (0x54, 0, 0, 0x12), (0x15, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, u32::MAX)];

/// Connections that wait to be accepted.
#[derive(Debug)]
pub(crate) enum Queue {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// A connection as it was accepted.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    /// None by a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) at: Instant,
}

impl Queue {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(by_tcp(stream, peer))
            }
            Self::Unix(listener) => Ok(by_unix(listener.accept().await?.0)),
        }
    }

    /// Serves who waits still, and closes the socket.
    pub(crate) async fn close(self, serve: impl Fn(Accepted)) {
        self.bar();
        let until = now() + HANDSHAKE;
        while let Ok(accepted) = timer::timeout_at(Some(until), self.accept()).await {
            match accepted {
                Ok(accepted) => serve(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => timer::sleep(OUT_OF_FILES).await,
            }
        }
        // Straight from the system: the runtime shares out what a task may take at once, and may not know the latest.
        let left = match self {
            Self::Tcp(listener) => listener.into_std().map(Listener::Tcp),
            Self::Unix(listener) => listener.into_std().map(Listener::Unix),
        };
        let Ok(left) = left else { return };
        for _ in 0..MOST {
            match left.accept() {
                Ok(accepted) => serve(accepted),
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => break,
            }
        }
    }

    /// Lets nobody new in. A Unix socket has no need of it: its path is gone by now.
    fn bar(&self) {
        let Self::Tcp(listener) = self else { return };
        let filter = NO_SYN.map(|(code, yes, no, operand)| SockFilter::new(code, yes, no, operand));
        if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
            tracing::debug!(%error, "clients are let in until the listener is closed");
        }
    }
}

impl Listener {
    /// Accepts one connection, if one waits.
    fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(by_tcp(tokio::net::TcpStream::from_std(stream)?, peer))
            }
            Self::Unix(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nonblocking(true)?;
                Ok(by_unix(tokio::net::UnixStream::from_std(stream)?))
            }
        }
    }
}

fn by_tcp(stream: tokio::net::TcpStream, peer: SocketAddr) -> Accepted {
    let _ = stream.set_nodelay(true);
    Accepted { socket: stream.into(), peer: Some(canonical(peer)), at: now() }
}

fn by_unix(stream: tokio::net::UnixStream) -> Accepted {
    Accepted { socket: stream.into(), peer: None, at: now() }
}

/// Errors of `accept` that concern the one connection that was being accepted (accept(2)).
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// An IPv4 client on an IPv6 socket is an IPv4 client.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read as _;
    use std::net::TcpStream;

    use super::*;
    use crate::listen;

    /// One that listens, and its address.
    fn queue() -> (Queue, SocketAddr) {
        let socket = listen::bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap().pop().unwrap();
        let address = socket.local_addr().unwrap();
        (Queue::new(Listener::Tcp(socket)).unwrap(), address)
    }

    #[tokio::test]
    async fn everybody_in_a_long_queue_is_accepted_before_it_is_closed() {
        let (queue, address) = queue();
        let mut clients: Vec<_> = (0..500).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted = Cell::new(0);
        // Their sockets close in good order, which a client behind a reset would not see.
        queue.close(|_| accepted.set(accepted.get() + 1)).await;
        assert_eq!(accepted.get(), 500);
        assert!(clients.iter_mut().all(|client| client.read(&mut [0]).unwrap() == 0));
        assert!(TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn nobody_new_is_let_in_while_a_socket_is_being_closed() {
        let (queue, address) = queue();
        queue.bar();
        let late = tokio::task::spawn_blocking(move || TcpStream::connect(address));
        assert!(tokio::time::timeout(Duration::from_millis(200), queue.accept()).await.is_err());
        assert!(!late.is_finished(), "it was refused, or let in");
        drop(queue);
        assert!(late.await.unwrap().is_err(), "it knocks again, and nobody is there");
    }
}
