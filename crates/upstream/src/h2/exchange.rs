//! One request on a stream, until the head of its answer is here.

use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Response, StatusCode, Version};
use pylon_core::body::Body;
use pylon_http1::answer::{MAX_FIELDS, Refusal};
use pylon_http2::client::Answer;
use pylon_http2::{Error, RecvStream, SendStream};

use super::body::AnswerBody;
use super::conn::Place;
use super::encode;
use super::tunnel::{self, Tunnelled};
use super::upload::{Progress, Upload};
use crate::clocks::Clocks;
use crate::endpoint::Lease;
use crate::error::Fault;
use crate::h1::encode::{Framing, RequestHead};
use crate::h1::exchange::{Asked, MAX_INTERIM, wire};
use crate::head::HeadError;
use crate::service_side::ServiceSide;

/// A request that has been sent, or is being sent.
#[derive(Debug)]
pub(crate) struct Flight {
    answer: Answer,
    upload: Option<Box<Upload>>,
    place: Place,
    /// The client's way to the service, where the stream is to become a WebSocket.
    tunnel: Option<SendStream>,
    /// How many interim answers have come.
    interim: u8,
}

/// The head of an answer, with its body to come.
pub(crate) type Answered = Response<RecvStream>;

impl Flight {
    /// Sends what can be sent at once. A stream is taken out of `body`; bytes at hand stay there for another attempt.
    pub(crate) fn launch(place: Place, head: &RequestHead<'_>, tls: bool, body: &mut Body) -> Result<Self, Fault> {
        if head.websocket && !place.takes_websockets() {
            return Err(Fault::Alone);
        }
        let sendable = encode::check(head, tls)?;
        let ends = head.framing == Framing::Empty && !head.websocket;
        let unsent = |error: Error| Fault::Unsent(error.into());
        let (answer, stream) = place.send(&sendable, ends).map_err(unsent)?;
        let (tunnel, upload) = if head.websocket {
            (Some(stream), None)
        } else {
            (None, Upload::begin(stream, body, head.framing).map_err(unsent)?)
        };
        Ok(Self { answer, upload, place, tunnel, interim: 0 })
    }

    /// Goes on sending, until the head of the final answer is here.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, asked: &Asked<'_>) -> Poll<Result<Answered, Fault>> {
        if let Some(upload) = &mut self.upload {
            match upload.poll(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Body(error))),
                Poll::Ready(Ok(Progress::Cut)) => self.upload = None,
                // One that is done stays, since it knows when the body last moved.
                Poll::Ready(Ok(Progress::Sent)) | Poll::Pending => {}
            }
        }
        while let Some((status, headers)) = self.answer.interim() {
            self.interim = self.interim.saturating_add(1);
            if status == StatusCode::SWITCHING_PROTOCOLS {
                // HTTP/2 has no such answer (RFC 9113 §8.6), and a client of HTTP/1.1 would take it for a switch.
                return Poll::Ready(Err(HeadError::Switched.into()));
            }
            if self.interim > MAX_INTERIM {
                return Poll::Ready(Err(HeadError::Interim.into()));
            }
            // RFC 9110 §15.2: not to be sent to a client of HTTP/1.0.
            if status != StatusCode::CONTINUE && asked.version != Version::HTTP_10 {
                asked.interim.push(&wire(status, &headers));
            }
        }
        match self.answer.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(mut head)) => {
                if let Some(key) = asked.key.filter(|_| self.tunnel.is_some()) {
                    tunnel::agreed(&mut head, key);
                }
                Poll::Ready(check(head, asked.max_head))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(fault(error, self.interim > 0))),
        }
    }

    /// When the request's body last moved on, where it is a stream.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.upload.as_ref().and_then(|upload| upload.moved())
    }

    /// Whether nothing can be sent because the client has not sent it yet.
    pub(crate) fn awaits_client(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.awaits_client())
    }

    /// The body of a request that was not looked at, where it is still whole.
    pub(crate) fn take_back(self) -> Option<Body> {
        self.upload.and_then(|upload| upload.take_back())
    }

    /// A timer fired: whoever is this silent gets no further request on this connection.
    pub(crate) fn gave_up(&self) {
        self.place.conn().retire();
    }

    /// The answer, whose body goes on sending what is left of the request.
    pub(crate) fn answer(self, head: Answered, mut lease: Lease, clocks: Clocks) -> Response<Body> {
        let Self { upload, place, tunnel, .. } = self;
        let switches = head.status() == StatusCode::SWITCHING_PROTOCOLS;
        head.map(|stream| {
            match tunnel {
                Some(sending) if switches => {
                    let side = ServiceSide::http2(Tunnelled::new(sending, stream, place, lease));
                    return Body::Tunnel(Box::new(side));
                }
                // Nothing follows a handshake that was refused.
                Some(mut sending) => drop(sending.end()),
                None => {}
            }
            if stream.is_end_stream() {
                lease.ended(None);
                Body::Empty
            } else {
                Body::stream(AnswerBody::new(stream, upload, place, lease, clocks))
            }
        })
    }
}

/// Holds an answer to the same limits as one of HTTP/1.
fn check(head: Answered, max_head: usize) -> Result<Answered, Fault> {
    if head.headers().len() > MAX_FIELDS {
        return Err(HeadError::from(Refusal::TooMany).into());
    }
    if length(head.headers()) > max_head {
        let fields = head.headers().iter().map(|(name, value)| (name, name.as_str().len().saturating_add(value.len())));
        let largest = fields.max_by_key(|(_, length)| *length).map(|(name, length)| (name.clone(), length));
        return Err(HeadError::from(Refusal::TooLarge { limit: max_head, largest }).into());
    }
    Ok(head)
}

/// As long as it would be in HTTP/1.
fn length(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4)).sum()
}

/// What an error of the stream comes to.
fn fault(error: Error, answered: bool) -> Fault {
    if error.is_refused() && !answered {
        return Fault::Refused(error.to_string());
    }
    if error.is_fault_of_peer() {
        return Fault::Protocol(error.to_string());
    }
    let answered = answered || matches!(error, Error::Reset { .. });
    Fault::Reset { source: error.into(), answered }
}
