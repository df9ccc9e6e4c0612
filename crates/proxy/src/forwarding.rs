//! Who the client is and what the next hop is told of it: `X-Forwarded-*`, `Forwarded`, `Via`, the request id.
//!
//! RFC 7239 (Forwarded), RFC 9110 §7.6.3 (Via). What the gateway vouches for is kept beside the header map, as the bytes that
//! go on the wire: nothing that happens to the map can change it, and nothing of it is hashed or allocated by field.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue};
use pylon_core::connection::{Connection, Scheme};
use pylon_core::networks::{PeerSet, PeerSpec};
use pylon_core::rejection::{REQUEST_LOOP, Rejection};
use pylon_core::short::OneOrMany;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::hop::{self, Found, VOUCHED, X_REQUEST_ID};

/// Proxies before this gate. Short: their networks, one or a list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedProxiesSpec {
    /// Their networks, one or a list; `unix` stands for all that come by Unix sockets. Required. Example: `[10.0.0.0/8]`.
    pub networks: OneOrMany<PeerSpec>,
    /// The field in which they tell the client's address: `x_forwarded` (`X-Forwarded-For`, `X-Forwarded-Proto`) or
    /// `forwarded` (RFC 7239). The other one is taken for the client's own and dropped. Default `x_forwarded`.
    /// Example: `forwarded`.
    #[serde(default)]
    pub header: ForwardingHeader,
}

/// In which field trusted proxies tell the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardingHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Compiled [`TrustedProxiesSpec`]. Nobody by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: PeerSet,
    header: ForwardingHeader,
}

impl TrustedProxies {
    /// Compiles the spec.
    pub fn compile(spec: &TrustedProxiesSpec) -> Self {
        Self { networks: PeerSet::new(&spec.networks), header: spec.header }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who the client is, once the proxies before us have been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) client: IpAddr,
    pub(crate) trusted: bool,
    pub(crate) scheme: Scheme,
}

/// The one client address: the peer, or, where the peer is a trusted proxy, the right-most address in the forwarding
/// field that is not one itself. Only the field that trusted proxies are said to write counts: they pass the other one
/// through as a client wrote it.
pub(crate) fn origin(headers: &HeaderMap, connection: &Connection, trusted: &TrustedProxies, found: &Found) -> Origin {
    let peer = connection.peer.ip();
    let plain = Origin { client: peer, trusted: false, scheme: connection.scheme };
    if trusted.networks.is_empty() || !trusted.networks.contains((!connection.unix).then_some(peer)) {
        return plain;
    }
    let plain = Origin { trusted: true, ..plain };
    if !found.vouched {
        return plain;
    }
    let (hops, proto) = match trusted.header {
        ForwardingHeader::XForwarded => x_forwarded(headers),
        ForwardingHeader::Forwarded => forwarded(headers),
    };
    let mut client = peer;
    for hop in hops.iter().rev() {
        // What cannot be read ends the search: behind it anybody may have written.
        let Some(hop) = hop else { break };
        client = *hop;
        if !trusted.networks.has(*hop) {
            break;
        }
    }
    Origin { client, scheme: proto.unwrap_or(plain.scheme), ..plain }
}

