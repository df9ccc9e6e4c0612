// xtask: table
//! Every way in which the gateway itself says no, declared once: code, status, title and the rule behind it.
//!
//! `proxy/reject` is the only writer of error bodies (RFC 9457). The code is stable: it stands in the body's `code`
//! member, in the access log and in metrics, and an upstream cannot fake it there.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

/// One kind of refusal.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Stable and unique: `area.what`.
    pub code: &'static str,
    /// The status that the client sees.
    pub status: u16,
    /// A short sentence for people, the same each time.
    pub title: &'static str,
    /// The rule that this follows: RFC section, or the key of the document.
    pub rule: &'static str,
    /// Position in [`ALL`], for metrics.
    pub index: usize,
}

impl Reason {
    /// The status that the client sees.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// This refusal with a sentence of its own. It goes to the log and the client: no secrets, no internals.
    pub fn because(&'static self, detail: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { detail: Some(detail.into()), ..Rejection::from(self) }
    }

    /// This refusal with a sentence that goes to the log and never to the client.
    pub fn privately(&'static self, note: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { note: Some(note.into()), ..Rejection::from(self) }
    }

    /// This refusal with a header of its own.
    pub fn with_header(&'static self, name: HeaderName, value: HeaderValue) -> Rejection {
        Rejection::from(self).with_header(name, value)
    }
}

/// One refusal of one request.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// Why.
    pub reason: &'static Reason,
    /// What in particular, for client and log.
    pub detail: Option<Cow<'static, str>>,
    /// What in particular, for the log alone.
    pub note: Option<Cow<'static, str>>,
    /// What the client is told in place of the reason's status, where a person has written that.
    pub told: Option<Told>,
    /// Headers that belong to the answer, such as `Allow` or `Retry-After`.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 1]>,
}

/// What a client is told by a refusal whose status is written in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The status; none where it follows from `grpc`.
    pub status: Option<u16>,
    /// The code for calls of gRPC; none where it follows from `status`.
    pub grpc: Option<u8>,
}

impl Rejection {
    /// The same with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl From<&'static Reason> for Rejection {
    fn from(reason: &'static Reason) -> Self {
        Self { reason, detail: None, note: None, told: None, headers: SmallVec::new() }
    }
}

