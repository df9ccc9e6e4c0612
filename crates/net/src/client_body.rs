//! The body of a client's request, piece by piece, with a bound on the pause between two pieces.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use hyper::body::Incoming;
use pylon_core::body::{Body, BodyError};
use pylon_core::exchange::Timer;

use crate::timer;

/// A body that arrives from a client, piece by piece, none too long after the one before.
pub(crate) struct ClientBody {
    body: Incoming,
    idle: Duration,
    /// Whether hyper's trailers can be trusted to end where the body does.
    strict: bool,
    /// Runs while a piece is waited for.
    timer: Option<timer::Sleep>,
}

impl ClientBody {
    /// The body of a request, or none where it is over already.
    pub(crate) fn wrap(body: Incoming, idle: Duration, version: Version) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return Body::Empty;
        }
        Body::stream(Self { body, idle, strict: version == Version::HTTP_2, timer: None })
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
            if !self.strict
                && let Some(Ok(frame)) = &frame
                && frame.trailers_ref().is_some_and(http::HeaderMap::is_empty)
            {
                // hyper stops at a lone LF behind the last chunk but has read on to the next empty line: what it swallowed
                // may have been the next request.
                return Poll::Ready(Some(Err(BodyError::Client("the last chunk ends by a lone LF".to_owned()))));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Client(error.to_string()))));
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