/// The client's address before the head is read, by the word of these proxies.
pub(crate) fn client(headers: &HeaderMap, connection: &Connection, trusted: &TrustedProxies) -> IpAddr {
    origin(headers, connection, trusted, &hop::look(headers)).client
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

/// What the next hop is to know, as lines on the wire. From a trusted proxy its list goes on; from anybody else the lists
/// begin here, and what he wrote under these names is gone.
pub(crate) fn announce(
    headers: &mut HeaderMap,
    connection: &Connection,
    (origin, trusted): (Origin, &TrustedProxies),
    found: &Found,
    via: &HeaderValue,
    id: &HeaderValue,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(384);
    let goes_on = (found.vouched && origin.trusted).then_some(trusted.header);
    let (x_list, list) = match goes_on {
        Some(ForwardingHeader::XForwarded) => (Some(&X_FORWARDED_FOR), None),
        Some(ForwardingHeader::Forwarded) => (None, Some(&FORWARDED)),
        None => (None, None),
    };
    // Where a list of the other kind goes on, this one tells at least who the client is.
    let client = (goes_on.is_some() && origin.client != connection.peer.ip()).then(|| origin.client.to_string());
    begin(&mut out, "x-forwarded-for", headers, x_list);
    if let (None, Some(client)) = (x_list, &client) {
        out.extend_from_slice(client.as_bytes());
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(connection.peer_text.as_bytes());
    out.extend_from_slice(b"\r\n");
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let told_already = goes_on.is_some() && headers.contains_key(X_FORWARDED_HOST);
    if !host.is_empty() && !told_already {
        line(&mut out, "x-forwarded-host", host);
    }
    line(&mut out, "x-forwarded-proto", origin.scheme.as_str().as_bytes());
    begin(&mut out, "forwarded", headers, list);
    if let (None, Some(client)) = (list, &client) {
        node(&mut out, client, origin.client.is_ipv6());
        out.extend_from_slice(b", ");
    }
    element(&mut out, connection, host);
    out.extend_from_slice(b"\r\n");
    begin(&mut out, "via", headers, found.via.then_some(&VIA));
    out.extend_from_slice(via.as_bytes());
    out.extend_from_slice(b"\r\n");
    line(&mut out, "x-request-id", id.as_bytes());
    if goes_on.is_some() {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, FORWARDED, X_REQUEST_ID] {
            headers.remove(name);
        }
    } else if found.vouched {
        for name in VOUCHED {
            headers.remove(name);
        }
    }
    if found.via {
        headers.remove(VIA);
    }
    out
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The name of a list field, and what stands under `before` already.
fn begin(out: &mut Vec<u8>, name: &str, headers: &HeaderMap, before: Option<&HeaderName>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in before.into_iter().flat_map(|name| headers.get_all(name)) {
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b", ");
    }
}

/// One element of `Forwarded`: `for=192.0.2.1;host=a.example;proto=http`.
fn element(out: &mut Vec<u8>, connection: &Connection, host: &[u8]) {
    node(out, connection.peer_text.to_str().unwrap_or("unknown"), connection.peer.is_ipv6());
    if !host.is_empty() {
        // A quoted string, since a port brings a colon (RFC 7239 §4); the host was read by the strict parser before.
        let quote: &[u8] = if host.contains(&b':') { b"\"" } else { b"" };
        for part in [&b";host="[..], quote, host, quote] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(connection.scheme.as_str().as_bytes());
}

/// `for=192.0.2.1`, `for="[2001:db8::1]"` (RFC 7239 §6).
fn node(out: &mut Vec<u8>, address: &str, quoted: bool) {
    out.extend_from_slice(if quoted { b"for=\"[" } else { b"for=" });
    out.extend_from_slice(address.as_bytes());
    if quoted {
        out.extend_from_slice(b"]\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::{look, strip_request};

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn told(mut headers: HeaderMap, peer: &Connection, trusted: &TrustedProxies) -> (HeaderMap, String) {
        let found = look(&headers);
        let origin = origin(&headers, peer, trusted, &found);
        strip_request(&mut headers, &found);
        let (via, id) = (HeaderValue::from_static("1.1 me"), HeaderValue::from_static("id"));
        let lines = announce(&mut headers, peer, (origin, trusted), &found, &via, &id);
        (headers, String::from_utf8(lines).unwrap())
    }

    fn connection(peer: &str) -> Connection {
        Connection::new(
            format!("{peer}:1").parse().unwrap(),
            "127.0.0.1:80".parse().unwrap(),
            Scheme::Http,
            tokio::time::Instant::now().into_std(),
        )
    }

    fn trusted(networks: &[&str], header: ForwardingHeader) -> TrustedProxies {
        let networks = networks.iter().map(|text| serde_json::from_value((*text).into()).unwrap()).collect();
        TrustedProxies::compile(&TrustedProxiesSpec { networks: OneOrMany(networks), header })
    }

    fn client(peer: &str, trusted: &TrustedProxies, fields: &[(&str, &str)]) -> String {
        let headers = map(fields);
        origin(&headers, &connection(peer), trusted, &look(&headers)).client.to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let ours = trusted(&["10.0.0.0/8"], ForwardingHeader::XForwarded);
        let xff = [("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.2")];
        assert_eq!(client("198.51.100.1", &TrustedProxies::default(), &xff), "198.51.100.1");
        assert_eq!(client("198.51.100.1", &ours, &xff), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &ours, &xff), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &ours, &[("x-forwarded-for", "6.6.6.6, junk, 10.0.0.2")]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &ours, &[]), "10.0.0.1");
    }

    #[test]
    fn only_the_field_that_trusted_proxies_write_counts() {
        let both =
            [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=\"[2001:db8::1]:99\";proto=https, for=10.9.9.9")];
        assert_eq!(client("10.0.0.1", &trusted(&["10.0.0.0/8"], ForwardingHeader::XForwarded), &both), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &trusted(&["10.0.0.0/8"], ForwardingHeader::Forwarded), &both), "2001:db8::1");
    }

    #[test]
    fn a_client_by_a_unix_socket_is_trusted_only_where_that_is_said() {
        let unix = Connection::by_unix_socket(Scheme::Http, tokio::time::Instant::now().into_std());
        let headers = map(&[("x-forwarded-for", "203.0.113.9")]);
        for (networks, client) in [(["0.0.0.0/0", "127.0.0.0/8"], "0.0.0.0"), (["unix", "127.0.0.0/8"], "203.0.113.9")]
        {
            let trusted = trusted(&networks, ForwardingHeader::XForwarded);
            assert_eq!(origin(&headers, &unix, &trusted, &look(&headers)).client.to_string(), client);
        }
        let (_, lines) = told(map(&[]), &unix, &TrustedProxies::default());
        assert!(lines.starts_with("x-forwarded-for: unknown\r\n") && lines.contains("for=unknown;"), "{lines}");
    }

    #[test]
    fn forged_forwarding_fields_are_replaced_in_every_spelling() {
        let forged =
            ["x_forwarded_for", "x-forwarded-for", "x-real-ip", "x_request_id", "x-request-id", "x-forwarded-proto"];
        let mut fields: Vec<_> = forged.iter().map(|name| (*name, "1.1.1.1")).collect();
        fields.extend([("host", "a"), ("forwarded", "for=1.1.1.1"), ("via", "1.1 other")]);
        let (headers, lines) = told(map(&fields), &connection("192.0.2.7"), &TrustedProxies::default());
        assert_eq!(headers, map(&[("host", "a")]));
        let expected = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-host: a\r\nx-forwarded-proto: http\r\n\
            forwarded: for=192.0.2.7;host=a;proto=http\r\nvia: 1.1 other, 1.1 me\r\nx-request-id: id\r\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_trusted_proxy_has_its_lists_continued() {
        let fields = [
            ("host", "a:80"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop"),
            ("forwarded", "for=6.6.6.6"),
        ];
        let (headers, lines) =
            told(map(&fields), &connection("10.0.0.1"), &trusted(&["10.0.0.0/8"], ForwardingHeader::XForwarded));
        assert_eq!(headers, map(&[("host", "a:80"), ("x-forwarded-host", "shop")]));
        let expected = "x-forwarded-for: 203.0.113.9, 10.0.0.1\r\nx-forwarded-proto: https\r\n\
            forwarded: for=203.0.113.9, for=10.0.0.1;host=\"a:80\";proto=http\r\nvia: 1.1 me\r\nx-request-id: id\r\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_request_that_passed_here_is_refused() {
        let headers = map(&[("via", "1.1 a, 1.1 pylon-7 (x)")]);
        assert!(check_loop(&headers, &look(&headers), "pylon-7").is_err());
        assert!(check_loop(&headers, &look(&headers), "pylon-70").is_ok());
    }
}
