//! A connected socket of either family: TCP or Unix.
//!
//! What it reads and writes goes to the system by calls that `rustix` makes itself. Those of the C library can be cancelled by other
//! threads (pthreads(7)), and see to that twice for each call in a program of several threads.

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use self::watched::{Ready, Watched};

mod watched;

/// TIOCOUTQ (tcp(7), where it is `SIOCOUTQ`).
const OUTQ: rustix::ioctl::Opcode = 0x5411;

/// A connection as the system gives it.
#[derive(Debug)]
pub enum Socket {
    /// Over IP.
    Tcp(Watched<TcpStream>),
    /// On this machine, by a path.
    Unix(Watched<UnixStream>),
}

impl Socket {
    /// The address of this side; none of a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The address of the other side; a Unix socket has none.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.stream.peer_addr(),
            Self::Unix(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// How many bytes were sent that the other side has not taken yet, where the system tells.
    pub(crate) fn unsent(&self) -> Option<u64> {
        let socket = match self {
            Self::Tcp(stream) => stream.stream.as_fd(),
            Self::Unix(stream) => stream.stream.as_fd(),
        };
        // SAFETY: TIOCOUTQ writes one C int, which is what the getter gives it room for.
        #[expect(unsafe_code, reason = "the system tells this by ioctl alone")]
        let unsent = unsafe { rustix::ioctl::ioctl(socket, rustix::ioctl::Getter::<OUTQ, c_int>::new()) };
        unsent.ok().and_then(|unsent| u64::try_from(unsent).ok())
    }

    /// From here on the end of the connection is a reset, which nobody takes for the end of what was sent.
    pub(crate) fn reset_at_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(&stream.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Looks at what has come without taking it; waits until something has. None at the end of the stream.
    pub(crate) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => {
                stream.promised.forget();
                stream.stream.peek(buf).await
            }
            Self::Unix(Watched { stream, promised }) => {
                promised.forget();
                stream.async_io(Interest::READABLE, || Ok(recv(stream, &mut *buf, RecvFlags::PEEK)?.0)).await
            }
        }
    }

