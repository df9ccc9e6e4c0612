//! What ends at this hop: hop-by-hop fields, and fields by which a client could forge what the gateway vouches for.
//!
//! RFC 9110 §7.6.1 (Connection), RFC 9112 §6 (framing). Names count in `-` and `_` spellings alike. What is told instead
//! stands in [`crate::forwarding`].

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::rejection::{REQUEST_EXPECTATION, REQUEST_FRAMING, REQUEST_HOST, Rejection};
use pylon_http1::trailers::may_trail;
use smallvec::SmallVec;

/// The correlation id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Why the gateway refused, on its own answers alone, where `telemetry.reason_header` is on.
pub const PYLON_REASON: HeaderName = HeaderName::from_static(pylon_observe::spec::REASON_HEADER);
/// What a fallback stood in for, on its answers alone, where `telemetry.reason_header` is on.
pub(crate) const PYLON_FALLBACK: HeaderName = HeaderName::from_static("x-pylon-fallback");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that the gateway writes itself: what comes from an untrusted client under these names is dropped.
pub(crate) const VOUCHED: [&str; 10] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-pylon-mirror",
    "x-pylon-reason",
];

/// What one pass over the fields of a request finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    hosts: u32,
    pub(crate) via: bool,
    expect: bool,
    te: bool,
    pub(crate) upgrade: bool,
    connection: bool,
    transfer_encoding: bool,
    content_length: bool,
    pub(crate) vouched: bool,
    doomed: SmallVec<[HeaderName; 4]>,
}

/// Looks at each field once.
pub(crate) fn look(headers: &HeaderMap) -> Found {
    let mut found = Found::default();
    for name in headers.keys() {
        match *name {
            HOST => found.hosts = u32::try_from(headers.get_all(HOST).iter().count()).unwrap_or(u32::MAX),
            VIA => found.via = true,
            EXPECT => found.expect = true,
            TE => found.te = true,
            CONNECTION => found.connection = true,
            TRANSFER_ENCODING => found.transfer_encoding = true,
            CONTENT_LENGTH => found.content_length = true,
            FORWARDED => found.vouched = true,
            UPGRADE => {
                found.upgrade = true;
                found.doomed.push(name.clone());
            }
            PROXY_AUTHORIZATION | PROXY_AUTHENTICATE => found.doomed.push(name.clone()),
            _ => other(name, &mut found),
        }
    }
    found
}

/// Names that have no constant in `http`.
fn other(name: &HeaderName, found: &mut Found) {
    let text = name.as_str();
    if text.contains('_') {
        let hyphened = text.replace('_', "-");
        // CGI and its kin take `Transfer_Encoding` for the real one: nobody behind may frame by it.
        let frames = matches!(hyphened.as_str(), "content-length" | "transfer-encoding");
        if frames || VOUCHED.contains(&hyphened.as_str()) {
            found.doomed.push(name.clone());
        }
    } else if text.starts_with("x-") {
        found.vouched |= VOUCHED.contains(&text);
    } else if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == HTTP2_SETTINGS {
        found.doomed.push(name.clone());
    }
}

/// Refuses what has no single meaning: the Host field, the framing, the expectation.
pub(crate) fn check(found: &Found, headers: &HeaderMap, http10: bool) -> Result<(), Rejection> {
    if found.hosts > 1 {
        return Err(REQUEST_HOST.because("there are several Host fields"));
    }
    if found.hosts == 0 && !http10 {
        return Err(REQUEST_HOST.because("there is no Host field"));
    }
    if found.transfer_encoding {
        // Only `chunked` alone has one meaning for everybody (RFC 9112 §6.1), and the codec has taken it apart by now.
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() || found.content_length {
            return Err(REQUEST_FRAMING.because("Transfer-Encoding is not just `chunked`"));
        }
    }
    if found.content_length && headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(REQUEST_FRAMING.because("there are several Content-Length fields"));
    }
    if found.expect && !headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Rejection::from(&REQUEST_EXPECTATION));
    }
    Ok(())
}

