//! One connection to an upstream: its socket, the bytes read ahead, and when it must end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use pylon_net::stream::Stream;
use pylon_observe::upstream::OpenUpstreamConnection;
use tokio::io::AsyncReadExt as _;

use crate::pool::Place;

/// A connection that carries one exchange, or idles in a pool.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: Stream,
    /// Bytes that were read and not yet used. Holds no memory while the connection idles.
    pub(crate) buf: BytesMut,
    pub(crate) life: Box<Life>,
}

/// What is looked at only when a connection changes hands. Apart, so that a call's future stays small.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) addr: SocketAddr,
    /// When it has lived long enough.
    pub(crate) expires: Instant,
    /// The generation of the addresses that it was made from.
    pub(crate) epoch: u32,
    /// Counts it as open for as long as it lives.
    pub(crate) _open: Open,
}

/// What counts a connection as open for as long as it lives: in the metrics, and among those that may be.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) _counted: Option<OpenUpstreamConnection>,
    /// None where it is no connection of the pool: a health check is not held back by a cap.
    pub(crate) _place: Option<Place>,
}

impl Conn {
    /// Reads into the buffer, which is given room for `room` bytes; memory is not zeroed.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.buf.reserve(room);
        pin!(self.stream.read_buf(&mut self.buf)).poll(cx)
    }
}
