//! Sends what of a request did not go out in one write: the rest of its head, and a body that arrives over time.
//!
//! It is polled beside the reading of the response, so that an early answer is seen while the body is still on its way.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use pylon_core::body::{Body, BodyError};
use pylon_http1::write;
use pylon_net::outbox::Outbox;
use pylon_net::stream::Stream;
use pylon_net::timer::{Sleep, sleep_until};

use super::encode::Framing;

/// How long an upstream may be silent before the body is sent without its `100 Continue` (RFC 9110 §10.1.1).
pub(crate) const EXPECT: Duration = Duration::from_secs(1);

/// Why the request could not be sent whole.
#[derive(Debug)]
pub(crate) enum PumpError {
    /// The client's body failed.
    Body(BodyError),
    /// The upstream takes no more bytes. An answer may still be waiting to be read.
    Write(io::Error),
}

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Pump {
    /// Whether all that was taken has been handed to the system: TLS may hold something back.
    flushed: bool,
    /// Head, line of a chunk or trailers, and a piece of the body behind them.
    out: Outbox,
    body: Body,
    /// Bytes that a fixed length still wants; none for chunks.
    left: Option<u64>,
    state: State,
    /// Whether a byte has been taken by the socket.
    wrote: bool,
    /// When the socket last took bytes of a body.
    moved: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// The head waits one turn of the loop, so that a body that is about to arrive goes out with it.
    Grace,
    /// Bytes are sent as they come.
    Open,
    /// The body is not touched before the upstream says 100, or `Sleep` is over.
    Expecting(Sleep),
    /// All is handed over but for what is still to be written.
    Last,
}

impl Pump {
    /// A pump for `line` (what is left of the head) and `body`. `expecting` holds the body back until an interim answer.
    pub(crate) fn new(line: &[u8], wrote: bool, body: Body, framing: Framing, expecting: Option<Instant>) -> Box<Self> {
        let state = match (&body, expecting) {
            (Body::Empty | Body::Tunnel(_), _) => State::Last,
            (_, Some(until)) => State::Expecting(sleep_until(until)),
            (Body::Stream(_), None) => State::Grace,
            (Body::Full(_), None) => State::Open,
        };
        let left = if let Framing::Fixed(length) = framing { Some(length) } else { None };
        let mut out = Outbox::default();
        out.line().extend_from_slice(line);
        Box::new(Self { flushed: false, out, body, left, state, wrote, moved: None })
    }

    /// Whether any byte has left.
    pub(crate) fn wrote(&self) -> bool {
        self.wrote
    }

    /// When the body last moved on.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.moved
    }

    /// Whether the whole request is out.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Last) && self.out.is_empty() && self.flushed
    }

    /// Whether nothing can be sent because the client has not sent it yet.
    pub(crate) fn awaits_client(&self) -> bool {
        matches!(self.state, State::Open) && self.out.is_empty()
    }

    /// Whether the body waits for the upstream's `100 Continue`.
    pub(crate) fn is_expecting(&self) -> bool {
        matches!(self.state, State::Expecting(_))
    }

    /// The upstream wants the body.
    pub(crate) fn go_on(&mut self) {
        if self.is_expecting() {
            self.state = State::Open;
        }
    }

    /// Sends what can be sent. Ready when the whole request is out.
    pub(crate) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        loop {
            if !matches!(self.state, State::Grace) {
                ready!(self.flush(stream, cx)).map_err(PumpError::Write)?;
            }
            match &mut self.state {
                State::Last => return Poll::Ready(Ok(())),
                State::Expecting(sleep) => {
                    ready!(Pin::new(sleep).poll(cx));
                    self.state = State::Open;
                }
                State::Grace | State::Open => match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => {
                        self.state = State::Open;
                        self.take(frame).map_err(PumpError::Body)?;
                    }
                    Poll::Pending if matches!(self.state, State::Grace) => {
                        self.state = State::Open;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Queues one frame of the body. Nothing but a waiting head is queued at this time.
    fn take(&mut self, frame: Option<Result<http_body::Frame<Bytes>, BodyError>>) -> Result<(), BodyError> {
        let Some(frame) = frame else { return self.finish(None) };
        match frame?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let mut tail: &'static [u8] = b"";
                match &mut self.left {
                    Some(left) => {
                        *left = left
                            .checked_sub(data.len() as u64)
                            .ok_or_else(|| BodyError::Client("the body is longer than its content length".into()))?;
                    }
                    None => {
                        write::size(self.out.line(), data.len());
                        tail = b"\r\n";
                    }
                }
                self.out.put(data, tail);
                if self.body.is_end_stream() {
                    return self.finish(None);
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return self.finish(Some(&trailers));
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), BodyError> {
        self.state = State::Last;
        self.body = Body::Empty;
        match (self.left, trailers) {
            (Some(0), _) => {}
            (Some(_), _) => return Err(BodyError::Client("the body is shorter than its content length".into())),
            (None, Some(trailers)) => write::end(self.out.line(), [trailers]),
            (None, None) if !self.out.has_piece() => self.out.line().extend_from_slice(write::LAST),
            (None, None) => self.out.end(b"\r\n0\r\n\r\n"),
        }
        Ok(())
    }

    fn flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (taken, of_body) = (self.out.taken(), self.out.has_piece());
        let written = self.out.poll_write(stream, cx);
        if self.out.taken() > taken {
            self.wrote = true;
            if of_body {
                self.moved = Some(tokio::time::Instant::now().into_std());
            }
        }
        self.flushed = matches!(written, Poll::Ready(Ok(())));
        written
    }
}
