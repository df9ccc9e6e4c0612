//! What ends at this hop and what is added here: hop-by-hop fields, forwarding fields, Via, the request id.
//!
//! RFC 9110 §7.6.1 (Connection), §7.6.3 (Via), RFC 7239 (Forwarded). Fields that the gateway vouches for are set here,
//! after everything that a client could use to forge or delete them is gone, `-` and `_` spellings alike.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::connection::{Connection, Scheme};
use pylon_core::networks::NetworkSet;
use pylon_core::rejection::{REQUEST_EXPECTATION, REQUEST_FRAMING, REQUEST_HOST, REQUEST_LOOP, Rejection};
use smallvec::SmallVec;

/// The client address as proxies before us tell it.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme that the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The correlation id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Why the gateway refused, on its own answers alone, where `telemetry.reason_header` is on.
pub const PYLON_REASON: HeaderName = HeaderName::from_static(pylon_observe::spec::REASON_HEADER);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that the gateway writes itself: what comes from an untrusted client under these names is dropped.
const VOUCHED: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-pylon-reason",
];

/// What one pass over the fields of a request finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    hosts: u32,
    pub(crate) via: bool,
    expect: bool,
    te: bool,
    connection: bool,
    transfer_encoding: bool,
    content_length: bool,
    vouched: bool,
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
            UPGRADE | PROXY_AUTHORIZATION | PROXY_AUTHENTICATE => found.doomed.push(name.clone()),
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
        if VOUCHED.contains(&hyphened.as_str()) {
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
        // hyper has taken the body apart by now, but only `chunked` alone has one meaning for everybody (RFC 9112 §6.1).
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
            _ if *name == KEEP_ALIVE || *name == PROXY_CONNECTION || *name == X_REQUEST_ID || *name == PYLON_REASON => {
                doomed.push(name.clone());
            }
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
            if let Ok(name) = HeaderName::from_bytes(token.trim_ascii())
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

/// Who the client is, once the proxies before us have been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) client: IpAddr,
    pub(crate) trusted: bool,
    pub(crate) scheme: Scheme,
}

/// The one client address: the peer, or, where the peer is a trusted proxy, the right-most address in the forwarding
/// fields that is not one itself. `Forwarded` (RFC 7239) counts where it stands, else `X-Forwarded-For`.
pub(crate) fn origin(headers: &HeaderMap, connection: &Connection, trusted: &NetworkSet, found: &Found) -> Origin {
    let peer = connection.peer.ip();
    let plain = Origin { client: peer, trusted: false, scheme: connection.scheme };
    if trusted.is_empty() || !trusted.contains(peer) {
        return plain;
    }
    let plain = Origin { trusted: true, ..plain };
    if !found.vouched {
        return plain;
    }
    let (hops, proto) = if headers.contains_key(FORWARDED) { forwarded(headers) } else { x_forwarded(headers) };
    let mut client = peer;
    for hop in hops.iter().rev() {
        // What cannot be read ends the search: behind it anybody may have written.
        let Some(hop) = hop else { break };
        client = *hop;
        if !trusted.contains(*hop) {
            break;
        }
    }
    Origin { client, scheme: proto.unwrap_or(plain.scheme), ..plain }
}

type Hops = SmallVec<[Option<IpAddr>; 4]>;

fn x_forwarded(headers: &HeaderMap) -> (Hops, Option<Scheme>) {
    let hops = items(headers, &X_FORWARDED_FOR).map(address).collect();
    let proto = items(headers, &X_FORWARDED_PROTO).last().and_then(scheme);
    (hops, proto)
}

