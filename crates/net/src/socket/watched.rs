//! A socket as the runtime watches it, and whom it will wake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::promised::Promised;

/// A socket of the runtime, and who waits for something to read.
#[derive(Debug)]
pub struct Watched<S> {
    pub(super) stream: S,
    /// Whom the runtime will wake when there is something to read. It forgets him when it finds the socket ready, which it stays
    /// until an attempt finds that it is not: from an attempt on nobody is asked for.
    pub(super) promised: Promised,
}

impl<S> From<S> for Watched<S> {
    fn from(stream: S) -> Self {
        Self { stream, promised: Promised::default() }
    }
}

impl<S: Ready> Watched<S> {
    /// Whether it is ready, as far as the runtime knows. Else the task is woken when it is.
    pub(super) fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.stream.poll_ready(interest, cx);
        if interest.is_readable() && ready.is_pending() {
            self.promised.remember(cx.waker());
        }
        ready
    }

    /// Whether the runtime will wake this task when there is something to read.
    pub(super) fn is_promised(&self, cx: &Context<'_>) -> bool {
        self.promised.is(cx.waker())
    }

    /// Whether there is nothing to read, as far as the runtime knows.
    pub(super) fn is_idle(&self) -> bool {
        self.stream.attempt(Interest::READABLE, || Ok(())).is_err()
    }

    /// Does it where the socket is ready for it. What would block says that it is so no longer.
    pub(super) fn attempt<T>(&self, interest: Interest, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.stream.attempt(interest, || {
            if interest.is_readable() {
                self.promised.forget();
            }
            act()
        })
    }
}

impl<S: AsFd> AsFd for Watched<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What the runtime knows of a socket.
pub trait Ready: AsFd {
    fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    fn attempt<T>(&self, interest: Interest, act: impl FnOnce() -> io::Result<T>) -> io::Result<T>;
}

macro_rules! told_by_runtime {
    ($($stream:ty)*) => {$(
        impl Ready for $stream {
            fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                if interest.is_readable() { self.poll_read_ready(cx) } else { self.poll_write_ready(cx) }
            }

            fn attempt<T>(&self, interest: Interest, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
                self.try_io(interest, act)
            }
        }
    )*};
}

told_by_runtime!(TcpStream UnixStream);
