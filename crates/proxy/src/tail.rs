//! The end of an exchange: what stays with the body of the answer until its last byte, and then writes the one record.
//!
//! It owns what it needs and no snapshot. Whoever drops it first ends the exchange: the codec after the last byte, or
//! the connection when the client is gone (status 499 in the log).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use pylon_core::body::{Body, BodyError};
use pylon_core::connection::Phase;
use pylon_core::exchange::{Exchange, Timer};
use pylon_core::rejection::REQUEST_BODY_BROKEN;
use pylon_core::rejection::{INTERNAL, Rejection};
use pylon_core::{Request, Response};
use pylon_observe::ending::{End, Ending};
use pylon_observe::series::RouteShard;
use pylon_policy::policy::Stop;
use pylon_route::table::Found;

use crate::engine::Shared;
use crate::grpc;
use crate::hop::{self, trailer_may_pass};
use crate::removal::Stay;
use crate::websocket;
use crate::websocket::tunnel::Tunnel;

/// An exchange under way: dropped before [`Ongoing::answered`], it is one whose client went away.
#[derive(Debug)]
pub(crate) struct Ongoing(Box<Tail>);

/// What stays until the last byte.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The facts of the exchange.
    pub(crate) exchange: Box<Exchange>,
    /// The request until it is sent.
    pub(crate) request: Request,
    /// What the router made of it.
    pub(crate) found: Result<Found, Rejection>,
    /// What the way in or the action came to; an error of the gateway until then.
    pub(crate) answer: Result<Response, Stop>,
    shard: Arc<RouteShard>,
    /// Where its stream ends with the route.
    pub(crate) stay: Option<Stay>,
    pub(crate) observer: Arc<Shared>,
    received: Option<Arc<AtomicU64>>,
    status: u16,
    sent: u64,
    end: End,
}

impl Ongoing {
    /// Begins with the worker's shard of the route's metrics.
    pub(crate) fn begin(
        exchange: Box<Exchange>,
        mut request: Request,
        found: Result<Found, Rejection>,
        (shard, stay): (Arc<RouteShard>, Option<Stay>),
        observer: Arc<Shared>,
    ) -> Self {
        shard.begin();
        let received = count(&mut request);
        // Until the answer is complete, an end is the client's.
        let end = End::ClientGone;
        let answer = Err(Stop::from(&INTERNAL));
        Self(Box::new(Tail {
            exchange,
            request,
            found,
            answer,
            shard,
            stay,
            observer,
            received,
            status: 0,
            sent: 0,
            end,
        }))
    }

    /// What there is to work on.
    pub(crate) fn tail(&mut self) -> &mut Tail {
        &mut self.0
    }

    /// The head of the answer is made: from here on the exchange belongs to the body.
    pub(crate) fn answered(self, mut response: Response) -> http::Response<Tailed> {
        let mut tail = self.0;
        hop::finish(response.headers_mut(), &tail.exchange.request_id);
        if let Some(status) = websocket::finish(&mut response, &tail.exchange) {
            *response.status_mut() = status;
            return response.map(|body| Tailed { body, tail: Some(tail) });
        }
        tail.status = response.status().as_u16();
        if tail.is_left_alone() {
            return response.map(|body| Tailed { body, tail: None });
        }
        if tail.exchange.grpc {
            tail.exchange.trail.grpc_status = grpc::status(response.headers());
        }
        let bodiless = tail.exchange.method == Method::HEAD || has_no_body(response.status());
        if bodiless || response.body().is_end_stream() {
            tail.end = End::Complete;
        }
        response.map(|body| Tailed { body, tail: Some(tail) })
    }
}

impl Tail {
    /// The answer, once.
    pub(crate) fn take_answer(&mut self) -> Result<Response, Stop> {
        std::mem::replace(&mut self.answer, Err(Stop::from(&INTERNAL)))
    }

    /// The client has seen the switch of protocols: from here on its going away is one way in which the tunnel ends.
    pub(crate) fn switched(&mut self) {
        self.status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
    }

