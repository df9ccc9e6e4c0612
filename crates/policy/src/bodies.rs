//! A streaming body that is watched on its way: it fails beyond a number of bytes, or loses trailers that were forged.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pylon_core::body::{Body, BodyError};

use crate::names::Alike;

type Next = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A body that fails with [`BodyError::TooLarge`] once it is longer than its cap.
#[derive(Debug)]
pub(crate) struct Capped {
    body: Body,
    left: u64,
    cap: u64,
}

impl Capped {
    /// Lets `cap` bytes of `body` through.
    pub(crate) fn new(body: Body, cap: u64) -> Self {
        Self { body, left: cap, cap }
    }
}

impl http_body::Body for Capped {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        let next = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(data) = frame.data_ref()
        {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                // What is left of the body is given up with its stream, and nothing comes after the error.
                self.body = Body::Empty;
                return Poll::Ready(Some(Err(BodyError::TooLarge(self.cap))));
            };
            self.left = left;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body whose trailers lose some names, in every spelling.
#[derive(Debug)]
pub(crate) struct WithoutTrailers {
    body: Body,
    names: Arc<Alike>,
}

impl WithoutTrailers {
    /// Takes `names` out of the trailers of `body`.
    pub(crate) fn new(body: Body, names: Arc<Alike>) -> Self {
        Self { body, names }
    }
}

impl http_body::Body for WithoutTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        let mut next = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut next
            && let Some(trailers) = frame.trailers_mut()
        {
            self.names.remove_from(trailers);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Frames, read};
    use http::{HeaderMap, HeaderName, HeaderValue};
    use http_body::Body as _;

    #[test]
    fn a_stream_passes_up_to_its_cap_and_fails_with_the_first_byte_beyond() {
        let body = |sizes: &[usize]| Capped::new(Body::stream(Frames::of(sizes)), 10);
        assert_eq!(read(body(&[4, 6])).map(|(bytes, _)| bytes), Ok(10));
        assert_eq!(read(body(&[4, 7])).unwrap_err(), BodyError::TooLarge(10));
        assert_eq!(read(body(&[11, 1, 1])).unwrap_err(), BodyError::TooLarge(10));
    }

    #[test]
    fn nothing_comes_after_the_error() {
        let mut body = Capped::new(Body::stream(Frames::of(&[11, 1])), 10);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(Some(Err(_)))));
        assert!(matches!(Pin::new(&mut body).poll_frame(&mut cx), Poll::Ready(None)));
        assert!(body.is_end_stream());
    }

    #[test]
    fn a_name_that_the_gateway_sets_is_taken_out_of_the_trailers_too() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x_user", HeaderValue::from_static("root"));
        trailers.insert("x-user", HeaderValue::from_static("root"));
        trailers.insert("x-checksum", HeaderValue::from_static("1"));
        let names = Arc::new(Alike::new([&HeaderName::from_static("x-user")]));
        let body = WithoutTrailers::new(Body::stream(Frames::of(&[3]).trailers(trailers)), names);
        let (bytes, trailers) = read(body).unwrap();
        assert_eq!((bytes, trailers.len()), (3, 1));
        assert!(trailers.contains_key("x-checksum"));
    }
}
