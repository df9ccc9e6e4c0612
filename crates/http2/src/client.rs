//! The client's side of a connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Connection;
use crate::drive::Drive;
use crate::error::Error;
use crate::receive::RecvStream;
use crate::send::{Fields, SendStream};
use crate::shared::{Limits, Role, Shared};
use crate::stream::register;

/// The greatest number that a stream may have.
const LAST: u32 = 0x7fff_ffff;

/// Begins a connection on `socket`: what opens streams, and what reads and writes for all of them.
pub fn begin<S: AsyncRead + AsyncWrite + Unpin>(socket: S, limits: Limits) -> (Requests, Driver<S>) {
    let shared = Shared::new(Role::Client, limits);
    shared.lock().handles = 1;
    let driver = Driver { shared: Arc::clone(&shared), drive: Drive::new(socket, BytesMut::new()) };
    (Requests { shared }, driver)
}

/// Opens streams. The connection ends when this is dropped and its last stream is over.
#[derive(Debug)]
pub struct Requests {
    shared: Arc<Shared>,
}

/// Reads and writes; ends with the connection.
#[derive(Debug)]
pub struct Driver<S> {
    shared: Arc<Shared>,
    drive: Drive<S>,
}

/// An answer that is waited for.
#[derive(Debug)]
pub struct Answer {
    /// None once the answer is here.
    handle: Option<RecvStream>,
    shared: Arc<Shared>,
    key: u32,
    id: u32,
}

impl Requests {
    /// An error where no more streams can be opened.
    pub fn check(&self) -> Result<(), Error> {
        self.shared.lock().check()
    }

    /// Whether the peer's settings are here.
    pub fn is_settled(&self) -> bool {
        self.shared.lock().settled
    }

    /// How many streams the peer allows; none until its settings are here.
    pub fn allowed(&self) -> usize {
        self.shared.lock().allowed_streams()
    }

    /// Whether the peer allows streams that become WebSockets (RFC 8441 §3).
    pub fn takes_websockets(&self) -> bool {
        self.shared.lock().peer_connects
    }

    /// Sends the head of a request, whose fields `write` writes. An error means that nothing was sent.
    /// `write` may ask no stream of this connection for anything, since that waits for the lock that is held meanwhile.
    pub fn send(
        &self,
        method: &Method,
        ends: bool,
        write: impl FnOnce(&mut Fields<'_>),
    ) -> Result<(Answer, SendStream), Error> {
        let mut guard = self.shared.lock();
        let connection = &mut *guard;
        connection.check()?;
        let id = connection.newest;
        connection.newest = id.saturating_add(2);
        let key = connection.streams.begin(id, connection.limits.stream_window.into(), connection.peer_window);
        if let Some(stream) = connection.streams.get(key, id) {
            stream.send_over = ends;
            stream.bodiless = *method == Method::HEAD;
        }
        connection.put_block(id, ends, |encoder, out| write(&mut Fields::new(encoder, out)));
        connection.wake_driver();
        let sending = SendStream::new(&self.shared, connection, key, id);
        let handle = RecvStream::new(&self.shared, connection, key, id);
        let answer = Answer { handle: Some(handle), shared: Arc::clone(&self.shared), key, id };
        Ok((answer, sending))
    }
}

impl Connection {
    /// An error where no more streams can be opened.
    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if self.peer_left || self.newest > LAST => Err(Error::Refused),
            None => Ok(()),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let mut connection = self.shared.lock();
        connection.handles = 0;
        connection.wake_driver();
    }
}

impl Answer {
    /// An interim answer (RFC 9110 §15.2), where there is one.
    pub fn interim(&mut self) -> Option<(StatusCode, HeaderMap)> {
        self.shared.lock().streams.get(self.key, self.id)?.received.interim.as_mut()?.pop_front()
    }

    /// The head of the answer.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<RecvStream>, Error>> {
        let mut connection = self.shared.lock();
        let Some(stream) = connection.streams.get(self.key, self.id) else { return Poll::Ready(Err(Error::Over)) };
        if let Some((status, headers)) = stream.received.answer.take() {
            drop(connection);
            let Some(handle) = self.handle.take() else { return Poll::Ready(Err(Error::Over)) };
            let mut response = Response::new(handle);
            *response.status_mut() = status;
            *response.version_mut() = Version::HTTP_2;
            *response.headers_mut() = headers;
            return Poll::Ready(Ok(response));
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Err(error.clone()));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }
}

#[cfg(test)]
impl<S> Driver<S> {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Option<Error>;

    /// Ready when the connection is over, with what ended it before its time.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        let Self { shared, drive } = &mut *self;
        {
            let mut connection = shared.lock();
            connection.woken = false;
            register(&mut connection.driver, cx);
        }
        while drive.poll_read(shared, cx).is_ready() {}
        drive.poll_end(shared, cx).map(|()| shared.lock().failed.clone())
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        self.shared.lock().fail(Error::io(std::io::ErrorKind::ConnectionAborted));
    }
}
