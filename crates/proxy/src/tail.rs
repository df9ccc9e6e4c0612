//! The end of an exchange: what stays with the body of the answer until its last byte, and then writes the one record.
//!
//! It owns what it needs and no snapshot. Whoever drops it first ends the exchange: the codec after the last byte, or
//! the connection when the client is gone (status 499 in the log).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use pylon_core::body::{Body, BodyError};
use pylon_core::connection::Phase;
use pylon_core::exchange::Exchange;
use pylon_observe::Observer;
use pylon_observe::ending::{End, Ending};
use pylon_observe::series::RouteShard;

use crate::hop::trailer_may_pass;

/// An exchange under way: dropped before [`Ongoing::answered`], it is one whose client went away.
#[derive(Debug)]
pub(crate) struct Ongoing(Box<Tail>);

#[derive(Debug)]
struct Tail {
    exchange: Box<Exchange>,
    shard: Arc<RouteShard>,
    observer: Arc<Observer>,
    received: Option<Arc<AtomicU64>>,
    status: u16,
    sent: u64,
    end: End,
}

impl Ongoing {
    /// Begins with the worker's shard of the route's metrics.
    pub(crate) fn begin(exchange: Box<Exchange>, shard: Arc<RouteShard>, observer: Arc<Observer>) -> Self {
        shard.begin();
        // Until the answer is complete, an end is the client's.
        Self(Box::new(Tail { exchange, shard, observer, received: None, status: 0, sent: 0, end: End::ClientGone }))
    }

    /// The exchange, to work on.
    pub(crate) fn exchange(&mut self) -> &mut Exchange {
        &mut self.0.exchange
    }

    /// Counts the bytes of the request's body, where it streams.
    pub(crate) fn count_request(&mut self, body: Body) -> Body {
        let Body::Stream(_) = body else { return body };
        let count = Arc::new(AtomicU64::new(0));
        self.0.received = Some(Arc::clone(&count));
        Body::stream(Counted { stream: body, count })
    }

    /// The head of the answer is made: from here on the exchange belongs to the body.
    pub(crate) fn answered(self, response: http::Response<Body>, bodiless: bool) -> http::Response<Tailed> {
        let mut tail = self.0;
        tail.status = response.status().as_u16();
        if bodiless || response.body().is_end_stream() {
            tail.end = End::Complete;
        }
        response.map(|body| Tailed { body, tail: Some(tail) })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let connection = &self.exchange.connection;
        let ended = tokio::time::Instant::now().into_std();
        connection.activity.enter(Phase::Flushing, ended);
        let received = self.received.as_ref().map_or(0, |count| count.load(Ordering::Relaxed));
        let ending = Ending { status: self.status, sent: self.sent, received, ended, how: self.end };
        self.observer.finish(&self.shard, &self.exchange, ending);
    }
}

/// The body of an answer, with the end of the exchange behind it.
#[derive(Debug)]
pub struct Tailed {
    body: Body,
    tail: Option<Box<Tail>>,
}

impl http_body::Body for Tailed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let Some(tail) = &mut this.tail else { return Poll::Ready(frame) };
        let frame = match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    tail.sent += data.len() as u64;
                }
                if this.body.is_end_stream() {
                    tail.end = End::Complete;
                }
                Some(Ok(clean_trailers(frame)))
            }
            Some(Err(error)) => {
                tail.exchange.trail.detail.get_or_insert_with(|| error.to_string().into());
                tail.end = End::from(&error);
                Some(Err(error))
            }
            None => {
                tail.end = End::Complete;
                None
            }
        };
        if !matches!(frame, Some(Ok(_))) || tail.end == End::Complete {
            this.tail = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers may carry results, but nothing that the gateway vouches for or that frames a message.
fn clean_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            let doomed: Vec<_> = trailers.keys().filter(|name| !trailer_may_pass(name)).cloned().collect();
            for name in doomed {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The body of a request, counted and with its trailers cleaned.
struct Counted {
    stream: Body,
    count: Arc<AtomicU64>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.stream).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map(clean_trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.size_hint()
    }
}
