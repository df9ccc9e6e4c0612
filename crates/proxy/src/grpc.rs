//! gRPC over HTTP/2: what its clients understand of a refusal, how long they wait, and how a call ended.
//!
//! A refusal is `200` with `grpc-status` and `grpc-message` in the head and no body ("Trailers-Only" of the gRPC protocol);
//! 0 is never made up. `grpc-timeout` bounds the whole call, as the key `timeout.total` does.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::Response;
use pylon_core::body::Body;
use pylon_core::rejection::{INTERNAL, Reason, Rejection, Told};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Codes of gRPC (its status codes document), as far as the gateway gives them.
mod code {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

/// Whether a request is a call of gRPC: `application/grpc`, with a suffix or parameters or without.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) else { return false };
    let Some((kind, rest)) = kind.split_at_checked(b"application/grpc".len()) else { return false };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// How long the client waits: at most eight digits and a unit. None where nothing is written, or nothing that counts.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number.saturating_mul(3600)),
        b'M' => Duration::from_secs(number.saturating_mul(60)),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The status that a head or trailers tell, if they do; what is no number is 2 (UNKNOWN).
pub(crate) fn status(fields: &HeaderMap) -> Option<u16> {
    let status = fields.get(STATUS)?;
    Some(status.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2))
}

/// The answer that a refusal becomes.
pub(crate) fn render(rejection: &Rejection) -> Response {
    let mut response = Response::new(Body::from(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let message = rejection.detail.as_deref();
    let code = match rejection.told {
        Some(Told { grpc: Some(code), .. }) => code,
        Some(Told { status: Some(status), .. }) => code_for(status),
        _ => code_of(rejection.reason),
    };
    tell(headers, code, rejection.reason.title, message);
    response
}

/// The answer of a fallback: it has no message, so it cannot be a success.
pub(crate) fn stand_in(status: u16, message: &str) -> Response {
    let mut response = Response::new(Body::from(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    tell(headers, code_for(status), message, None);
    response
}

/// The status of HTTP that says what the head of an answer says by `grpc-status`; none where that is a success, or is not
/// told before the trailers.
pub(crate) fn failed(headers: &HeaderMap) -> Option<u16> {
    status(headers).filter(|code| *code != 0).map(status_for)
}

/// The status of HTTP that a code of gRPC stands for.
pub(crate) fn status_for(code: u16) -> u16 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// Trailers of a call whose time was over after its answer had begun.
pub(crate) fn too_late(detail: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    tell(&mut trailers, code::DEADLINE_EXCEEDED, detail, None);
    trailers
}

/// The trailers of a call whose route is gone.
pub(crate) fn removed(detail: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    tell(&mut trailers, code::UNAVAILABLE, detail, None);
    trailers
}

fn tell(fields: &mut HeaderMap, code: u8, title: &str, detail: Option<&str>) {
    fields.insert(STATUS, HeaderValue::from(u16::from(code)));
    let mut message = String::with_capacity(64);
    encode(&mut message, title);
    if let Some(detail) = detail {
        message.push_str(": ");
        encode(&mut message, detail);
    }
    if let Ok(message) = HeaderValue::try_from(message) {
        fields.insert(MESSAGE, message);
    }
}

/// Percent-encodes what `grpc-message` may not hold: all but printable ASCII, and `%` itself.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn code_of(reason: &'static Reason) -> u8 {
    if reason == &INTERNAL {
        return code::INTERNAL;
    }
    code_for(reason.status)
}

fn code_for(status: u16) -> u8 {
    match status {
        400 | 405 | 415 | 417 => code::INVALID_ARGUMENT,
        401 => code::UNAUTHENTICATED,
        403 | 421 => code::PERMISSION_DENIED,
        404 | 501 => code::UNIMPLEMENTED,
        408 | 504 => code::DEADLINE_EXCEEDED,
        413 | 414 | 429 | 431 => code::RESOURCE_EXHAUSTED,
        500 | 508 => code::INTERNAL,
        _ => code::UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pylon_core::rejection::{ALL, ROUTE_REWRITE};

    fn map(name: &'static str, value: &str) -> HeaderMap {
        [(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_call_is_known_by_its_content_type() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC; x=y"] {
            assert!(is_call(&map("content-type", kind)), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpcx", "application/json", "application/gr"] {
            assert!(!is_call(&map("content-type", kind)), "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, span) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("100000000m", None),
            ("m", None),
            ("5", None),
            ("-5m", None),
            ("5 m", None),
        ] {
            assert_eq!(timeout(&map("grpc-timeout", text)), span, "{text}");
        }
    }

    #[test]
    fn a_status_told_in_the_head_stands_for_one_of_http() {
        for (code, status) in [("0", None), ("14", Some(503)), ("4", Some(504)), ("13", Some(500)), ("x", Some(500))] {
            assert_eq!(failed(&map("grpc-status", code)), status, "{code}");
        }
        assert_eq!(failed(&HeaderMap::new()), None);
        for status_of_http in [200, 302, 404, 429, 503] {
            let told = status(stand_in(status_of_http, "sorry").headers()).unwrap();
            assert!((1..=16).contains(&told), "{status_of_http}");
        }
    }

    #[test]
    fn no_refusal_is_told_as_a_success_and_no_message_breaks_a_field() {
        for reason in ALL {
            let response = render(&Rejection::from(*reason));
            let told = status(response.headers()).unwrap();
            assert!((1..=16).contains(&told), "{}", reason.code);
        }
        let response = render(&ROUTE_REWRITE.because("50 % of \u{e9}\r\n"));
        assert_eq!(response.headers()[MESSAGE], "The path cannot be rewritten: 50 %25 of %C3%A9%0D%0A");
        assert_eq!(response.status(), 200);
    }
}
