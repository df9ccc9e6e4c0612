//! A request on its way, by whichever version of HTTP its endpoint speaks.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Response};
use pylon_core::body::Body;
use pylon_http1::answer;

use crate::clocks::Clocks;
use crate::endpoint::Lease;
use crate::error::Fault;
use crate::h1;
use crate::h1::exchange::Asked;
use crate::h2;

/// A request that has been sent, or is being sent.
#[derive(Debug)]
pub(crate) enum Flight {
    Http1(h1::exchange::Flight),
    Http2(h2::exchange::Flight),
}

/// The head of its answer.
#[derive(Debug)]
pub(crate) enum Head {
    Http1(answer::Head),
    Http2(h2::exchange::Answered),
}

impl Head {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Http1(head) => head.status.as_u16(),
            Self::Http2(head) => head.status().as_u16(),
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        match self {
            Self::Http1(head) => &head.headers,
            Self::Http2(head) => head.headers(),
        }
    }
}

impl Flight {
    /// Goes on sending, until the head of the final answer is here.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>, asked: &Asked<'_>) -> Poll<Result<Head, Fault>> {
        match self {
            Self::Http1(flight) => flight.poll_head(cx, asked).map_ok(Head::Http1),
            Self::Http2(flight) => flight.poll_head(cx, asked).map_ok(Head::Http2),
        }
    }

    /// When the request's body last moved on, where it is a stream: the timers for the answer run from there.
    pub(crate) fn moved(&self) -> Option<Instant> {
        match self {
            Self::Http1(flight) => flight.moved(),
            Self::Http2(flight) => flight.moved(),
        }
    }

    /// Whether nothing can be sent because the client has not sent it yet.
    pub(crate) fn awaits_client(&self) -> bool {
        match self {
            Self::Http1(flight) => flight.awaits_client(),
            Self::Http2(flight) => flight.awaits_client(),
        }
    }

    /// The body of a request that was not looked at, where it is still whole.
    pub(crate) fn take_back(self) -> Option<Body> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(flight) => flight.take_back(),
        }
    }

    /// A timer fired before the head was here.
    pub(crate) fn gave_up(&self) {
        match self {
            // Its connection ends with it.
            Self::Http1(_) => {}
            Self::Http2(flight) => flight.gave_up(),
        }
    }

    /// The answer, by the head that [`Flight::poll_head`] gave.
    pub(crate) fn answer(
        self,
        head: Head,
        lease: Lease,
        clocks: Clocks,
        now: Instant,
    ) -> Result<Response<Body>, Fault> {
        match (self, head) {
            (Self::Http1(flight), Head::Http1(head)) => flight.answer(head, lease, clocks, now),
            (Self::Http2(flight), Head::Http2(head)) => Ok(flight.answer(head, lease, clocks)),
            _ => Err(Fault::Connect(io::ErrorKind::NotConnected.into())),
        }
    }
}
