//! Sends the body of a request over time, as far as the other side's window allows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use pylon_core::body::{Body, BodyError};
use pylon_core::spare;
use pylon_http1::trailers::may_trail;
use pylon_http2::{Error, Reason, SendStream};
use smallvec::SmallVec;

use crate::h1::encode::Framing;

/// As much of a stream is kept for the case that the other side has not looked at it.
const KEEP: usize = 64 * 1024;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct Upload {
    stream: SendStream,
    body: Body,
    data: Bytes,
    /// Whether `data` is the last of it.
    ends: bool,
    /// Bytes that a fixed length still wants; none where there is no such length.
    left: Option<u64>,
    moved: Option<Instant>,
    done: bool,
    /// What has been taken out of `body`; none once that is too much.
    kept: Option<SmallVec<[Bytes; 2]>>,
}

/// A body that begins with what was taken out of it.
struct Restored {
    pieces: smallvec::IntoIter<[Bytes; 2]>,
    rest: Body,
}

/// How far an upload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All is sent.
    Sent,
    /// The other side wants no more of it.
    Cut,
}

impl Upload {
    /// Sends what can be sent at once; none where that is all. Bytes at hand stay in `body` for another attempt.
    pub(crate) fn begin(mut stream: SendStream, body: &mut Body, framing: Framing) -> Result<Option<Box<Self>>, Error> {
        let left = if let Framing::Fixed(length) = framing { Some(length) } else { None };
        let (body, data) = match body {
            _ if framing == Framing::Empty => return Ok(None),
            // Tunnels have a connection of their own.
            Body::Empty | Body::Tunnel(_) => return Ok(None),
            Body::Full(bytes) => {
                let mut left = bytes.clone();
                stream.send(&mut left, true)?;
                if left.is_empty() {
                    return Ok(None);
                }
                (Body::Empty, left)
            }
            Body::Stream(_) => (std::mem::take(body), Bytes::new()),
        };
        let ends = !data.is_empty();
        Ok(Some(Box::new(Self {
            stream,
            body,
            data,
            ends,
            left,
            moved: None,
            done: false,
            kept: Some(SmallVec::new()),
        })))
    }

    /// The whole body again, where it is still here.
    pub(crate) fn take_back(self) -> Option<Body> {
        let pieces = self.kept?.into_iter();
        Some(Body::stream(Restored { pieces, rest: self.body }))
    }

    /// When the body last moved on.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.moved
    }

    /// Whether nothing can be sent because the client has not sent it yet.
    pub(crate) fn awaits_client(&self) -> bool {
        !self.done && self.data.is_empty() && !self.ends
    }

    /// Sends what can be sent. Ready when there is no more to do.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, BodyError>> {
        loop {
            if self.done {
                return Poll::Ready(Ok(Progress::Sent));
            }
            if !self.data.is_empty() {
                if let Some(cut) = ready!(self.poll_send(cx)) {
                    self.done = true;
                    return Poll::Ready(Ok(cut));
                }
                continue;
            }
            // The other side may have answered and want no more (RFC 9113 §8.1).
            if self.stream.poll_failed(cx).is_ready() {
                self.done = true;
                return Poll::Ready(Ok(Progress::Cut));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if let Err(error) = self.take(frame) {
                self.done = true;
                self.stream.reset(Reason::CANCEL);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Sends of `data` what the window allows: ready with none when it is gone.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        while !self.data.is_empty() {
            if ready!(self.stream.poll_room(cx)).is_err() || self.stream.send(&mut self.data, self.ends).is_err() {
                return Poll::Ready(Some(Progress::Cut));
            }
            let last = self.ends && self.data.is_empty();
            self.moved = Some(tokio::time::Instant::now().into_std());
            self.done = last;
        }
        Poll::Ready(None)
    }

    /// Takes in one frame of the body.
    fn take(&mut self, frame: Option<Result<http_body::Frame<Bytes>, BodyError>>) -> Result<(), BodyError> {
        let Some(frame) = frame else { return self.finish(None) };
        match frame?.into_data() {
            Ok(data) => {
                if let Some(left) = &mut self.left {
                    *left = left
                        .checked_sub(data.len() as u64)
                        .ok_or_else(|| BodyError::Client("the body is longer than its content length".into()))?;
                }
                self.keep(&data);
                self.data = data;
                self.ends = !self.data.is_empty() && self.body.is_end_stream();
                if self.ends {
                    self.check_length()?;
                }
                Ok(())
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.finish(Some(trailers)),
                Err(_) => Ok(()),
            },
        }
    }

    fn keep(&mut self, data: &Bytes) {
        let Some(kept) = &mut self.kept else { return };
        let all: usize = kept.iter().map(Bytes::len).sum();
        if all.saturating_add(data.len()) > KEEP {
            self.kept = None;
        } else {
            kept.push(data.clone());
        }
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), BodyError> {
        self.check_length()?;
        self.done = true;
        self.body = Body::Empty;
        // An error here means that the stream is over already; the answer tells why.
        let _ = match trailers {
            Some(mut trailers) => {
                self.kept = None;
                let doomed: Vec<_> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
                for name in doomed {
                    trailers.remove(name);
                }
                let sent = self.stream.trailers(&trailers);
                spare::give_map(trailers);
                sent
            }
            None => self.stream.end(),
        };
        Ok(())
    }

    fn check_length(&self) -> Result<(), BodyError> {
        match self.left {
            None | Some(0) => Ok(()),
            Some(_) => Err(BodyError::Client("the body is shorter than its content length".into())),
        }
    }
}

impl http_body::Body for Restored {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        match self.pieces.next() {
            Some(piece) => Poll::Ready(Some(Ok(http_body::Frame::data(piece)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.len() == 0 && self.rest.is_end_stream()
    }
}
