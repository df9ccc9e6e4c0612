//! The server's side of a connection.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::drive::Drive;
use crate::error::{By, Error};
use crate::receive::RecvStream;
use crate::send::SendStream;
use crate::shared::{Limits, Role, Shared};

/// A request, and where its answer goes.
pub type Accepted = (Request<RecvStream>, SendStream);

/// A connection of a client.
#[derive(Debug)]
pub struct Server<S> {
    shared: Arc<Shared>,
    drive: Drive<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    /// Serves `socket`, of which `ahead` was read before.
    pub fn new(socket: S, ahead: BytesMut, limits: Limits) -> Self {
        let shared = Shared::new(Role::Server, limits);
        let mut drive = Drive::new(socket, ahead);
        drive.begin(&shared);
        Self { shared, drive }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How much waits to be written.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.drive.waiting(&self.shared.lock())
    }

    /// The next request. Reads and writes meanwhile; none when the connection is over.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, Error>>> {
        loop {
            let mut connection = self.shared.lock();
            connection.woken = false;
            crate::stream::register(&mut connection.driver, cx);
            let crowded = self.drive.is_crowded(&connection);
            if let Some((key, request)) = connection.accepted.pop_front_if(|_| !crowded) {
                let id = *request.body();
                connection.accepts();
                let sending = SendStream::new(&self.shared, &mut connection, key, id);
                let receiving = RecvStream::new(&self.shared, &mut connection, key, id);
                return Poll::Ready(Some(Ok((request.map(|_| receiving), sending))));
            }
            drop(connection);
            if !crowded && self.drive.poll_read(&self.shared, cx).is_ready() {
                continue;
            }
            let ended = self.drive.poll_end(&self.shared, cx).map(|()| self.end());
            if ended.is_pending() && crowded && !self.drive.is_crowded(&self.shared.lock()) {
                continue;
            }
            return ended;
        }
    }

    /// How it ended.
    fn end<T>(&self) -> Option<Result<T, Error>> {
        match &self.shared.lock().failed {
            Some(error @ Error::Ended { by: By::Us, .. }) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Tells the client that no further request is looked at (RFC 9113 §6.8). Those under way are answered, and then it ends.
    pub fn end_gracefully(&mut self) {
        let mut connection = self.shared.lock();
        connection.say_farewell();
        connection.wake_driver();
    }

    /// The number of the head that is on its way, if there is one; the preface is one, up to the first SETTINGS.
    pub fn head_under_way(&self) -> Option<u64> {
        self.shared.lock().head_under_way()
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.shared.lock().fail(Error::io(std::io::ErrorKind::ConnectionAborted));
    }
}
