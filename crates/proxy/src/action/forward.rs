//! Sends the request to one upstream and gives its answer back, without what was meant for that hop alone.

use std::sync::Arc;

use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;
use pylon_core::{Request, Response};
use pylon_upstream::call::CallOptions;
use pylon_upstream::upstream::Upstream;

use crate::hop;

/// A compiled `forward`.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// What the route says of the call.
    pub options: CallOptions,
}

impl Forward {
    pub(crate) async fn answer(&self, request: Request, cx: &mut Exchange) -> Result<Response, Rejection> {
        let mut response = self.upstream.call(request, cx, &self.options).await?;
        hop::strip_response(response.headers_mut());
        Ok(response)
    }
}
