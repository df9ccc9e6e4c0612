//! Extended CONNECT (RFC 8441): a stream that becomes a WebSocket.

use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Method, Request};
use pylon_http2::{Protocol, RecvStream, SendStream};

use super::Open;
use crate::client_body::Source;
use crate::client_side::ClientSide;
use crate::drain::Drain;
use crate::handler::Tunnel;
use crate::websocket;

/// What a CONNECT for a WebSocket may become.
pub(super) struct Switch {
    stream: RecvStream,
    drain: Arc<Drain>,
}

impl Switch {
    /// What follows the answer that switches is a task of its own.
    pub(super) fn run(self, tunnel: impl Tunnel, sending: SendStream, open: Open) {
        let Self { stream, drain } = self;
        tokio::spawn(tunnel.run(ClientSide::http2(stream, sending, open), drain));
    }
}

/// A request as the gateway knows it, and what it may become. A CONNECT for a WebSocket takes the form that it has on
/// HTTP/1.1; every other CONNECT stays what it is, and is refused.
pub(super) fn take(mut request: Request<RecvStream>, drain: &Arc<Drain>) -> (Request<Source>, Option<Switch>) {
    if *request.method() != Method::CONNECT || !asks_for_websocket(&mut request) {
        return (request.map(Source::Http2), None);
    }
    *request.method_mut() = Method::GET;
    // No other request of HTTP/2 can have these: the codec refuses them (RFC 9113 §8.2.2).
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static(websocket::PROTOCOL));
    let (head, stream) = request.into_parts();
    let switch = Switch { stream, drain: Arc::clone(drain) };
    (Request::from_parts(head, Source::Nothing), Some(switch))
}

fn asks_for_websocket(request: &mut Request<RecvStream>) -> bool {
    let protocol = request.extensions_mut().remove::<Protocol>();
    protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes()))
}
