//! What comes on a stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::connection::Connection;
use crate::error::Error;
use crate::shared::{Handle, Shared};
use crate::stream::{Key, register};

/// The body of a message while it arrives.
#[derive(Debug)]
pub struct RecvStream(Handle);

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// Some of the data.
    Data(Bytes),
    /// What stands behind it.
    Trailers(HeaderMap),
}

impl RecvStream {
    pub(crate) fn new(shared: &Arc<Shared>, connection: &mut Connection, key: Key, id: u32) -> Self {
        Self(Handle::new(shared, connection, key, id))
    }

    /// The next part, whose room may be used again at once; none behind the last one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let mut connection = self.0.shared.lock();
        let piece = self.next(&mut connection, cx);
        if let Poll::Ready(Some(Ok(Piece::Data(data)))) = &piece {
            self.release_locked(&mut connection, data.len());
        }
        piece
    }

    /// The next piece of data, whose room is used until [`RecvStream::release`]; none behind the last one.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut connection = self.0.shared.lock();
        self.next(&mut connection, cx).map(|piece| match piece? {
            Ok(Piece::Data(data)) => {
                if let Some(stream) = connection.streams.get(self.0.key, self.0.id) {
                    stream.lent = stream.lent.saturating_add(data.len());
                }
                Some(Ok(data))
            }
            Ok(Piece::Trailers(_)) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// So much was taken of what came: as much may follow.
    pub fn release(&mut self, bytes: usize) {
        let mut connection = self.0.shared.lock();
        let Some(stream) = connection.streams.get(self.0.key, self.0.id) else { return };
        let bytes = bytes.min(stream.lent);
        stream.lent = stream.lent.saturating_sub(bytes);
        self.release_locked(&mut connection, bytes);
    }

    fn release_locked(&self, connection: &mut Connection, bytes: usize) {
        let before = connection.out.len();
        connection.taken_of(self.0.key, self.0.id, bytes);
        if connection.out.len() > before {
            connection.wake_driver();
        }
    }

    fn next(&self, connection: &mut Connection, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Error>>> {
        let Some(stream) = connection.streams.get(self.0.key, self.0.id) else {
            return Poll::Ready(Some(Err(Error::Over)));
        };
        if let Some(data) = stream.received.take() {
            return Poll::Ready(Some(Ok(Piece::Data(data))));
        }
        if let Some(trailers) = stream.received.trailers.take() {
            return Poll::Ready(Some(Ok(Piece::Trailers(trailers))));
        }
        if stream.receive_over {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }

    /// Whether nothing more can come.
    pub fn is_end_stream(&self) -> bool {
        let mut connection = self.0.shared.lock();
        connection.streams.get(self.0.key, self.0.id).is_none_or(|stream| stream.is_read())
    }
}

impl Drop for RecvStream {
    /// Nobody reads any more: what is there makes room for the other streams, and what comes still is dropped.
    fn drop(&mut self) {
        let mut connection = self.0.shared.lock();
        let Some(stream) = connection.streams.get(self.0.key, self.0.id) else { return };
        stream.unread = true;
        stream.reader = None;
        let unread = stream.received.clear().saturating_add(std::mem::take(&mut stream.lent));
        if unread > 0 {
            connection.take_back(unread);
            connection.wake_driver();
        }
    }
}
