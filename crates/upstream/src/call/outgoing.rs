//! A request on its way, kept until it cannot be sent again.

use http::{HeaderMap, Method, header};
use http_body::Body as _;
use pylon_core::Request;
use pylon_core::body::Body;
use pylon_core::spare;

use super::retry::Retry;
use crate::h1::encode::Framing;
use crate::replay::KeptBody;

/// A request on its way, kept until it cannot be sent again.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) framing: Framing,
    pub(super) expects: bool,
    /// Whether `outbound` has been at the fields.
    pub(super) dressed: bool,
    /// A stream of which what was sent is held, so that it can be sent again.
    kept: Option<Box<KeptBody>>,
}

impl Outgoing {
    pub(super) fn new(request: Request) -> Self {
        let (parts, body) = request.into_parts();
        let framing = framing(&body, &parts.headers);
        let body = if framing == Framing::Empty { Body::Empty } else { body };
        let expects = matches!(body, Body::Stream(_)) && parts.headers.contains_key(header::EXPECT);
        Self { method: parts.method, headers: parts.headers, body, framing, expects, dressed: false, kept: None }
    }

    /// Holds what is sent of a stream, where a retry could use it and it is not known to be too long. What `outbound` does to
    /// the body comes before.
    pub(super) fn keep(&mut self, retry: Option<&Retry>) {
        let (Some(retry), Body::Stream(stream), None) = (retry, &self.body, &self.kept) else { return };
        let fits = stream.size_hint().lower() <= retry.max_body as u64;
        if fits && (retry.any || is_idempotent(&self.method)) {
            self.kept = Some(Box::new(KeptBody::of(&mut self.body, retry.max_body)));
        }
    }

    /// Whether all of the body is here or can be had again.
    pub(super) fn is_whole(&self) -> bool {
        self.kept.as_ref().map_or_else(|| self.can_be_sent_again(), |kept| kept.is_whole())
    }

    /// Takes the body back from whoever has it.
    pub(super) fn restore(&mut self) {
        if let Some(kept) = &self.kept {
            // The client may have been told to go on.
            self.expects &= !kept.was_begun();
            self.body = kept.again();
        }
    }

    /// Whether the body is no stream, which one attempt alone could send.
    pub(super) fn is_at_hand(&self) -> bool {
        match self.body {
            Body::Empty => self.framing == Framing::Empty,
            Body::Full(_) => true,
            Body::Stream(_) | Body::Tunnel(_) => false,
        }
    }

    /// The same request for a hedge.
    pub(super) fn twin(&self) -> Option<Self> {
        let body = match &self.body {
            Body::Empty => Body::Empty,
            Body::Full(bytes) => Body::Full(bytes.clone()),
            Body::Stream(_) | Body::Tunnel(_) => return None,
        };
        let (method, headers) = (self.method.clone(), self.headers.clone());
        Some(Self {
            method,
            headers,
            body,
            framing: self.framing,
            expects: self.expects,
            dressed: self.dressed,
            kept: None,
        })
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

/// Whoever comes next has a use for the map.
impl Drop for Outgoing {
    fn drop(&mut self) {
        spare::give_map(std::mem::take(&mut self.headers));
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
