//! Sends the request to one upstream and gives its answer back, without what was meant for that hop alone.

use std::sync::Arc;

use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;
use pylon_core::{Request, Response};
use pylon_upstream::call::CallOptions;
use pylon_upstream::error::CallError;
use pylon_upstream::upstream::Upstream;

use crate::hop;
use crate::websocket::{self, WebSocket};

/// A compiled `forward`.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What the route says of the call.
    pub options: CallOptions,
}

impl Forward {
    /// Sends the request, which is taken out of its place.
    pub(crate) fn send<'a>(
        &'a self,
        request: &mut Request,
        cx: &'a mut Exchange,
    ) -> impl Future<Output = Result<Response, CallError>> + Send + use<'a> {
        self.upstream.call(std::mem::take(request), cx, &self.options)
    }

    /// What the client is to see of the upstream's answer, or of its failure.
    pub(crate) fn receive(
        answer: Result<Response, CallError>,
        rules: Option<&WebSocket>,
        cx: &Exchange,
    ) -> Result<Response, Rejection> {
        let mut response = answer?;
        hop::strip_response(response.headers_mut());
        websocket::received(&mut response, rules, cx)?;
        Ok(response)
    }
}
