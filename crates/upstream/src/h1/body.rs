//! The body of an answer while it arrives. What is left of the request is sent meanwhile (full duplex), the timers
//! `idle` and `total` are kept, and a clean end gives the connection back to its pool.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pylon_core::body::BodyError;
use pylon_core::exchange::Timer;
use pylon_http1::body::{Decoder, Piece};

use super::conn::Conn;
use super::pump::{Pump, PumpError};
use crate::clocks::{Clocks, Pause};
use crate::endpoint::Lease;
use pylon_core::spare;

/// The most that one read is given room for, in bytes.
const MAX_READ: usize = 256 * 1024;

/// A body that is read from a connection.
pub(crate) struct UpstreamBody {
    /// A frame that came with the head.
    first: Option<Frame<Bytes>>,
    decoder: Decoder,
    /// None once the body is over, whether well or not.
    live: Option<Live>,
    keep: bool,
    room: usize,
    pause: Pause,
}

/// What a body answers when it is polled.
type Next = Option<Result<Frame<Bytes>, BodyError>>;

struct Live {
    conn: Conn,
    pump: Option<Box<Pump>>,
    lease: Lease,
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").field("decoder", &self.decoder).finish_non_exhaustive()
    }
}

impl UpstreamBody {
    pub(crate) fn new(
        first: Piece,
        decoder: Decoder,
        conn: Conn,
        keep: bool,
        pump: Option<Box<Pump>>,
        mut lease: Lease,
        clocks: Clocks,
    ) -> Self {
        let first = match first {
            Piece::Data(data) => Some(Frame::data(data)),
            Piece::Trailers(trailers) => {
                lease.ended(Some(&trailers));
                Some(Frame::trailers(trailers))
            }
            Piece::More | Piece::End => None,
        };
        let live = Some(Live { conn, pump, lease });
        let mut body = Self { first, decoder, live, keep, room: spare::READ, pause: Pause::new(clocks) };
        if body.decoder.is_done() {
            body.finish();
        }
        body
    }

    /// The body ended well. The connection is given back where nothing speaks against it.
    fn finish(&mut self) {
        self.pause.end();
        let Some(Live { conn, pump, mut lease }) = self.live.take() else { return };
        lease.ended(None);
        if self.keep && pump.is_none() && conn.buf.is_empty() {
            lease.give_back(conn, tokio::time::Instant::now().into_std());
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Next> {
        if let Some(mut live) = self.live.take()
            && is_of_upstream(&error)
        {
            live.lease.broke();
        }
        self.pause.end();
        Poll::Ready(Some(Err(error)))
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let Some(Live { conn, pump: slot @ Some(_), .. }) = &mut self.live else { return Ok(()) };
        let Some(pump) = slot else { return Ok(()) };
        match pump.poll(&mut conn.stream, cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(PumpError::Body(error))) => return Err(error),
            // The upstream wants no more of the request; its answer may be complete all the same.
            Poll::Ready(Err(PumpError::Write(_))) => self.keep = false,
        }
        *slot = None;
        Ok(())
    }

    /// Reads once. Ready with `None` when bytes came, else with what the body ends with.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        let Some(live) = &mut self.live else { return Poll::Ready(Some(None)) };
        // A long run of data is read in large pieces, anything else in pieces that grow as long as they are filled.
        let run = usize::try_from(self.decoder.run()).unwrap_or(MAX_READ).min(MAX_READ);
        let room = self.room.max(run);
        match live.conn.poll_read(cx, room) {
            Poll::Ready(Ok(0)) => match self.decoder.close() {
                Ok(()) => {
                    self.keep = false;
                    self.finish();
                    Poll::Ready(Some(None))
                }
                Err(error) => self.fail(BodyError::Upstream(error.to_string())).map(Some),
            },
            Poll::Ready(Ok(read)) => {
                self.pause.moved();
                if read >= room {
                    self.room = self.room.saturating_mul(2).min(MAX_READ);
                }
                Poll::Ready(None)
            }
            Poll::Ready(Err(error)) => self.fail(BodyError::Upstream(error.to_string())).map(Some),
            Poll::Pending => {
                let sent = live.pump.as_ref().and_then(|pump| pump.moved());
                let timer = ready!(self.pause.poll(cx, sent));
                self.fail(BodyError::Timeout(timer)).map(Some)
            }
        }
    }
}

/// Whether the service has to answer for it that its answer is not whole.
pub(crate) fn is_of_upstream(error: &BodyError) -> bool {
    matches!(error, BodyError::Upstream(_) | BodyError::Reset(_) | BodyError::Timeout(Timer::Idle))
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            if let Err(error) = this.poll_pump(cx) {
                return this.fail(error);
            }
            let Some(live) = &mut this.live else { return Poll::Ready(None) };
            match this.decoder.next(&mut live.conn.buf) {
                Ok(Piece::Data(data)) => {
                    this.decoder.finish_if_whole(&mut live.conn.buf);
                    if this.decoder.is_done() {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Piece::Trailers(trailers)) => {
                    live.lease.ended(Some(&trailers));
                    this.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::End) => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Ok(Piece::More) => {}
                Err(error) => return this.fail(BodyError::Upstream(error.to_string())),
            }
            if let Some(end) = ready!(this.poll_read(cx)) {
                return Poll::Ready(end);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none() && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let here = self.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        match self.decoder.remaining() {
            Some(left) => SizeHint::with_exact(left.saturating_add(here)),
            None => SizeHint::default(),
        }
    }
}
