//! The body of an answer while it arrives; what is left of the request is sent meanwhile.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pylon_core::body::BodyError;
use pylon_core::exchange::Timer;
use pylon_http2::{Error, Piece, RecvStream};

use super::conn::Place;
use super::upload::Upload;
use crate::clocks::{Clocks, Pause};
use crate::endpoint::Lease;

/// A body that is read from a stream.
pub(crate) struct AnswerBody {
    /// None once the body is over, whether well or not: what drops with it cancels a stream that is not over.
    live: Option<Live>,
    pause: Pause,
}

struct Live {
    stream: RecvStream,
    upload: Option<Box<Upload>>,
    _place: Place,
    lease: Lease,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBody").finish_non_exhaustive()
    }
}

impl AnswerBody {
    pub(crate) fn new(
        stream: RecvStream,
        upload: Option<Box<Upload>>,
        place: Place,
        lease: Lease,
        clocks: Clocks,
    ) -> Self {
        let live = Live { stream, upload, _place: place, lease };
        Self { live: Some(live), pause: Pause::new(clocks) }
    }
}

impl Live {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(end) = upload.poll(cx)
        {
            end?;
            self.upload = None;
        }
        Ok(())
    }

    /// Tells those who judge what has come of the answer.
    fn tell(&mut self, piece: Option<&Result<Piece, Error>>) {
        match piece {
            Some(Ok(Piece::Data(_))) => self.lease.goes_on(),
            Some(Ok(Piece::Trailers(trailers))) => self.lease.ended(Some(trailers)),
            Some(Err(_)) => self.lease.broke(),
            None => self.lease.ended(None),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Whoever takes it has room for it: more may come.
        let piece = ready!(self.stream.poll(cx));
        self.tell(piece.as_ref());
        Poll::Ready(piece.map(|piece| match piece {
            Ok(Piece::Data(data)) => Ok(Frame::data(data)),
            Ok(Piece::Trailers(trailers)) => Ok(Frame::trailers(trailers)),
            Err(error) => Err(broke(error)),
        }))
    }
}

fn broke(error: Error) -> BodyError {
    match error.reset_by_peer() {
        Some(reason) => BodyError::Reset(reason.into()),
        None => BodyError::Upstream(error.to_string()),
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        if let Err(error) = live.poll_upload(cx) {
            this.live = None;
            return Poll::Ready(Some(Err(error)));
        }
        match live.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pause.moved();
                if live.stream.is_end_stream() {
                    live.lease.ended(None);
                    this.live = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                this.live = None;
                Poll::Ready(end)
            }
            Poll::Pending => {
                let timer = ready!(this.pause.poll(cx, live.upload.as_ref().and_then(|upload| upload.moved())));
                if timer == Timer::Idle {
                    live.lease.broke();
                }
                this.live = None;
                Poll::Ready(Some(Err(BodyError::Timeout(timer))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
