//! Writes the head of a request for HTTP/2 (RFC 9113 §8.3.1): `:authority` in place of `Host`, no field of one connection.

use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{FORWARDED, VIA};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use pylon_net::websocket;

use crate::h1::encode::{EncodeError, Framing, RequestHead};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How many fields the gateway adds.
const ADDED: usize = 7;

/// The head as `h2` wants it. `tls` tells the scheme.
pub(crate) fn request(head: &RequestHead<'_>, tls: bool) -> Result<Request<()>, EncodeError> {
    let host = head.host.or_else(|| head.headers.get(header::HOST)).unwrap_or(head.fallback_host);
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| EncodeError::Host)?;
    let mut headers = fields(head.headers)?;
    match head.framing {
        Framing::Fixed(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Framing::Chunked => drop(headers.remove(header::CONTENT_LENGTH)),
        Framing::Empty if headers.contains_key(header::CONTENT_LENGTH) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Framing::Empty => {}
    }
    announce(&mut headers, head.announced);
    let mut request = Request::new(());
    let path = head.path.as_str();
    let path = if path.starts_with('/') || path == "*" {
        head.path.clone()
    } else {
        PathAndQuery::try_from(format!("/{path}")).map_err(|_| EncodeError::Host)?
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| EncodeError::Host)?;
    *request.method_mut() = head.method.clone();
    if head.websocket {
        // RFC 8441 §5: the stream itself is what a key would prove.
        headers.remove(header::SEC_WEBSOCKET_KEY);
        headers.remove(header::CONTENT_LENGTH);
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(websocket::PROTOCOL));
    }
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The fields of a message, with room for what the gateway adds: a clone would grow twice.
fn fields(of: &HeaderMap) -> Result<HeaderMap, EncodeError> {
    let mut headers = HeaderMap::try_with_capacity(of.len().saturating_add(ADDED)).unwrap_or_default();
    for (name, value) in of {
        match *name {
            // The upstream's own 100 would come too late to be of use: the body goes when the window allows.
            header::HOST | header::EXPECT => {}
            header::TRANSFER_ENCODING | header::UPGRADE | header::CONNECTION => {
                return Err(EncodeError::Field(name.clone()));
            }
            _ => {
                let added = headers.try_append(name, value.clone());
                added.map_err(|_| EncodeError::Field(name.clone()))?;
            }
        }
    }
    Ok(headers)
}

/// Adds what the gateway vouches for, in place of what stands there under the same names. All values share one copy.
fn announce(headers: &mut HeaderMap, lines: &[u8]) {
    let shared = Bytes::copy_from_slice(lines);
    for line in shared.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b": ").unwrap_or_default();
        if let (Some(name), Ok(mut value)) = (named(name), HeaderValue::from_maybe_shared(shared.slice_ref(value))) {
            // Another one in every request: the table of the connection is for what comes again.
            value.set_sensitive(name == X_REQUEST_ID);
            headers.insert(name, value);
        }
    }
}
/// A name in lower case; those that stand in every request cost no look into a table.
fn named(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"x-forwarded-for" => X_FORWARDED_FOR,
        b"x-forwarded-host" => X_FORWARDED_HOST,
        b"x-forwarded-proto" => X_FORWARDED_PROTO,
        b"x-request-id" => X_REQUEST_ID,
        b"forwarded" => FORWARDED,
        b"via" => VIA,
        other => return HeaderName::from_bytes(other).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_becomes_the_authority_and_what_is_vouched_for_wins() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "client.test"), ("content-length", "9"), ("via", "forged"), ("te", "trailers")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let head = RequestHead {
            method: &Method::POST,
            path: &PathAndQuery::from_static("/a?b"),
            headers: &headers,
            announced: b"via: 1.1 pylon\r\nx-request-id: 7\r\n",
            host: None,
            fallback_host: &HeaderValue::from_static("endpoint:1"),
            framing: Framing::Fixed(3),
            websocket: false,
            expects: false,
        };
        let sent = request(&head, true).unwrap();
        assert_eq!(sent.uri(), "https://client.test/a?b");
        let mut fields: Vec<_> = sent.headers().iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        fields.sort();
        // `Sensitive` is what HPACK shall not remember.
        assert_eq!(
            fields,
            ["content-length: \"3\"", "te: \"trailers\"", "via: \"1.1 pylon\"", "x-request-id: Sensitive"]
        );
        assert_eq!(sent.headers()["x-request-id"], "7");
        let other = HeaderValue::from_static("other.test:81");
        let sent = request(&RequestHead { host: Some(&other), framing: Framing::Chunked, ..head }, false).unwrap();
        assert_eq!(sent.uri(), "http://other.test:81/a?b");
        assert!(!sent.headers().contains_key("content-length"));
        let bad = HeaderValue::from_static("a b");
        assert_eq!(request(&RequestHead { host: Some(&bad), ..head }, false).unwrap_err(), EncodeError::Host);
    }
}
