//! The body of a message: nothing, a few bytes at hand, or a stream that is never held whole.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::Timer;
use crate::rejection::{
    REQUEST_BODY_BROKEN, REQUEST_BODY_TOO_LARGE, REQUEST_FRAMING, REQUEST_TIMEOUT, Reason, Rejection,
};

/// A streaming body behind one pointer. Streams cost one allocation; small answers cost none.
pub type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// The body of a request or response.
#[derive(Default)]
pub enum Body {
    /// No bytes and no trailers.
    #[default]
    Empty,
    /// All bytes, already here.
    Full(Bytes),
    /// Frames that arrive over time; trailers may follow the data.
    Stream(BoxBody),
    /// The service's side of a connection that has switched protocols (101), with the bytes read ahead. As a body it is
    /// empty; nobody but the data plane, which knows its type, can look into it. Who drops it closes the connection.
    Tunnel(Box<dyn Any + Send>),
}

impl Body {
    /// A body that streams from `body`.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self::Stream(Box::pin(body))
    }

    /// Whether there is certainly nothing to send.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty | Self::Tunnel(_) => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Tunnel(_) => f.write_str("Tunnel"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty | Self::Tunnel(_) => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Tunnel(_) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client's connection broke or its framing was wrong.
    #[error("the client's body broke off: {0}")]
    Client(String),
    /// The client's body is framed in a way that is refused.
    #[error("{0}")]
    Malformed(&'static str),
    /// The upstream's connection broke or its framing was wrong.
    #[error("the upstream's body broke off: {0}")]
    Upstream(String),
    /// The upstream broke its stream off with this code of HTTP/2 (RFC 9113 §7).
    #[error("the upstream broke the stream off with code {0}")]
    Reset(u32),
    /// A timer fired while the body was under way.
    #[error("the {0} timer fired")]
    Timeout(Timer),
    /// The body is longer than the limit, in bytes.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// The route was removed, and its streams end with it.
    #[error("the route was removed")]
    Removed,
}

impl BodyError {
    /// What a client is told whose body ended so.
    pub fn of_client(&self) -> &'static Reason {
        match self {
            Self::TooLarge(_) => &REQUEST_BODY_TOO_LARGE,
            Self::Timeout(_) => &REQUEST_TIMEOUT,
            Self::Malformed(_) => &REQUEST_FRAMING,
            Self::Client(_) | Self::Upstream(_) | Self::Reset(_) | Self::Removed => &REQUEST_BODY_BROKEN,
        }
    }

    /// The same with what it says of this one.
    pub fn rejection(&self) -> Rejection {
        let reason = self.of_client();
        match self {
            // The timer's name and length help the client's owner and tell nothing of the inside.
            Self::Timeout(timer) => {
                let limit = timer.limit().map(|limit| format!(" ({limit})")).unwrap_or_default();
                reason.because(format!("the {timer} timer fired{limit}"))
            }
            Self::Malformed(what) => reason.because(*what),
            other => reason.privately(other.to_string()),
        }
    }
}
