//! Makes connections. By TCP: both address families raced (RFC 8305, "happy eyeballs"), the deadline as an instant.
//!
//! The first address gets a head start of 250 ms, then the next joins the race; a failure lets the next start at once.
//! The first to connect wins and the others are dropped. `TCP_NODELAY` is set: requests are written whole.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};

use crate::socket::Socket;
use crate::timer::{Sleep, sleep_until, timeout_at};

/// How long one attempt runs alone before the next begins (RFC 8305 §5, "Connection Attempt Delay").
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of `addrs` that answers. After `deadline` the error is [`io::ErrorKind::TimedOut`].
pub async fn connect(addrs: &[SocketAddr], deadline: Option<Instant>) -> io::Result<Socket> {
    let attempt = async {
        match addrs {
            [] => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address to connect to")),
            [only] => TcpStream::connect(*only).await,
            several => race(several).await,
        }
    };
    let stream = timeout_at(deadline, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

/// Connects to the Unix socket at `path`. After `deadline` the error is [`io::ErrorKind::TimedOut`].
pub async fn connect_unix(path: &Path, deadline: Option<Instant>) -> io::Result<Socket> {
    let attempt = UnixStream::connect(path);
    let stream = timeout_at(deadline, attempt).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(stream.into())
}

/// Orders addresses so that the families alternate, IPv6 first (RFC 8305 §4).
pub fn interleave(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sixes = addrs.iter().copied().filter(SocketAddr::is_ipv6);
    let mut fours = addrs.iter().copied().filter(SocketAddr::is_ipv4);
    let mut ordered = Vec::with_capacity(addrs.len());
    loop {
        let (six, four) = (sixes.next(), fours.next());
        if six.is_none() && four.is_none() {
            return ordered;
        }
        ordered.extend(six);
        ordered.extend(four);
    }
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

struct Race {
    waiting: std::vec::IntoIter<SocketAddr>,
    running: Vec<Attempt>,
    next_start: Option<Sleep>,
    failure: Option<io::Error>,
}

async fn race(addrs: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut race =
        Race { waiting: interleave(addrs).into_iter(), running: Vec::new(), next_start: None, failure: None };
    race.start_next();
    poll_fn(|cx| race.poll(cx)).await
}

impl Race {
    fn start_next(&mut self) {
        if let Some(addr) = self.waiting.next() {
            self.running.push(Box::pin(TcpStream::connect(addr)));
            self.next_start = Some(sleep_until(tokio::time::Instant::now().into_std() + HEAD_START));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        loop {
            let mut index = 0;
            while let Some(attempt) = self.running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        self.failure = Some(error);
                        drop(self.running.remove(index));
                    }
                    Poll::Pending => index += 1,
                }
            }
            if self.waiting.as_slice().is_empty() {
                if self.running.is_empty() {
                    let failure = self.failure.take();
                    return Poll::Ready(Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())));
                }
                return Poll::Pending;
            }
            if self.running.is_empty() {
                self.start_next();
                continue;
            }
            match self.next_start.as_mut().map(|sleep| Pin::new(sleep).poll(cx)) {
                Some(Poll::Pending) => return Poll::Pending,
                _ => self.start_next(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_alternate_and_none_is_lost() {
        let mixed = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[::1]:1"].map(addr);
        assert_eq!(interleave(&mixed), ["[::1]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(addr));
    }

    #[tokio::test]
    async fn a_refused_address_hands_over_to_the_next_at_once() {
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bad = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addrs = [bad.local_addr().unwrap(), good.local_addr().unwrap()];
        drop(bad);
        let began = tokio::time::Instant::now();
        let stream = connect(&addrs, None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
        let Socket::Tcp(stream) = stream else { panic!("no TCP") };
        assert!(socket2::SockRef::from(&stream).tcp_nodelay().unwrap() && began.elapsed() < Duration::from_millis(200));
    }

    #[tokio::test]
    async fn a_dead_first_family_costs_one_head_start() {
        // RFC 6666: packets to the discard prefix go nowhere; without a route the attempt fails at once, which is fine as well.
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addrs = [addr("[100::1]:9"), good.local_addr().unwrap()];
        let began = tokio::time::Instant::now();
        let stream = connect(&addrs, Some(began.into_std() + Duration::from_secs(5))).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn all_refused_is_the_last_refusal() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = closed.local_addr().unwrap();
        drop(closed);
        assert_eq!(connect(&[at, at], None).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(&[], None).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
