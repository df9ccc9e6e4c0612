//! Keeps a request so that it can be sent to another upstream: its head, and of its body what [`KeptBody`] holds.

use http::header::EXPECT;
use http::{HeaderMap, Method};
use pylon_core::Request;
use pylon_upstream::replay::KeptBody;

/// A request that can be had again.
#[derive(Debug)]
pub(crate) struct Kept {
    method: Method,
    headers: HeaderMap,
    body: KeptBody,
}

impl Kept {
    /// Keeps `request`, of whose body up to `cap` bytes are held.
    pub(crate) fn of(request: &mut Request, cap: usize) -> Self {
        let body = KeptBody::of(request.body_mut(), cap);
        Self { method: request.method().clone(), headers: request.headers().clone(), body }
    }

    /// Whether the whole of it can be had again.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// The request once more, taken from whoever has it.
    pub(crate) fn again(&self) -> Request {
        let mut headers = self.headers.clone();
        if self.body.was_begun() {
            // The client has been told to go on.
            headers.remove(EXPECT);
        }
        let mut request = Request::new(self.body.again());
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = headers;
        request
    }
}
