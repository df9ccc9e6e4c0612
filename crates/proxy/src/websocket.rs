//! WebSocket (RFC 6455, RFC 8441): the route's permission, the client's handshake, and the switch of protocols.
//!
//! No other protocol is ever switched to. What a client sends behind its handshake goes nowhere before the service has
//! switched, and goes through everything else as the next request where it does not. Tunnels: `websocket/tunnel.rs`.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pylon_core::body::Body;
use pylon_core::exchange::{Exchange, Handshake};
use pylon_core::rejection::{REQUEST_METHOD, Rejection, UPSTREAM_PROTOCOL, WEBSOCKET_HANDSHAKE, WEBSOCKET_VERSION};
use pylon_core::short::FromScalar;
use pylon_core::units::{ByteSize, Span};
use pylon_core::{Request, Response};
use pylon_net::websocket;
use pylon_upstream::service_side::ServiceSide;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) mod tunnel;

const PROTOCOL: HeaderValue = HeaderValue::from_static(websocket::PROTOCOL);
const VERSION: HeaderValue = HeaderValue::from_static(websocket::VERSION);
const SWITCH: HeaderValue = HeaderValue::from_static("upgrade");

/// Whether a route lets WebSockets pass, and for how long. Short: `true` or `false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSocketSpec {
    /// Whether they pass. Default `true`. Example: `false`.
    #[serde(default = "yes")]
    pub on: bool,
    /// How long nothing may pass in either direction before the connection is closed; a ping counts. Default `5m`.
    /// Example: `1h`.
    #[serde(default = "idle")]
    pub idle: Span,
    /// How long a connection may last, however busy it is. Default: as long as it likes. Example: `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime: Option<Span>,
    /// The longest message, all its fragments together and as it is on the wire; a longer one closes the connection with
    /// 1009. Default: no limit, since none is held in memory. Example: `1MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message: Option<ByteSize>,
}

fn yes() -> bool {
    true
}

fn idle() -> Span {
    Span::from_secs(300)
}

impl FromScalar for WebSocketSpec {
    const EXPECTING: &'static str = "`true` or `false`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let on = text.parse().map_err(|_| format!("`{text}` is neither `true` nor `false`"))?;
        Ok(Self { on, idle: idle(), max_lifetime: None, max_message: None })
    }
}

/// A compiled `websocket`: what each tunnel of the route is held to.
#[derive(Debug, Clone, Copy)]
pub struct WebSocket {
    idle: Duration,
    max_lifetime: Option<Duration>,
    max_message: Option<u64>,
}

impl WebSocket {
    /// Compiles the permission; none where it is off.
    pub fn compile(spec: &WebSocketSpec) -> Option<Self> {
        spec.on.then(|| Self {
            idle: spec.idle.duration(),
            max_lifetime: spec.max_lifetime.map(Span::duration),
            max_message: spec.max_message.map(ByteSize::bytes),
        })
    }
}

