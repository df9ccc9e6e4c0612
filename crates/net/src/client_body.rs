//! The body of a client's request, piece by piece, with a bound on the pause between two pieces.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use pylon_core::body::{Body, BodyError};
use pylon_core::connection::Connection;
use pylon_core::exchange::Timer;

use crate::timer;

/// A body that arrives from a client, piece by piece, none too long after the one before.
pub(crate) struct ClientBody {
    body: Incoming,
    idle: Duration,
    connection: Arc<Connection>,
    /// Runs while a piece is waited for.
    timer: Option<timer::Sleep>,
}

impl ClientBody {
    /// The body of a request, or none where it is over already.
    pub(crate) fn wrap(body: Incoming, idle: Duration, connection: &Arc<Connection>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return Body::Empty;
        }
        Body::stream(Self { body, idle, connection: Arc::clone(connection), timer: None })
    }
}

impl ClientBody {
    /// What the codec stumbled over is for our own words where we put it there.
    fn failed(&self, error: &hyper::Error) -> BodyError {
        match self.connection.malformed.get() {
            Some(malformed) => BodyError::Malformed(malformed.what),
            None => BodyError::Client(error.to_string()),
        }
    }
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| self.failed(&error))));
        }
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| timer::sleep_until(tokio::time::Instant::now().into_std() + idle));
        ready!(Pin::new(timer).poll(cx));
        Poll::Ready(Some(Err(BodyError::Timeout(Timer::ClientBody))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