    /// The tunnel has ended, and has carried so many bytes each way.
    pub(crate) fn ended(&mut self, received: u64, sent: u64, how: End) {
        self.received = Some(Arc::new(AtomicU64::new(received)));
        (self.sent, self.end) = (sent, how);
    }

    /// The body breaks off. A call of gRPC whose time is over, or whose route is gone, ends by trailers, which its client understands.
    fn broken(&mut self, error: BodyError) -> Result<Frame<Bytes>, BodyError> {
        let trail = &mut self.exchange.trail;
        trail.detail.get_or_insert_with(|| error.to_string().into());
        self.end = End::from(&error);
        let trailers = match error {
            BodyError::Timeout(_) if self.exchange.grpc => grpc::too_late(&error.to_string()),
            BodyError::Removed if self.exchange.grpc => grpc::removed(&error.to_string()),
            error => return Err(error),
        };
        trail.grpc_status = grpc::status(&trailers);
        Ok(Frame::trailers(trailers))
    }

    /// Whether the client broke off its body by going away: then nobody is refused, and nobody reads the refusal.
    fn is_left_alone(&mut self) -> bool {
        let trail = &mut self.exchange.trail;
        let gone = trail.reason == Some(&REQUEST_BODY_BROKEN) && self.exchange.connection.ended.load(Ordering::Relaxed);
        if gone {
            trail.reason = None;
        }
        gone
    }
}

/// Counts the bytes of a request's body from here on, where it streams.
fn count(request: &mut Request) -> Option<Arc<AtomicU64>> {
    if !matches!(request.body(), Body::Stream(_)) {
        return None;
    }
    let count = Arc::new(AtomicU64::new(0));
    let stream = std::mem::take(request.body_mut());
    *request.body_mut() = Body::stream(Counted { stream, count: Arc::clone(&count) });
    Some(count)
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Drop for Tail {
    fn drop(&mut self) {
        let connection = &self.exchange.connection;
        let ended = tokio::time::Instant::now().into_std();
        connection.activity.enter(Phase::Flushing, ended);
        if self.end == End::ClientGone && connection.stalled.load(Ordering::Relaxed) {
            self.end = End::Timeout(Timer::ClientRead);
        }
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

impl Tailed {
    /// The tunnel, where this is the answer that switches protocols.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        if !matches!(self.body, Body::Tunnel(_)) {
            return None;
        }
        Tunnel::new(self.tail.take()?, std::mem::take(&mut self.body))
    }
}

impl http_body::Body for Tailed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(tail) = &mut this.tail else { return Pin::new(&mut this.body).poll_frame(cx) };
        let frame = match &mut tail.stay {
            // What is at hand is whole in a moment.
            Some(stay) if matches!(this.body, Body::Stream(_)) => ready!(unless_over(stay, &mut this.body, cx)),
            _ => ready!(Pin::new(&mut this.body).poll_frame(cx)),
        };
        let frame = match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    tail.sent += data.len() as u64;
                }
                if this.body.is_end_stream() {
                    tail.end = End::Complete;
                }
                if let (true, Some(trailers)) = (tail.exchange.grpc, frame.trailers_ref()) {
                    tail.exchange.trail.grpc_status = grpc::status(trailers);
                }
                Some(Ok(clean_trailers(frame)))
            }
            Some(Err(error)) => Some(tail.broken(error)),
            None => {
                tail.end = End::Complete;
                None
            }
        };
        if !matches!(frame, Some(Ok(_))) || tail.end != End::ClientGone {
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

/// The next frame of a stream, unless its route is gone.
fn unless_over(
    stay: &mut Stay,
    body: &mut Body,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    if stay.is_over() {
        return Poll::Ready(Some(Err(BodyError::Removed)));
    }
    match Pin::new(body).poll_frame(cx) {
        Poll::Pending => stay.poll_over(cx).map(|()| Some(Err(BodyError::Removed))),
        Poll::Ready(frame) => Poll::Ready(frame),
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
