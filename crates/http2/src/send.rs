//! What is sent on a stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::connection::Connection;
use crate::error::{Error, Reason};
use crate::frame::{self, HEADER, Head};
use crate::hpack::Encoder;
use crate::shared::{Handle, Shared};
use crate::stream::{Key, register};

/// So much may wait to be written before no stream of the connection may add to it.
const WAITING: usize = 64 << 10;

/// What the peer is sent on a stream. Dropped before it has ended, and without anybody else who holds the stream, it resets it.
#[derive(Debug)]
pub struct SendStream(Handle);

/// Where the fields of a head are written.
#[derive(Debug)]
pub struct Fields<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut BytesMut,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(encoder: &'a mut Encoder, out: &'a mut BytesMut) -> Self {
        Self { encoder, out }
    }

    /// A block of its own, on no connection.
    pub fn alone(write: impl FnOnce(&mut Fields<'_>)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut Fields { encoder: &mut Encoder::default(), out: &mut out });
        out
    }

    /// Writes the pseudo-fields of a request. The path comes in two parts.
    pub fn request(&mut self, method: &Method, tls: bool, authority: &[u8], path: [&[u8]; 2]) {
        self.encoder.method(method, self.out);
        self.encoder.scheme(tls, self.out);
        self.encoder.authority(authority, self.out);
        self.encoder.path(path, self.out);
    }

    /// Writes what a CONNECT wants to make of its stream (RFC 8441).
    pub fn protocol(&mut self, protocol: &str) {
        self.encoder.protocol(protocol.as_bytes(), self.out);
    }

    /// Writes one field.
    pub fn field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.encoder.field(name, value, self.out);
    }

    /// Writes one whose value stands somewhere else.
    pub fn bytes(&mut self, name: &HeaderName, value: &[u8]) {
        self.encoder.bytes(name, value, self.out);
    }

    /// Writes one whose value never comes again.
    pub fn once(&mut self, name: &HeaderName, value: &[u8]) {
        self.encoder.once(name, value, self.out);
    }
}

impl SendStream {
    pub(crate) fn new(shared: &Arc<Shared>, connection: &mut Connection, key: Key, id: u32) -> Self {
        Self(Handle::new(shared, connection, key, id))
    }

    /// Sends the head of an answer. `fields` writes what stands behind its status, and may ask no stream of this connection
    /// for anything, since that waits for the lock that is held meanwhile.
    pub fn answer(
        &mut self,
        status: StatusCode,
        ends: bool,
        fields: impl FnOnce(&mut Fields<'_>),
    ) -> Result<(), Error> {
        let mut connection = self.0.shared.lock();
        let stream = connection.sendable(self.0.key, self.0.id)?;
        stream.send_over = ends;
        stream.answered = !status.is_informational();
        connection.put_block(self.0.id, ends, |encoder, out| {
            encoder.status(status, out);
            fields(&mut Fields::new(encoder, out));
        });
        if ends {
            connection.close_if_over(self.0.key, self.0.id);
        }
        connection.wake_driver();
        Ok(())
    }

    /// Waits until at least one byte can be sent.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut connection = self.0.shared.lock();
        let full = connection.send_window <= 0 || connection.out.len() >= WAITING;
        let stream = connection.sendable(self.0.key, self.0.id)?;
        if !full && stream.send_window > 0 {
            return Poll::Ready(Ok(()));
        }
        register(&mut stream.writer, cx);
        if full && !stream.queued {
            stream.queued = true;
            connection.waiting.push_back(self.0.key);
        }
        Poll::Pending
    }

