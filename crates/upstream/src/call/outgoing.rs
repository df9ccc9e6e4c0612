//! A request on its way, kept until it cannot be sent again.

use http::{HeaderMap, Method, header};
use http_body::Body as _;
use pylon_core::Request;
use pylon_core::body::Body;

use crate::h1::encode::Framing;

/// A request on its way, kept until it cannot be sent again.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) framing: Framing,
    pub(super) expects: bool,
    /// Whether `outbound` has been at the fields.
    pub(super) dressed: bool,
}

impl Outgoing {
    pub(super) fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let framing = framing(&body, &parts.headers);
        let body = if framing == Framing::Empty { Body::Empty } else { body };
        let expects = matches!(body, Body::Stream(_)) && parts.headers.contains_key(header::EXPECT);
        Self { method: parts.method, headers: parts.headers, body, framing, expects, dressed: false }
    }

    /// Whether the whole body is still here.
    pub(super) fn can_be_sent_again(&self) -> bool {
        match self.body {
            Body::Empty => self.framing == Framing::Empty,
            // A stream that has been sent from is gone from here.
            Body::Full(_) | Body::Stream(_) => true,
            Body::Tunnel(_) => false,
        }
    }
}

/// How the body is delimited: by what it is, not by what the fields claim. A `Content-Length` counts only for a stream
/// that does not know its own length, and is enforced while it is sent.
pub(super) fn framing(body: &Body, headers: &HeaderMap) -> Framing {
    let length = match body {
        Body::Empty | Body::Tunnel(_) => Some(0),
        Body::Full(bytes) => Some(bytes.len() as u64),
        Body::Stream(stream) if stream.is_end_stream() => Some(0),
        Body::Stream(stream) => stream.size_hint().exact().or_else(|| {
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok())
        }),
    };
    match length {
        Some(0) => Framing::Empty,
        Some(length) => Framing::Fixed(length),
        None => Framing::Chunked,
    }
}

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}