/// Takes away what was meant for this hop alone.
pub(crate) fn strip_request(headers: &mut HeaderMap, found: &Found) {
    let trailers = found.te && wants_trailers(headers);
    if found.connection {
        strip_named(headers);
    }
    if found.te {
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if found.transfer_encoding {
        headers.remove(TRANSFER_ENCODING);
    }
    for name in &found.doomed {
        headers.remove(name);
    }
}

/// Takes away from an answer what was meant for this hop alone, and what only the gateway may say.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    let mut doomed: SmallVec<[HeaderName; 4]> = SmallVec::new();
    let mut connection = false;
    for name in headers.keys() {
        match *name {
            CONNECTION => connection = true,
            TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | TE => doomed.push(name.clone()),
            _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == X_REQUEST_ID => doomed.push(name.clone()),
            _ if *name == PYLON_REASON || *name == PYLON_FALLBACK => doomed.push(name.clone()),
            _ => {}
        }
    }
    if connection {
        strip_named(headers);
    }
    for name in doomed {
        headers.remove(name);
    }
}

/// The last touch to every answer, the gateway's own included: the id by which it can be found again.
pub(crate) fn finish(headers: &mut HeaderMap, id: &HeaderValue) {
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Removes `Connection` and the fields that it names, but never those that frame or address the message: a client that
/// lists them wants to split the message or to strip what we vouch for.
fn strip_named(headers: &mut HeaderMap) {
    let mut named: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            // What all name is taken away as it is.
            if !token.eq_ignore_ascii_case(b"keep-alive")
                && let Ok(name) = HeaderName::from_bytes(token)
                && !matches!(name, HOST | CONTENT_LENGTH | TRANSFER_ENCODING | CONNECTION)
            {
                named.push(name);
            }
        }
    }
    headers.remove(CONNECTION);
    for name in named {
        headers.remove(name);
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// Whether a trailer of a request or answer may pass: beside what never stands behind a body, fields that tell of the way or of the caller
/// may not.
pub(crate) fn trailer_may_pass(name: &HeaderName) -> bool {
    if !may_trail(name) || matches!(*name, VIA | FORWARDED | EXPECT | PROXY_AUTHORIZATION | COOKIE) {
        return false;
    }
    let text = name.as_str();
    if text.contains('_') {
        // Many servers read both spellings as one.
        return HeaderName::try_from(text.replace('_', "-")).is_ok_and(|name| trailer_may_pass(&name));
    }
    !VOUCHED.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn connection_cannot_name_away_what_frames_or_addresses_a_message() {
        let mut headers = map(&[
            ("connection", "content-length, host, x-secret, close"),
            ("content-length", "3"),
            ("host", "a"),
            ("x-secret", "1"),
            ("close", "x"),
        ]);
        let found = look(&headers);
        strip_request(&mut headers, &found);
        assert_eq!(headers, map(&[("content-length", "3"), ("host", "a")]));
    }

    #[test]
    fn only_chunked_alone_frames_a_request() {
        for coding in ["gzip, chunked", "chunked, chunked", "xchunked", "identity", "chunked;q=1"] {
            let headers = map(&[("host", "a"), ("transfer-encoding", coding)]);
            assert!(check(&look(&headers), &headers, false).is_err(), "{coding}");
        }
        let headers = map(&[("host", "a"), ("transfer-encoding", "Chunked")]);
        assert!(check(&look(&headers), &headers, false).is_ok());
        let headers = map(&[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")]);
        assert!(check(&look(&headers), &headers, false).is_err());
    }

    #[test]
    fn trailers_cannot_vouch_frame_or_authenticate() {
        for name in [
            "x-forwarded-for",
            "x_forwarded_proto",
            "content-length",
            "content_length",
            "authorization",
            "proxy_authorization",
            "cookie",
            "set-cookie",
            "content_type",
            "www-authenticate",
            "location",
            "via",
            "forwarded",
            "expect",
            "x-request-id",
            "host",
        ] {
            assert!(!trailer_may_pass(&HeaderName::from_static(name)), "{name}");
        }
        assert!(trailer_may_pass(&HeaderName::from_static("grpc-status")));
    }
}