    /// Sends of `data` what there is room for, and takes that away from it. The stream ends with its last byte where it is
    /// to. Answers how much that was.
    pub fn send(&mut self, data: &mut Bytes, ends: bool) -> Result<usize, Error> {
        let mut connection = self.0.shared.lock();
        let connection = &mut *connection;
        let mut sent: usize = 0;
        loop {
            let (window, waiting) = (connection.send_window, connection.out.len());
            let stream = connection.sendable(self.0.key, self.0.id)?;
            let room = window.min(stream.send_window).clamp(0, frame::width(frame::MAX_PAYLOAD)) as usize;
            let length = data.len().min(room);
            if !data.is_empty() && (length == 0 || waiting >= WAITING) {
                break;
            }
            let last = ends && length == data.len();
            stream.send_window = stream.send_window.saturating_sub(frame::width(length));
            stream.send_over = last;
            connection.send_window = window.saturating_sub(frame::width(length));
            sent = sent.saturating_add(length);
            let flags = if last { frame::END_STREAM } else { 0 };
            let head = Head { length, kind: frame::DATA, flags, stream: self.0.id };
            connection.out.tail.extend_from_slice(&head.bytes());
            connection.out.push(data.split_to(length));
            if data.is_empty() {
                break;
            }
        }
        connection.close_if_over(self.0.key, self.0.id);
        connection.wake_driver();
        Ok(sent)
    }

    /// Ends the stream.
    pub fn end(&mut self) -> Result<(), Error> {
        self.send(&mut Bytes::new(), true).map(drop)
    }

    /// Sends trailers, which end the stream.
    pub fn trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        let mut connection = self.0.shared.lock();
        connection.sendable(self.0.key, self.0.id)?.send_over = true;
        connection.put_block(self.0.id, true, |encoder, out| {
            trailers.iter().for_each(|(name, value)| encoder.field(name, value, out));
        });
        connection.close_if_over(self.0.key, self.0.id);
        connection.wake_driver();
        Ok(())
    }

    /// Resets the stream, unless it is over.
    pub fn reset(&mut self, reason: Reason) {
        let mut connection = self.0.shared.lock();
        let open = connection.streams.get(self.0.key, self.0.id).is_some_and(|stream| !stream.is_closed());
        if open {
            connection.end_stream(self.0.id, reason);
            connection.wake_driver();
        }
    }

    /// Waits until the stream ends before its time.
    pub fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut connection = self.0.shared.lock();
        let Some(stream) = connection.streams.get(self.0.key, self.0.id) else { return Poll::Ready(Error::Over) };
        if let Some(error) = &stream.failed {
            return Poll::Ready(error.clone());
        }
        register(&mut stream.writer, cx);
        Poll::Pending
    }
}

impl Connection {
    /// A stream on which something may be sent.
    fn sendable(&mut self, key: Key, id: u32) -> Result<&mut crate::stream::Stream, Error> {
        let stream = self.streams.get(key, id).ok_or(Error::Over)?;
        match &stream.failed {
            Some(error) => Err(error.clone()),
            None if stream.send_over => Err(Error::Over),
            None => Ok(stream),
        }
    }

    /// Writes a block of fields, in as many frames as it takes.
    pub(crate) fn put_block(&mut self, id: u32, ends: bool, write: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let out = &mut self.out.tail;
        let from = out.len();
        out.extend_from_slice(&[0; HEADER]);
        self.encoder.begin(out);
        write(&mut self.encoder, out);
        let length = out.len().saturating_sub(from).saturating_sub(HEADER);
        let flags = if ends { frame::END_STREAM } else { 0 };
        if length > frame::MAX_PAYLOAD {
            let block = out.split_off(from.saturating_add(HEADER));
            out.truncate(from);
            let count = block.len().div_ceil(frame::MAX_PAYLOAD);
            for (at, piece) in block.chunks(frame::MAX_PAYLOAD).enumerate() {
                let kind = if at == 0 { frame::HEADERS } else { frame::CONTINUATION };
                let last = if at.saturating_add(1) == count { frame::END_HEADERS } else { 0 };
                frame::put(out, kind, last | if at == 0 { flags } else { 0 }, id, piece);
            }
        } else if let Some(head) = out.get_mut(from..from.saturating_add(HEADER)) {
            let flags = flags | frame::END_HEADERS;
            head.copy_from_slice(&Head { length, kind: frame::HEADERS, flags, stream: id }.bytes());
        }
    }
}
