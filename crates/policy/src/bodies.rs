//! Bodies with an end to their length: a stream that fails beyond a number of bytes, and a whole one that is read at once.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use pylon_core::body::{Body, BodyError};

/// A whole body of at most `cap` bytes, and its trailers. What is longer is given up with [`BodyError::TooLarge`].
pub(crate) async fn whole(body: Body, cap: usize) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    whole_with(body, cap, |_| {}).await
}

/// The same of which each piece is shown to `each` as it comes.
pub(crate) async fn whole_with(
    mut body: Body,
    cap: usize,
    mut each: impl FnMut(&[u8]),
) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let (mut whole, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) if whole.len().saturating_add(data.len()) > cap => return Err(BodyError::TooLarge(cap as u64)),
            Ok(data) => {
                each(&data);
                whole.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((whole.freeze(), trailers))
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Frames, read, run};

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
    fn a_whole_body_is_read_up_to_its_cap() {
        let read = |sizes: &[usize]| run(whole(Body::stream(Frames::of(sizes)), 10)).map(|(bytes, _)| bytes.len());
        assert_eq!((read(&[4, 6]), read(&[])), (Ok(10), Ok(0)));
        assert_eq!(read(&[4, 7]), Err(BodyError::TooLarge(10)));
    }
}
