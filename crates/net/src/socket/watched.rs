//! A socket as the runtime watches it, and whom it will wake.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// A socket of the runtime, and who waits for something to read.
#[derive(Debug)]
pub struct Watched<S> {
    pub(super) stream: S,
    pub(super) asked: Asked,
}

impl<S> From<S> for Watched<S> {
    fn from(stream: S) -> Self {
        Self { stream, asked: Asked::default() }
    }
}

impl<S: Ready> Watched<S> {
    /// Whether it is ready, as far as the runtime knows. Else the task is woken when it is.
    pub(super) fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !interest.is_readable() {
            return self.stream.poll_ready(interest, cx);
        }
        // A task that waits for several sockets comes by for each of them: whom the runtime will wake it need not be told again.
        if self.asked.is(cx.waker()) && self.stream.attempt(interest, || Ok(())).is_err() {
            return Poll::Pending;
        }
        let ready = self.stream.poll_ready(interest, cx);
        if ready.is_pending() {
            self.asked.remember(cx.waker());
        }
        ready
    }

    /// Does it where the socket is ready for it. What would block says that it is so no longer.
    pub(super) fn attempt<T>(&self, interest: Interest, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.stream.attempt(interest, || {
            if interest.is_readable() {
                self.asked.forget();
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

/// Whom the runtime will wake when there is something to read. It forgets him when it finds the socket ready, which it stays until an
/// attempt finds that it is not: from an attempt on nobody is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    data: AtomicUsize,
    vtable: AtomicUsize,
}

impl Asked {
    fn remember(&self, waker: &Waker) {
        self.data.store(waker.data().addr(), Relaxed);
        self.vtable.store(ptr::from_ref(waker.vtable()).addr(), Relaxed);
    }

    pub(super) fn forget(&self) {
        self.vtable.store(0, Relaxed);
    }

    /// What the runtime holds is not given to another one: the same place is the same task.
    fn is(&self, waker: &Waker) -> bool {
        self.data.load(Relaxed) == waker.data().addr()
            && self.vtable.load(Relaxed) == ptr::from_ref(waker.vtable()).addr()
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
