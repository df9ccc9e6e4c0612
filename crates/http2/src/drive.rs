//! Reads and writes the socket of a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use pylon_core::spare;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::connection::Connection;
use crate::error::{By, Error, Fatal};
use crate::out::{Out, PIECES};
use crate::shared::Shared;

/// Room for what is read at once: at first, and where more keeps coming.
const FEW: usize = 8 << 10;
const MANY: usize = 64 << 10;
/// More than bodies can come to that wait to be written, on this side of a swap and on the other (`send.rs`): so much is there
/// only where heads pile up, which no window holds back.
const CROWDED: usize = 256 << 10;

/// A socket with what was read of it and is not to be written yet.
#[derive(Debug)]
pub(crate) struct Drive<S> {
    socket: S,
    input: BytesMut,
    room: usize,
    output: Out,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Drive<S> {
    /// `ahead` was read before.
    pub(crate) fn new(socket: S, ahead: BytesMut) -> Self {
        Self { socket, input: ahead, room: FEW, output: Out::default(), closing: false }
    }

    /// How much the socket has not taken of what is to be written.
    pub(crate) fn waiting(&self, connection: &Connection) -> usize {
        self.output.len().saturating_add(connection.out.len())
    }

    /// Whether the peer has to take some of that before more of what it asks for is looked at.
    pub(crate) fn is_crowded(&self, connection: &Connection) -> bool {
        self.waiting(connection) >= CROWDED
    }

    /// Takes in what was read ahead.
    pub(crate) fn begin(&mut self, shared: &Shared) {
        if !self.input.is_empty() {
            self.receive(shared);
        }
    }

    /// Reads once. Ready where something has changed by that.
    pub(crate) fn poll_read(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing {
            return Poll::Pending;
        }
        if self.input.capacity() == 0 {
            self.input = spare::take_read();
        }
        self.input.reserve(self.room);
        let read = match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
            Poll::Pending => {
                // An idle connection holds no buffer.
                if self.input.is_empty() {
                    spare::give_read(std::mem::take(&mut self.input));
                    self.room = FEW;
                }
                return Poll::Pending;
            }
            Poll::Ready(read) => read,
        };
        match read {
            Ok(0) => {
                self.closing = true;
                shared.lock().fail(Error::io(io::ErrorKind::UnexpectedEof));
            }
            Ok(bytes) => {
                if bytes >= self.room {
                    self.room = MANY;
                }
                self.receive(shared);
            }
            Err(error) => {
                self.closing = true;
                shared.lock().fail(Error::Io(error.into()));
            }
        }
        Poll::Ready(())
    }

    fn receive(&mut self, shared: &Shared) {
        let mut connection = shared.lock();
        if let Err(Fatal { reason, why }) = connection.receive(&mut self.input) {
            self.closing = true;
            connection.fail(Error::Ended { reason, by: By::Us, why });
        }
    }

    /// Writes all that there is. Ready when nothing is left.
    pub(crate) fn poll_write(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.output.is_empty() {
                let wrote = ready!(self.poll_write_once(cx))?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.output.advance(wrote);
            }
            let mut connection = shared.lock();
            if connection.out.is_empty() {
                if connection.streams.open() == 0 {
                    connection.out.trim();
                    self.output.trim();
                }
                drop(connection);
                return Pin::new(&mut self.socket).poll_flush(cx);
            }
            std::mem::swap(&mut connection.out, &mut self.output);
            connection.replies = 0;
            connection.wake_waiting();
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(single) = self.output.single() {
            return Pin::new(&mut self.socket).poll_write(cx, single);
        }
        let mut slices = [IoSlice::new(&[]); PIECES];
        let count = self.output.slices(&mut slices);
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    /// Writes; and where nothing else is left to do, closes. Ready when it is closed, or broken.
    pub(crate) fn poll_end(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Poll<()> {
        if let Err(error) = ready!(self.poll_write(shared, cx)) {
            self.closing = true;
            shared.lock().fail(Error::Io(error.into()));
            return Poll::Ready(());
        }
        if !shared.lock().is_finished() {
            return Poll::Pending;
        }
        self.closing = true;
        let _ = ready!(Pin::new(&mut self.socket).poll_shutdown(cx));
        Poll::Ready(())
    }
}
