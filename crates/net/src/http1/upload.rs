//! The body of a request between the connection, which reads it as far as it is asked for, and whoever the request goes to.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use parking_lot::Mutex;
use pylon_core::body::BodyError;
use pylon_http1::Length;
use pylon_http1::body::{Decoder, Piece};
use pylon_http1::fault::Fault;

use crate::stream::Stream;
use pylon_core::spare;

/// The most that one read is given room for, in bytes.
const MAX_READ: usize = 64 * 1024;
/// How much of a body that nobody wanted is read behind the answer, so that the connection can go on.
const LEFT_OVER: usize = 64 * 1024;

/// The body as its reader has it.
#[derive(Debug)]
pub(crate) struct Upload(Arc<Mutex<State>>);

/// The body as the connection has it.
#[derive(Debug)]
pub(super) struct Feed(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What was read and not taken. What follows the body stays in it.
    buf: BytesMut,
    decoder: Decoder,
    end: Option<Broken>,
    /// Who waits for more.
    wanting: Option<Waker>,
    /// The task of the connection.
    driver: Waker,
}

/// Why a body has no end.
#[derive(Debug, Clone, Copy)]
enum Broken {
    /// The client is gone.
    Cut,
    /// The answer is out, and nobody reads on.
    Left,
    Malformed(Fault),
}

impl From<Broken> for BodyError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Cut => Self::Client("the connection ended within the body".to_owned()),
            Broken::Left => Self::Client("the request has been answered".to_owned()),
            Broken::Malformed(fault) => Self::Malformed(fault.what()),
        }
    }
}

/// A body of this length, of which `ahead` begins, for a connection that runs in the task of `driver`.
pub(super) fn begin(length: Length, ahead: BytesMut, driver: Waker) -> (Upload, Feed) {
    let state = State { buf: ahead, decoder: Decoder::of_request(length), end: None, wanting: None, driver };
    let state = Arc::new(Mutex::new(state));
    (Upload(Arc::clone(&state)), Feed(state))
}

impl Upload {
    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.lock().decoder.is_done()
    }

    /// How many bytes are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        self.0.lock().decoder.remaining()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.lock();
        if let Some(broken @ (Broken::Malformed(_) | Broken::Left)) = state.end {
            return Poll::Ready(Some(Err(broken.into())));
        }
        match state.next() {
            Ok(Piece::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(Piece::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(Piece::End) => Poll::Ready(None),
            Ok(Piece::More) => match state.end {
                Some(broken) => Poll::Ready(Some(Err(broken.into()))),
                None => {
                    state.want(cx);
                    Poll::Pending
                }
            },
            Err(fault) => {
                state.end = Some(Broken::Malformed(fault));
                Poll::Ready(Some(Err(Broken::Malformed(fault).into())))
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Result<Piece, Fault> {
        let Self { decoder, buf, .. } = self;
        let piece = decoder.next(buf)?;
        if matches!(piece, Piece::Data(_)) {
            decoder.finish_if_whole(buf);
        }
        Ok(piece)
    }

    fn want(&mut self, cx: &Context<'_>) {
        let waker = cx.waker();
        if !self.wanting.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.wanting = Some(waker.clone());
        }
        // Where it is read by the task of the connection, that looks here once it has been polled.
        if !self.driver.will_wake(waker) {
            self.driver.wake_by_ref();
        }
    }
}

impl Feed {
    /// Whether the reader waits for more.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.lock().wanting.is_some()
    }

    /// Whether nothing of it waits to be taken, so that a read can be no harm.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().buf.is_empty()
    }

    /// Reads once. Ready with how many bytes came, 0 at the end of the connection.
    pub(super) fn poll_read(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let mut state = self.0.lock();
        let run = usize::try_from(state.decoder.run()).unwrap_or(MAX_READ).min(MAX_READ);
        if state.buf.capacity() == 0 {
            state.buf = spare::take_read();
        }
        state.buf.reserve(run.max(spare::READ));
        let read = poll_into(stream, cx, &mut state.buf);
        if let Poll::Ready(read) = &read {
            if !matches!(read, Ok(1..)) {
                state.end.get_or_insert(Broken::Cut);
            }
            if let Some(waker) = state.wanting.take()
                && !waker.will_wake(cx.waker())
            {
                waker.wake();
            }
        }
        read
    }

    /// Adds what was read otherwise.
    pub(super) fn put(&self, bytes: &[u8]) {
        self.0.lock().buf.extend_from_slice(bytes);
    }

    /// The answer is out: drops what is left of the body, as far as it is here. Answers what stands behind it; none where
    /// the body has no end in sight, so that nothing can follow.
    pub(super) fn finish(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Option<BytesMut> {
        let mut dropped: usize = 0;
        loop {
            loop {
                let mut state = self.0.lock();
                match state.next() {
                    Ok(Piece::Data(data)) => dropped = dropped.saturating_add(data.len()),
                    Ok(Piece::Trailers(_)) => {}
                    Ok(Piece::End) => {
                        // Whoever still has the body finds it over.
                        return Some(std::mem::take(&mut state.buf));
                    }
                    Ok(Piece::More) if state.end.is_none() && dropped < LEFT_OVER => break,
                    Ok(Piece::More) | Err(_) => {
                        state.leave();
                        return None;
                    }
                }
            }
            if !matches!(self.poll_read(stream, cx), Poll::Ready(Ok(1..))) {
                self.0.lock().leave();
                return None;
            }
        }
    }
}

impl State {
    fn leave(&mut self) {
        self.end = Some(Broken::Left);
        self.buf = BytesMut::new();
        if let Some(waker) = self.wanting.take() {
            waker.wake();
        }
    }
}

/// Reads into the room that `buf` has; memory is not zeroed.
pub(super) fn poll_into(stream: &mut Stream, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<std::io::Result<usize>> {
    use std::future::Future as _;
    use tokio::io::AsyncReadExt as _;

    let mut stream = Pin::new(stream);
    let mut read = std::pin::pin!(stream.read_buf(buf));
    read.as_mut().poll(cx)
}
