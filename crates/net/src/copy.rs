//! Carries bytes both ways between two connections, with back-pressure, half-close and a bound on idleness.
//!
//! Bytes are read into memory that all connections of a worker share; only what the other side does not take at once is
//! kept, and until it is taken no more is read. So a connection that idles holds no buffer, and one with a slow reader at
//! most one for each direction.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use crate::stream::Stream;
use crate::timer;

/// How much is read at once, and so how much may wait in each direction.
const BUFFER: usize = 64 << 10;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How many bytes have gone where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the client to the service.
    pub up: u64,
    /// From the service to the client.
    pub down: u64,
}

/// How it ended.
#[derive(Debug)]
pub enum Over {
    /// Both sides had said all.
    Complete,
    /// Nothing moved for too long.
    Idle,
    /// The client's connection broke.
    Client(io::Error),
    /// The service's connection broke.
    Service(io::Error),
}

/// One direction.
#[derive(Debug)]
struct Way {
    /// Read and not yet taken.
    waiting: BytesMut,
    /// The source has said all.
    ended: bool,
    /// And so it was told on.
    closed: bool,
    /// Written bytes may wait in TLS.
    unflushed: bool,
}

/// Which side broke.
enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// Carries bytes until both sides have closed, one breaks, or nothing moves for `idle`. `first` goes to the service before
/// anything else. Where one side breaks the other is reset, so that what it got is not taken for the whole.
pub async fn copy(
    client: &mut Stream,
    service: &mut Stream,
    first: BytesMut,
    idle: Duration,
    carried: &mut Carried,
) -> Over {
    let (mut up, mut down) = (Way::new(first), Way::new(BytesMut::new()));
    let mut moved = now();
    let mut timer = timer::sleep_until(moved + idle);
    let over = poll_fn(|cx| {
        let before = *carried;
        let there = up.poll(cx, client, service, &mut carried.up);
        let back = down.poll(cx, service, client, &mut carried.down);
        match (there, back) {
            (Poll::Ready(Err(Broken::Source(error))), _) | (_, Poll::Ready(Err(Broken::Sink(error)))) => {
                return Poll::Ready(Over::Client(error));
            }
            (Poll::Ready(Err(Broken::Sink(error))), _) | (_, Poll::Ready(Err(Broken::Source(error)))) => {
                return Poll::Ready(Over::Service(error));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Over::Complete),
            _ => {}
        }
        if *carried != before {
            moved = now();
        }
        while std::future::Future::poll(Pin::new(&mut timer), cx).is_ready() {
            if moved + idle <= now() {
                return Poll::Ready(Over::Idle);
            }
            timer.reset(moved + idle);
        }
        Poll::Pending
    })
    .await;
    match &over {
        Over::Client(_) => service.reset_at_close(),
        Over::Service(_) => client.reset_at_close(),
        Over::Complete | Over::Idle => {}
    }
    over
}

impl Way {
    fn new(waiting: BytesMut) -> Self {
        Self { waiting, ended: false, closed: false, unflushed: false }
    }

    /// Moves what can be moved. Ready when the source has said all and the sink knows.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        carried: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.waiting.is_empty() {
                let n = match Pin::new(&mut *sink).poll_write(cx, &self.waiting) {
                    Poll::Pending => return self.flush(cx, sink),
                    Poll::Ready(written) => some(written).map_err(Broken::Sink)?,
                };
                self.waiting.advance(n);
                *carried = carried.wrapping_add(n as u64);
                self.unflushed = true;
            }
            // No connection that idles holds memory.
            self.waiting = BytesMut::new();
            if self.ended {
                if !self.closed {
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(Broken::Sink)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            match self.read(cx, source, sink, carried) {
                Poll::Pending => return self.flush(cx, sink),
                Poll::Ready(read) => read?,
            }
        }
    }

    /// Reads once, and hands on what the sink takes at once.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
        carried: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        SHARED.with_borrow_mut(|shared| {
            shared.resize(BUFFER, 0);
            let mut into = ReadBuf::new(shared);
            ready!(Pin::new(source).poll_read(cx, &mut into)).map_err(Broken::Source)?;
            let mut bytes = into.filled();
            self.ended = bytes.is_empty();
            while !bytes.is_empty() {
                match Pin::new(&mut *sink).poll_write(cx, bytes) {
                    Poll::Pending => {
                        self.waiting.extend_from_slice(bytes);
                        break;
                    }
                    Poll::Ready(written) => {
                        let n = some(written).map_err(Broken::Sink)?;
                        bytes = bytes.get(n..).unwrap_or_default();
                        *carried = carried.wrapping_add(n as u64);
                        self.unflushed = true;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Nothing can be moved now: what was written goes out at least.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &mut Stream) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx)).map_err(Broken::Sink)?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

/// A write that takes nothing would be tried for ever.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    written.and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
