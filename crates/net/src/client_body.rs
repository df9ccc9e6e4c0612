//! The body of a client's request, piece by piece, none of which may be waited for too long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Request};
use http_body::Frame;
use pylon_core::body::{Body, BodyError};
use pylon_core::connection::Connection;
use pylon_core::exchange::Timer;
use pylon_http2::{Piece, RecvStream};

use crate::http1::upload::Upload;
use crate::pace::{Allowance, Pace};
use crate::timer;

/// What a client's body is read from.
pub(crate) enum Source {
    Nothing,
    Http1 {
        upload: Upload,
        /// The client waits to be told that it is wanted.
        expects: bool,
    },
    Http2(RecvStream),
}

/// A body that arrives from a client, piece by piece, none too long after the one before.
pub(crate) struct ClientBody {
    source: Source,
    allowance: Allowance,
    connection: Arc<Connection>,
    /// Runs while a piece is waited for.
    waiting: Option<Waiting>,
    /// The client waits to be told that its body is wanted.
    expecting: bool,
}

/// Nothing of a body is there.
struct Waiting {
    since: Instant,
    timer: timer::Sleep,
}

impl ClientBody {
    /// A request whose body, unless it is over already, is held to `pace`.
    pub(crate) fn wrap(request: Request<Source>, mut pace: Pace, connection: &Arc<Connection>) -> Request<Body> {
        if request.body().is_over() {
            return request.map(|_| Body::Empty);
        }
        if is_grpc(request.headers()) {
            pace.rate = None;
        }
        let (allowance, connection) = (Allowance::new(pace), Arc::clone(connection));
        let expecting = match request.body() {
            Source::Nothing => false,
            Source::Http1 { expects, .. } => *expects,
            Source::Http2(_) => request.headers().contains_key(EXPECT),
        };
        request.map(|source| Body::stream(Self { source, allowance, connection, waiting: None, expecting }))
    }

    /// A piece of `bytes` is there.
    fn arrived(&mut self, bytes: usize) {
        let waited = self.waiting.take().map(|waiting| now().saturating_duration_since(waiting.since));
        self.allowance.arrived(waited.unwrap_or_default(), bytes);
    }
}

impl Source {
    fn is_over(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1 { upload, .. } => upload.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Nothing => Poll::Ready(None),
            Self::Http1 { upload, .. } => upload.poll_frame(cx),
            Self::Http2(stream) => {
                let piece = ready!(stream.poll(cx));
                Poll::Ready(piece.map(|piece| piece.map(frame).map_err(|error| BodyError::Client(error.to_string()))))
            }
        }
    }
}

fn frame(piece: Piece) -> Frame<Bytes> {
    match piece {
        Piece::Data(data) => Frame::data(data),
        Piece::Trailers(trailers) => Frame::trailers(trailers),
    }
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = self.source.poll_frame(cx) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.arrived(data.map_or(0, Bytes::len));
            self.expecting = false;
            return Poll::Ready(frame);
        }
        if std::mem::take(&mut self.expecting) {
            self.connection.interim.push(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let left = self.allowance.left();
        let waiting = self.waiting.get_or_insert_with(|| {
            let since = now();
            Waiting { since, timer: timer::sleep_until(since + left) }
        });
        ready!(Pin::new(&mut waiting.timer).poll(cx));
        let waited = now().saturating_duration_since(waiting.since);
        let timer = if self.allowance.is_pause(waited) { Timer::ClientBody } else { Timer::ClientBodyRate };
        Poll::Ready(Some(Err(BodyError::Timeout(timer))))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    /// On HTTP/2 the field alone tells the length; the codec holds the body to it.
    fn size_hint(&self) -> http_body::SizeHint {
        match &self.source {
            Source::Http1 { upload, .. } => {
                upload.remaining().map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
            }
            Source::Nothing | Source::Http2(_) => http_body::SizeHint::default(),
        }
    }
}

/// The messages of a call may come at any pace: few and small ones are no sign of an attack.
fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