macro_rules! rejections {
    ($( $(#[$doc:meta])* $NAME:ident = $code:literal, $status:literal, $title:literal, $rule:literal; )*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "only counted")]
        #[repr(usize)]
        enum Index { $($NAME),* }

        $(
            $(#[$doc])*
            pub static $NAME: Reason =
                Reason { code: $code, status: $status, title: $title, rule: $rule, index: Index::$NAME as usize };
        )*

        /// Every refusal there is, in the order of this table.
        pub static ALL: &[&Reason] = &[$(&$NAME),*];
    };
}

rejections! {
    /// Method, target or version could not be made sense of.
    REQUEST_TARGET = "request.target", 400, "The request target is not valid", "RFC 9112 §3.2";
    /// The path has no single meaning.
    REQUEST_PATH = "request.path", 400, "The path is not valid", "RFC 3986 §6.2";
    /// The path has an encoded slash and the route does not allow it.
    REQUEST_ENCODED_SLASH = "request.encoded_slash", 400, "The path has an encoded slash", "route key `encoded_slash`";
    /// No host, several, or one that is no host name.
    REQUEST_HOST = "request.host", 400, "The Host header is missing or not valid", "RFC 9112 §3.2";
    /// Length and end of the body are ambiguous.
    REQUEST_FRAMING = "request.framing", 400, "The request can be read in more than one way", "RFC 9112 §11.2";
    /// The host makes demands in the handshake that this connection has not met.
    REQUEST_MISDIRECTED = "request.misdirected", 421, "This connection is not for this host", "RFC 9110 §15.5.20";
    /// The request has passed through this gateway before.
    REQUEST_LOOP = "request.loop", 508, "The request came back to this gateway", "RFC 9110 §7.6.3";
    /// The head is over its limit.
    REQUEST_HEADERS_TOO_LARGE = "request.headers_too_large", 431, "The request headers are too large", "RFC 6585 §5";
    /// The target is over its limit.
    REQUEST_URI_TOO_LONG = "request.uri_too_long", 414, "The request target is too long", "RFC 9110 §15.5.15";
    /// The body is over its limit.
    REQUEST_BODY_TOO_LARGE = "request.body_too_large", 413, "The request body is too large", "RFC 9110 §15.5.14";
    /// The client was too slow in sending its request.
    REQUEST_TIMEOUT = "request.timeout", 408, "The request took too long to arrive", "RFC 9110 §15.5.9";
    /// The client's body broke off.
    REQUEST_BODY_BROKEN = "request.body_broken", 400, "The request body broke off", "RFC 9112 §8";
    /// `Expect` holds something else than `100-continue`.
    REQUEST_EXPECTATION = "request.expectation", 417, "The expectation cannot be met", "RFC 9110 §10.1.1";
    /// A method that a gateway does not forward.
    REQUEST_METHOD = "request.method", 501, "The method is not supported", "RFC 9110 §9.3.6";
    /// A handshake for a WebSocket that does not keep to the rules.
    WEBSOCKET_HANDSHAKE = "websocket.handshake", 400, "The WebSocket handshake is not valid", "RFC 6455 §4.2.1";
    /// A handshake for another version of WebSocket.
    WEBSOCKET_VERSION = "websocket.version", 426, "This version of WebSocket is not spoken", "RFC 6455 §4.2.2";
    /// No route matches.
    ROUTE_NOT_FOUND = "route.not_found", 404, "No route matches this request", "RFC 9110 §15.5.5";
    /// Routes match but for the method.
    ROUTE_METHOD = "route.method", 405, "The method is not allowed here", "RFC 9110 §15.5.6";
    /// The rewritten path would not be valid.
    ROUTE_REWRITE = "route.rewrite", 400, "The path cannot be rewritten", "route key `rewrite`";
    /// The address of the client is not allowed.
    IP_DENIED = "ip_filter.denied", 403, "This address is not allowed", "policy `ip_filter`";
    /// Another site has a browser send it.
    CSRF_CROSS_SITE = "csrf.cross_site", 403, "This request comes from another site", "policy `csrf`";
    /// The page that sends it has not copied the cookie.
    CSRF_TOKEN = "csrf.token", 403, "The token of the page is missing or wrong", "policy `csrf`";
    /// No credential came where one is demanded.
    CALLER_MISSING = "caller.missing", 401, "Credentials are required", "RFC 9110 §15.5.2";
    /// A credential came and proves nothing. What is wrong with it stands in the log alone.
    CALLER_INVALID = "caller.invalid", 401, "The credentials are not valid", "RFC 9110 §15.5.2";
    /// Whether a credential is good cannot be found out: who would know does not answer.
    CALLER_UNKNOWN = "caller.unknown", 503, "The credentials cannot be checked now", "RFC 9110 §15.6.4";
    /// What a token is cannot be found out: the server that would know does not answer.
    INTROSPECT_UNAVAILABLE = "introspect.unavailable", 503, "The token cannot be checked now", "policy `introspect`";
    /// The caller may not do this.
    CALLER_FORBIDDEN = "caller.forbidden", 403, "This is not allowed to the caller", "RFC 9110 §15.5.4";
    /// The service that is asked for a verdict says no.
    EXTERNAL_DENIED = "external.denied", 403, "This is not allowed", "policy `external`";
    /// The service that is asked for a verdict gives none.
    EXTERNAL_UNAVAILABLE = "external.unavailable", 503, "Whether this is allowed cannot be found out now", "policy `external`";
    /// What comes back from an identity provider belongs to no login of this browser.
    SESSION_LOGIN = "session.login", 400, "This login cannot be finished", "RFC 9700 §4.7";
    /// The identity provider did not log the user in, or another site asked for what only the user may.
    SESSION_REFUSED = "session.refused", 403, "This was refused", "RFC 6749 §4.1.2.1";
    /// What ends a session at the identity provider's word is not good.
    SESSION_LOGOUT = "session.logout", 400, "The logout token is not valid", "OpenID Connect Back-Channel Logout 1.0 §2.6";
    /// No token can be signed for the service.
    MINT_UNAVAILABLE = "mint.unavailable", 503, "The identity for the service cannot be made now", "policy `mint`";
    /// The route is under maintenance.
    MAINTENANCE = "maintenance.on", 503, "Under maintenance", "policy `maintenance`";
    /// The request is over a limit of the route.
    LIMIT_HEADERS = "request_limits.headers", 431, "The request headers are too large", "policy `request_limits`";
    /// The body is over a limit of the route.
    LIMIT_BODY = "request_limits.body", 413, "The request body is too large", "policy `request_limits`";
    /// The target is over a limit of the route.
    LIMIT_URI = "request_limits.uri", 414, "The request target is too long", "policy `request_limits`";
    /// The method or content type is not among those allowed.
    LIMIT_CONTENT_TYPE = "request_limits.content_type", 415, "This content type is not accepted", "policy `request_limits`";
    /// A fault was asked for.
    FAULT_INJECTED = "fault.injected", 503, "A fault was injected", "policy `fault`";
    /// No endpoint is known: not resolved yet, or none left.
    UPSTREAM_NO_ENDPOINT = "upstream.no_endpoint", 503, "The service has no endpoint", "RFC 9110 §15.6.4";
    /// No token or password is at hand for the service.
    UPSTREAM_CREDENTIAL = "upstream.credential", 503, "The gateway has no credential for the service", "upstream key `outbound`";
    /// A breaker is open: so many calls failed that no more are made for a while.
    UPSTREAM_OPEN = "upstream.open", 503, "The service is given time to recover", "key `breaker`";
    /// No connection could be made.
    UPSTREAM_CONNECT = "upstream.connect", 502, "The service cannot be reached", "RFC 9110 §15.6.3";
    /// The service cannot be verified, or will not have us.
    UPSTREAM_TLS = "upstream.tls", 502, "No secure connection to the service could be made", "upstream key `tls`";
    /// The connection broke before the answer.
    UPSTREAM_RESET = "upstream.reset", 502, "The service closed the connection", "RFC 9110 §15.6.3";
    /// The answer broke the protocol.
    UPSTREAM_PROTOCOL = "upstream.protocol", 502, "The service gave an invalid answer", "RFC 9110 §15.6.3";
    /// The head of the answer is over its limit.
    UPSTREAM_HEADERS_TOO_LARGE = "upstream.headers_too_large", 502, "The headers of the answer are too large", "limits key `response_headers`";
    /// A timer fired while waiting for the upstream.
    UPSTREAM_TIMEOUT = "upstream.timeout", 504, "The service did not answer in time", "RFC 9110 §15.6.5";
    /// As much is under way at the upstream as may be, and there was no turn in time.
    UPSTREAM_OVERLOADED = "upstream.overloaded", 503, "The service has too much to do", "upstream keys `concurrency` and `pool.max_connections`";
    /// The gateway has too much to do.
    OVERLOADED = "gateway.overloaded", 503, "The gateway is overloaded", "RFC 9110 §15.6.4";
    /// A fault of the gateway itself.
    INTERNAL = "gateway.internal", 500, "The gateway failed", "RFC 9110 §15.6.1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_statuses_are_errors() {
        for (i, reason) in ALL.iter().enumerate() {
            assert_eq!(reason.index, i);
            assert!((400..600).contains(&reason.status), "{}", reason.code);
            assert!(reason.code.contains('.') && !reason.title.ends_with('.'), "{}", reason.code);
            assert_eq!(ALL.iter().filter(|other| other.code == reason.code).count(), 1, "{}", reason.code);
        }
    }
}