    /// Takes what has come, and does not wait.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => try_read(stream, buf),
            Self::Unix(stream) => try_read(stream, buf),
        }
    }

    /// Sends what fits, and does not wait.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => try_write(stream, bytes),
            Self::Unix(stream) => try_write(stream, bytes),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_read(stream, cx, buf),
            Self::Unix(stream) => poll_read(stream, cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => poll_write(stream, cx, bytes),
            Self::Unix(stream) => poll_write(stream, cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // What TLS writes is mostly one piece, and one piece costs the system less.
        if let [bytes] = bufs {
            return self.poll_write(cx, bytes);
        }
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(&mut stream.stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(&mut stream.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What was written is with the system already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(&mut stream.stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(&mut stream.stream).poll_shutdown(cx),
        }
    }
}

/// Does it as soon as the socket is ready; where it is taken for `ready`, the runtime is asked behind the first attempt only. `act`
/// says how many bytes were moved and whether there was room for more: then the next attempt would block, and need not be made to
/// know it.
fn poll_moved(
    socket: &Watched<impl Ready>,
    interest: Interest,
    mut ready: bool,
    cx: &mut Context<'_>,
    mut act: impl FnMut() -> rustix::io::Result<(usize, bool)>,
) -> Poll<io::Result<usize>> {
    loop {
        if !std::mem::take(&mut ready) {
            ready!(socket.poll_ready(interest, cx))?;
        }
        let mut done = None;
        let _ = socket.attempt(interest, || {
            let (moved, blocked) = match act() {
                Ok((moved, room)) => (Some(Ok(moved)), room && moved > 0),
                Err(Errno::WOULDBLOCK) => (None, true),
                Err(error) => (Some(Err(error)), false),
            };
            done = moved;
            if blocked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if let Some(moved) = done {
            return Poll::Ready(moved.map_err(io::Error::from));
        }
    }
}

/// A task that waits for several sockets comes by for each of them: the runtime, which will wake it, need not be told again.
fn poll_read(socket: &Watched<impl Ready>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let promised = socket.is_promised(cx);
    if promised && socket.is_idle() { Poll::Pending } else { read(socket, promised, cx, buf) }
}

/// Out of the way of those who only come by.
#[inline(never)]
fn read(
    socket: &Watched<impl Ready>,
    ready: bool,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    // SAFETY: nothing is written here but by `recv`, which takes back no byte that was initialised.
    #[expect(unsafe_code, reason = "the room of a buffer would be written twice")]
    let room = unsafe { buf.unfilled_mut() };
    let size = room.len();
    let read = ready!(poll_moved(socket, Interest::READABLE, ready, cx, || {
        let (_, read) = recv(socket, &mut *room, RecvFlags::empty())?;
        Ok((read, read < size))
    }))?;
    // SAFETY: `recv` has filled so many bytes.
    #[expect(unsafe_code, reason = "the room of a buffer would be written twice")]
    unsafe {
        buf.assume_init(read);
    }
    buf.advance(read);
    Poll::Ready(Ok(()))
}

fn poll_write(socket: &Watched<impl Ready>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    // It takes nearly all that is written at once.
    poll_moved(socket, Interest::WRITABLE, true, cx, || {
        let written = send(socket, bytes, SendFlags::NOSIGNAL)?;
        Ok((written, written < bytes.len()))
    })
}

fn try_write(socket: &Watched<impl Ready>, bytes: &[u8]) -> io::Result<usize> {
    socket.attempt(Interest::WRITABLE, || Ok(send(socket, bytes, SendFlags::NOSIGNAL)?))
}

fn try_read(socket: &Watched<impl Ready>, buf: &mut [u8]) -> io::Result<usize> {
    socket.attempt(Interest::READABLE, || Ok(recv(socket, buf, RecvFlags::empty())?.1))
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream.into())
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pairs() -> [(Socket, Socket); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (one, other) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let unix = UnixStream::pair().unwrap();
        [(one.unwrap().into(), other.unwrap().0.into()), (unix.0.into(), unix.1.into())]
    }

    #[tokio::test]
    async fn what_comes_behind_a_read_that_left_room_is_seen_and_so_is_the_end() {
        for (mut one, mut other) in pairs().await {
            let mut buf = [0; 64];
            for round in 0..100_u8 {
                let writes = async {
                    // Now and then after the reader has found nothing.
                    if round.is_multiple_of(3) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    one.write_all(&[round; 10]).await
                };
                let (wrote, read) = tokio::join!(writes, other.read(&mut buf));
                wrote.unwrap();
                assert_eq!(&buf[..read.unwrap()], [round; 10]);
                assert!(other.try_read(&mut buf).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
            }
            drop(one);
            assert_eq!(other.read(&mut buf).await.unwrap(), 0);
        }
    }

    /// Whoever looks in between takes the news of the runtime, which then knows of nobody who waits.
    #[tokio::test]
    async fn who_was_told_to_wait_is_woken_however_others_have_looked_in_between() {
        for (mut one, mut other) in pairs().await {
            let mut buf = [0; 64];
            for round in 0..30 {
                assert!(futures_util::poll!(std::pin::pin!(other.read(&mut buf))).is_pending());
                one.write_all(b"a").await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
                if round % 2 == 0 {
                    assert_eq!(other.peek(&mut buf).await.unwrap(), 1);
                }
                assert_eq!(other.try_read(&mut buf).unwrap(), 1);
                assert!(other.try_read(&mut buf).is_err());
                let began = tokio::time::Instant::now();
                let writes = async {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    one.write_all(b"bc").await
                };
                let both = async { tokio::join!(writes, other.read(&mut buf)) };
                let (wrote, read) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
                wrote.unwrap();
                assert_eq!((read.unwrap(), began.elapsed() < Duration::from_secs(2)), (2, true));
            }
        }
    }

    #[tokio::test]
    async fn more_than_the_system_takes_at_once_is_written_as_it_is_read() {
        for (mut one, mut other) in pairs().await {
            let sent = vec![7; 8 << 20];
            let mut came = Vec::new();
            let writes = async {
                one.write_all(&sent).await.unwrap();
                one.shutdown().await.unwrap();
            };
            tokio::join!(writes, async { other.read_to_end(&mut came).await.unwrap() });
            assert!(came == sent, "{} bytes came", came.len());
        }
    }
}
