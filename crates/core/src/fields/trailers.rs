//! A streaming body that loses trailers which were forged: those whose names the gateway itself sets.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::Alike;
use crate::body::{Body, BodyError};

/// A body whose trailers lose some names, in every spelling.
#[derive(Debug)]
pub struct WithoutTrailers {
    body: Body,
    names: Arc<Alike>,
}

impl WithoutTrailers {
    /// Takes `names` out of the trailers of `body`.
    pub fn new(body: Body, names: Arc<Alike>) -> Self {
        Self { body, names }
    }
}

impl http_body::Body for WithoutTrailers {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
