//! Extended CONNECT (RFC 8441): a stream that becomes a WebSocket.

use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::{Counted, Open};
use crate::client_side::ClientSide;
use crate::drain::Drain;
use crate::handler::{Handler, Tunnel as _};
use crate::websocket;

/// An answer as the codec gets it. Where it is a switch of protocols, what follows is a task of its own.
pub(super) fn deliver<H: Handler>(
    mut answer: http::Response<H::Body>,
    upgrade: Option<(OnUpgrade, Arc<Drain>)>,
    open: Open,
) -> http::Response<Counted<H::Body>> {
    let Some((upgrade, drain)) = upgrade else { return answer.map(|body| Counted::new(body, Some(open))) };
    let Some(tunnel) = H::switched(&mut answer) else { return answer.map(|body| Counted::new(body, Some(open))) };
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            tunnel.run(ClientSide::http2(stream, open), &drain).await;
        }
    });
    answer.map(|body| Counted::new(body, None))
}

/// What a CONNECT may become, where it is one for a WebSocket: then it takes the form that it has on HTTP/1.1. Every other
/// CONNECT stays what it is, and is refused.
pub(super) fn upgrade(request: &mut http::Request<Incoming>) -> Option<OnUpgrade> {
    if *request.method() != Method::CONNECT {
        return None;
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
    let protocol = request.extensions_mut().remove::<Protocol>()?;
    if !protocol.as_str().eq_ignore_ascii_case(websocket::PROTOCOL) {
        return None;
    }
    *request.method_mut() = Method::GET;
    // No other request of HTTP/2 can have these: h2 refuses them (RFC 9113 §8.2.2).
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(websocket::PROTOCOL));
    Some(upgrade)
}