/// What a service's switch comes to until it can be carried out.
#[derive(Debug)]
struct Switch {
    service: ServiceSide,
    rules: WebSocket,
    /// What the service says of protocol and extensions: only it and the client have a say in that.
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// The handshake of a request, where it has one: before hop-by-hop fields go. Whether it may count is the route's matter.
///
/// Only a sole `Upgrade: websocket` is one. What else stands there is ignored, as it may be (RFC 9110 §7.8).
pub(crate) fn asked(request: &Request) -> Option<Box<Handshake>> {
    let headers = request.headers();
    if request.version() < Version::HTTP_11
        || !is_sole(headers, UPGRADE, |value| value.eq_ignore_ascii_case(b"websocket"))
    {
        return None;
    }
    let mut options = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    options
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        .then(|| Box::new(Handshake { key: check(request), allowed: false }))
}

/// RFC 6455 §4.2.1: what a client has to send. Anything more belongs to it and the service.
fn check(request: &Request) -> Result<HeaderValue, Rejection> {
    let headers = request.headers();
    if *request.method() != Method::GET {
        return Err(WEBSOCKET_HANDSHAKE.because("the method is not GET"));
    }
    if !request.body().is_empty() {
        return Err(WEBSOCKET_HANDSHAKE.because("the request has a body"));
    }
    if !is_sole(headers, SEC_WEBSOCKET_VERSION, |value| value == websocket::VERSION.as_bytes()) {
        return Err(WEBSOCKET_VERSION
            .with_header(SEC_WEBSOCKET_VERSION, VERSION)
            .with_header(UPGRADE, PROTOCOL)
            .with_header(CONNECTION, SWITCH));
    }
    if request.version() == Version::HTTP_2 {
        return Ok(websocket::fresh_key());
    }
    if !is_sole(headers, SEC_WEBSOCKET_KEY, websocket::is_key) {
        return Err(WEBSOCKET_HANDSHAKE.because("`Sec-WebSocket-Key` is not 16 bytes in base64"));
    }
    headers.get(SEC_WEBSOCKET_KEY).cloned().ok_or_else(|| Rejection::from(&WEBSOCKET_HANDSHAKE))
}

fn is_sole(headers: &HeaderMap, name: HeaderName, holds: impl FnOnce(&[u8]) -> bool) -> bool {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    second.is_none() && first.is_some_and(|value| holds(value.as_bytes()))
}

/// Lets a handshake count where the route allows it, behind the last policy of the way in.
pub(crate) fn permit(rules: Option<&WebSocket>, request: &mut Request, cx: &mut Exchange) -> Result<(), Rejection> {
    let Some(handshake) = &mut cx.websocket else { return Ok(()) };
    if rules.is_none() {
        // Without its `Upgrade` a GET of HTTP/1.1 is one like any other; a CONNECT of HTTP/2 is nothing else.
        return if cx.version == Version::HTTP_2 {
            Err(REQUEST_METHOD.because("this route takes no WebSocket"))
        } else {
            Ok(())
        };
    }
    let key = handshake.key.clone()?;
    handshake.allowed = true;
    // Whatever `Connection` or a policy has done to them: the service is to prove this key.
    request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
    request.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
    Ok(())
}

/// What a service's answer to a handshake comes to. Hop-by-hop fields are gone from it.
pub(crate) fn received(response: &mut Response, rules: Option<&WebSocket>, cx: &Exchange) -> Result<(), Rejection> {
    if cx.websocket.is_none() {
        return Ok(());
    }
    let is_tunnel = matches!(response.body(), Body::Tunnel(_));
    if !is_tunnel && cx.version == Version::HTTP_2 && response.status().is_success() {
        // Passed on, it would say that the WebSocket stands (RFC 8441 §5).
        return Err(
            UPSTREAM_PROTOCOL.privately("the service answered a WebSocket handshake by a success that is no 101")
        );
    }
    if let (true, Some(rules)) = (is_tunnel, rules)
        && let Body::Tunnel(service) = std::mem::take(response.body_mut())
        && let Ok(service) = service.downcast::<ServiceSide>()
    {
        let of_websocket = response.headers().iter().filter(|(name, _)| is_of_websocket(name));
        let fields = of_websocket.map(|(name, value)| (name.clone(), value.clone())).collect();
        *response.body_mut() = Body::Tunnel(Box::new(Switch { service: *service, rules: *rules, fields }));
    }
    Ok(())
}

/// Gives the head of a switch the form in which the client gets it, behind the last policy of the way out, and answers with
/// its status. None where it is another answer: one that took its place has closed the tunnel.
pub(crate) fn finish(response: &mut Response, cx: &Exchange) -> Option<StatusCode> {
    let Body::Tunnel(switch) = response.body_mut() else { return None };
    let fields = std::mem::take(&mut switch.downcast_mut::<Switch>()?.fields);
    let headers = response.headers_mut();
    let doomed: Vec<_> = headers.keys().filter(|name| is_of_websocket(name)).cloned().collect();
    for name in doomed.iter().chain([&CONTENT_LENGTH, &TRANSFER_ENCODING]) {
        headers.remove(name);
    }
    let http2 = cx.version == Version::HTTP_2;
    for (name, value) in fields {
        // On HTTP/2 there was no key of the client's to prove (RFC 8441 §5.1).
        if !(http2 && name == SEC_WEBSOCKET_ACCEPT) {
            headers.append(name, value);
        }
    }
    if http2 {
        return Some(StatusCode::OK);
    }
    headers.insert(CONNECTION, SWITCH);
    headers.insert(UPGRADE, PROTOCOL);
    Some(StatusCode::SWITCHING_PROTOCOLS)
}

fn is_of_websocket(name: &HeaderName) -> bool {
    name.as_str().starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(fields: &[(&'static str, &'static str)]) -> Option<Result<HeaderValue, &'static str>> {
        let mut request = Request::default();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        asked(&request).map(|handshake| handshake.key.map_err(|no| no.reason.code))
    }

    const UP: [(&str, &str); 2] = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const V13: (&str, &str) = ("sec-websocket-version", "13");

    #[test]
    fn only_a_sole_upgrade_to_websocket_is_a_handshake() {
        assert!(handshake(&[UP[0], UP[1], KEY, V13]).unwrap().is_ok());
        for fields in [
            &[UP[0], KEY, V13][..],
            &[UP[1], KEY, V13],
            &[("connection", "upgraded"), UP[1], KEY, V13],
            &[UP[0], UP[1], ("upgrade", "h2c"), KEY, V13],
            &[UP[0], ("upgrade", "websocket, h2c"), KEY, V13],
            &[UP[0], ("upgrade", "websocket/13"), KEY, V13],
        ] {
            assert_eq!(handshake(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn a_handshake_has_one_key_and_one_version() {
        let bad = Some(Err("websocket.handshake"));
        assert_eq!(handshake(&[UP[0], UP[1], V13]), bad);
        assert_eq!(handshake(&[UP[0], UP[1], V13, KEY, KEY]), bad);
        assert_eq!(handshake(&[UP[0], UP[1], V13, ("sec-websocket-key", "c2hvcnQ=")]), bad);
        for version in [&[][..], &[("sec-websocket-version", "8")], &[V13, V13], &[("sec-websocket-version", "13, 8")]]
        {
            let fields: Vec<_> = UP.iter().chain([&KEY]).chain(version).copied().collect();
            assert_eq!(handshake(&fields), Some(Err("websocket.version")), "{version:?}");
        }
    }
}