fn forwarded(headers: &HeaderMap) -> (Hops, Option<Scheme>) {
    let mut proto = None;
    let hops = items(headers, &FORWARDED)
        .map(|element| {
            let mut node = None;
            for pair in element.split(';') {
                let Some((key, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                match key.trim() {
                    key if key.eq_ignore_ascii_case("for") => node = address(value),
                    key if key.eq_ignore_ascii_case("proto") => proto = scheme(value),
                    _ => {}
                }
            }
            node
        })
        .collect();
    (hops, proto)
}

/// The comma-separated items of a field, over all its lines, in order. Commas within quotes do not occur in addresses.
fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

fn scheme(text: &str) -> Option<Scheme> {
    match text {
        _ if text.eq_ignore_ascii_case("http") => Some(Scheme::Http),
        _ if text.eq_ignore_ascii_case("https") => Some(Scheme::Https),
        _ => None,
    }
}

/// Refuses a request that has passed here before.
pub(crate) fn check_loop(headers: &HeaderMap, found: &Found, pseudonym: &str) -> Result<(), Rejection> {
    if found.via && items(headers, &VIA).any(|hop| hop.split_ascii_whitespace().nth(1) == Some(pseudonym)) {
        return Err(Rejection::from(&REQUEST_LOOP));
    }
    Ok(())
}

/// Adds what the next hop is to know: forwarding fields, Via, the request id. From a trusted proxy the lists go on;
/// from anybody else they begin here.
pub(crate) fn announce(
    headers: &mut HeaderMap,
    connection: &Connection,
    origin: Origin,
    found: &Found,
    via: &HeaderValue,
    id: &HeaderValue,
) {
    let host = headers.get(HOST).cloned();
    let peer = &connection.peer_text;
    if found.vouched && origin.trusted {
        extend(headers, X_FORWARDED_FOR, peer);
        if headers.contains_key(FORWARDED) {
            extend(headers, FORWARDED, &element(connection, host.as_ref(), connection.scheme));
        }
        if let (false, Some(host)) = (headers.contains_key(X_FORWARDED_HOST), host) {
            headers.insert(X_FORWARDED_HOST, host);
        }
    } else {
        if found.vouched {
            for name in VOUCHED {
                headers.remove(name);
            }
        }
        headers.insert(X_FORWARDED_FOR, peer.clone());
        headers.insert(FORWARDED, element(connection, host.as_ref(), connection.scheme));
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(origin.scheme.as_str()));
    if found.via {
        extend(headers, VIA, via);
    } else {
        headers.insert(VIA, via.clone());
    }
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Appends an item to the last line of a list field.
fn extend(headers: &mut HeaderMap, name: HeaderName, item: &HeaderValue) {
    let mut list = Vec::with_capacity(64);
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item.as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// One element of `Forwarded`: `for=192.0.2.1;host=a.example;proto=http`.
fn element(connection: &Connection, host: Option<&HeaderValue>, scheme: Scheme) -> HeaderValue {
    let mut text = Vec::with_capacity(80);
    let quoted = connection.peer.is_ipv6();
    text.extend_from_slice(if quoted { b"for=\"[" } else { b"for=" });
    text.extend_from_slice(connection.peer_text.as_bytes());
    if quoted {
        text.extend_from_slice(b"]\"");
    }
    if let Some(host) = host {
        // A quoted string, since a port brings a colon (RFC 7239 §4); the host was read by the strict parser before.
        let quote: &[u8] = if host.as_bytes().contains(&b':') { b"\"" } else { b"" };
        text.extend_from_slice(b";host=");
        text.extend_from_slice(quote);
        text.extend_from_slice(host.as_bytes());
        text.extend_from_slice(quote);
    }
    text.extend_from_slice(b";proto=");
    text.extend_from_slice(scheme.as_str().as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// Whether a trailer of a request or answer may pass: fields that frame, route, authenticate or vouch may not
/// (RFC 9110 §6.5.1).
pub(crate) fn trailer_may_pass(name: &HeaderName) -> bool {
    use http::header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, COOKIE, SET_COOKIE, TRAILER,
    };
    if matches!(
        *name,
        HOST | CONTENT_LENGTH
            | TRANSFER_ENCODING
            | CONNECTION
            | UPGRADE
            | TE
            | TRAILER
            | VIA
            | FORWARDED
            | EXPECT
            | AUTHORIZATION
            | PROXY_AUTHORIZATION
            | PROXY_AUTHENTICATE
            | COOKIE
            | SET_COOKIE
            | CONTENT_TYPE
            | CONTENT_ENCODING
            | CONTENT_RANGE
            | CACHE_CONTROL
    ) {
        return false;
    }
    let text = name.as_str();
    let hyphened = if text.contains('_') { std::borrow::Cow::Owned(text.replace('_', "-")) } else { text.into() };
    !VOUCHED.contains(&&*hyphened)
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

    fn connection(peer: &str) -> Connection {
        Connection::new(
            format!("{peer}:1").parse().unwrap(),
            "127.0.0.1:80".parse().unwrap(),
            Scheme::Http,
            tokio::time::Instant::now().into_std(),
        )
    }

    fn trusted(networks: &[&str]) -> NetworkSet {
        NetworkSet::new(networks.iter().map(|text| pylon_core::networks::Network::parse(text).unwrap()))
    }

    fn client(peer: &str, networks: &[&str], fields: &[(&str, &str)]) -> String {
        let headers = map(fields);
        origin(&headers, &connection(peer), &trusted(networks), &look(&headers)).client.to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let xff = [("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2")];
        assert_eq!(client("198.51.100.1", &[], &xff), "198.51.100.1");
        assert_eq!(client("198.51.100.1", &["10.0.0.0/8"], &xff), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.0/8"], &xff), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["10.0.0.0/8"], &[("x-forwarded-for", "6.6.6.6, junk, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(
            client("10.0.0.1", &["10.0.0.0/8"], &[("forwarded", "for=\"[2001:db8::1]:99\";proto=https, for=10.9.9.9")]),
            "2001:db8::1"
        );
        assert_eq!(client("10.0.0.1", &["10.0.0.0/8"], &[]), "10.0.0.1");
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
    fn forged_forwarding_fields_are_replaced_in_every_spelling() {
        let mut headers = map(&[
            ("host", "a"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("x_request_id", "forged"),
            ("via", "1.1 other"),
        ]);
        let found = look(&headers);
        let peer = connection("192.0.2.7");
        let origin = origin(&headers, &peer, &NetworkSet::default(), &found);
        strip_request(&mut headers, &found);
        announce(
            &mut headers,
            &peer,
            origin,
            &found,
            &HeaderValue::from_static("1.1 me"),
            &HeaderValue::from_static("id"),
        );
        let expected = map(&[
            ("host", "a"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "a"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=192.0.2.7;host=a;proto=http"),
            ("via", "1.1 other, 1.1 me"),
            ("x-request-id", "id"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_trusted_proxy_has_its_lists_continued() {
        let mut headers = map(&[
            ("host", "a"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
        ]);
        let found = look(&headers);
        let peer = connection("10.0.0.1");
        let origin = origin(&headers, &peer, &trusted(&["10.0.0.0/8"]), &found);
        assert_eq!(origin.scheme, Scheme::Https);
        announce(
            &mut headers,
            &peer,
            origin,
            &found,
            &HeaderValue::from_static("1.1 me"),
            &HeaderValue::from_static("id"),
        );
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 10.0.0.1");
        assert_eq!(headers["x-forwarded-host"], "shop");
        assert_eq!(headers["x-forwarded-proto"], "https");
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
    fn a_request_that_passed_here_is_refused() {
        let headers = map(&[("via", "1.1 a, 1.1 pylon-7 (x)")]);
        assert!(check_loop(&headers, &look(&headers), "pylon-7").is_err());
        assert!(check_loop(&headers, &look(&headers), "pylon-70").is_ok());
    }

    #[test]
    fn trailers_cannot_vouch_frame_or_authenticate() {
        for name in ["x-forwarded-for", "x_forwarded_proto", "content-length", "authorization", "x-request-id", "host"]
        {
            assert!(!trailer_may_pass(&HeaderName::from_static(name)), "{name}");
        }
        assert!(trailer_may_pass(&HeaderName::from_static("grpc-status")));
    }
}
