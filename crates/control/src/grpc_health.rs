//! The health of the gateway itself by gRPC (`grpc.health.v1`), on the admin API beside `/readyz`.
//!
//! `Check` answers once, `Watch` each time it changes. The one service is the whole gateway, named by an empty string.
//! Messages are so small that they are read and written here: field 1 of the request is a string, field 1 of the answer an
//! enum (protobuf encoding, wire types 2 and 0).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::time::Sleep;

use crate::gateway::State;

/// How often a watched state is looked at.
const LOOK: Duration = Duration::from_millis(100);
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Codes of gRPC.
const OK: u16 = 0;
const INVALID_ARGUMENT: u16 = 3;
const NOT_FOUND: u16 = 5;

/// `ServingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Health {
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// `Check`.
pub(crate) async fn check(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    match service(&body) {
        None => refuse(INVALID_ARGUMENT, "the message is no HealthCheckRequest"),
        Some(b"") => call(Answers { state, last: None, service_known: true, watches: None, over: false }),
        Some(_) => refuse(NOT_FOUND, "the gateway is the one service, named by an empty string"),
    }
}

/// `Watch`.
pub(crate) async fn watch(Shared(state): Shared<Arc<State>>, body: Bytes) -> Response {
    let Some(service) = service(&body) else {
        return refuse(INVALID_ARGUMENT, "the message is no HealthCheckRequest");
    };
    let watches = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
    call(Answers { state, last: None, service_known: service.is_empty(), watches, over: false })
}

/// The messages of one call.
struct Answers {
    state: Arc<State>,
    last: Option<Health>,
    service_known: bool,
    /// None for a single answer.
    watches: Option<Pin<Box<Sleep>>>,
    over: bool,
}

impl Answers {
    fn now(&self) -> Health {
        match (self.service_known, self.state.ready.load(Ordering::Relaxed)) {
            (false, _) => Health::ServiceUnknown,
            (true, true) => Health::Serving,
            (true, false) => Health::NotServing,
        }
    }
}

impl HttpBody for Answers {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if this.watches.is_none() && this.last.is_some() {
            this.over = true;
            let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from(OK))]);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        loop {
            if let Some(sleep) = &mut this.watches {
                ready!(sleep.as_mut().poll(cx));
                sleep.as_mut().reset(tokio::time::Instant::now() + LOOK);
            }
            let now = this.now();
            if this.last != Some(now) {
                this.last = Some(now);
                // No compression, two bytes, field 1 as a number.
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, now as u8])))));
            }
        }
    }
}

fn call(answers: Answers) -> Response {
    ([(CONTENT_TYPE, "application/grpc")], Body::new(answers)).into_response()
}

fn refuse(code: u16, message: &'static str) -> Response {
    let kind = HeaderValue::from_static("application/grpc");
    let fields =
        [(CONTENT_TYPE, kind), (STATUS, HeaderValue::from(code)), (MESSAGE, HeaderValue::from_static(message))];
    fields.into_response()
}

/// The service that a request asks for.
fn service(body: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = body.split_at_checked(5)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *compressed != 0 || message.len() != length as usize {
        return None;
    }
    match message {
        [] => Some(b""),
        [0x0a, length, name @ ..] if usize::from(*length) == name.len() && *length < 0x80 => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_service_or_none() {
        assert_eq!(service(&[0, 0, 0, 0, 0]), Some(&b""[..]));
        assert_eq!(service(b"\x00\x00\x00\x00\x04\x0a\x02ab"), Some(&b"ab"[..]));
        for wrong in
            [&b""[..], b"\x01\x00\x00\x00\x00", b"\x00\x00\x00\x00\x05\x0a\x02ab", b"\x00\x00\x00\x00\x04\x0a\x03ab"]
        {
            assert_eq!(service(wrong), None);
        }
    }
}
