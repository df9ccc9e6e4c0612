//! Writes the head of a request for HTTP/2 (RFC 9113 §8.3.1): `:authority` in place of `Host`, no field of one connection.

use http::header::{self, FORWARDED, VIA};
use http::{HeaderName, Method};
use pylon_http2::Fields;
use pylon_net::websocket;

use crate::h1::encode::{EncodeError, Framing, RequestHead};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which octets no authority has.
#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const FOREIGN: [bool; 256] = {
    let mut foreign = [true; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        foreign[byte as usize] =
            matches!(byte, b'/' | b'?' | b'#' | b'@' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
        byte += 1;
    }
    foreign
};

/// A head that can be sent as it is.
#[derive(Debug)]
pub(crate) struct Sendable<'a> {
    head: &'a RequestHead<'a>,
    authority: &'a [u8],
    tls: bool,
}

/// Looks whether a head can be sent. `tls` tells the scheme.
pub(crate) fn check<'a>(head: &'a RequestHead<'a>, tls: bool) -> Result<Sendable<'a>, EncodeError> {
    if *head.method == Method::CONNECT {
        return Err(EncodeError::Method(head.method.clone()));
    }
    let refused = |name: &&HeaderName| {
        **name == header::TRANSFER_ENCODING || **name == header::UPGRADE || **name == header::CONNECTION
    };
    if let Some(name) = head.headers.keys().find(refused) {
        return Err(EncodeError::Field(name.clone()));
    }
    let host = head.host.or_else(|| head.headers.get(header::HOST)).unwrap_or(head.fallback_host);
    let authority = host.as_bytes();
    let foreign = |byte: &u8| FOREIGN.get(usize::from(*byte)).is_none_or(|foreign| *foreign);
    if authority.is_empty() || authority.iter().any(foreign) {
        return Err(EncodeError::Host);
    }
    Ok(Sendable { head, authority, tls })
}

impl Sendable<'_> {
    /// The method as it is sent.
    pub(crate) fn method(&self) -> &Method {
        // RFC 8441 §4.
        if self.head.websocket { &Method::CONNECT } else { self.head.method }
    }

    /// Writes it.
    pub(crate) fn write(&self, fields: &mut Fields<'_>) {
        let head = self.head;
        let path = head.path.as_str();
        let rooted = path.starts_with('/') || path == "*";
        fields.request(self.method(), self.tls, self.authority, [if rooted { b"" } else { b"/" }, path.as_bytes()]);
        if head.websocket {
            fields.protocol(websocket::PROTOCOL);
        }
        let mut sized = false;
        for (name, value) in head.headers {
            match *name {
                // The upstream's own 100 would come too late to be of use: the body goes when the window allows.
                header::HOST | header::EXPECT => {}
                header::CONTENT_LENGTH => sized = true,
                // RFC 8441 §5: the stream itself is what a key would prove.
                header::SEC_WEBSOCKET_KEY if head.websocket => {}
                _ => fields.field(name, value),
            }
        }
        announce(fields, head.announced);
        match head.framing {
            _ if head.websocket => {}
            Framing::Fixed(length) => {
                fields.bytes(&header::CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
            }
            Framing::Empty if sized => fields.bytes(&header::CONTENT_LENGTH, b"0"),
            Framing::Empty | Framing::Chunked => {}
        }
    }
}

/// Writes what the gateway vouches for, which stands under the same names nowhere else.
fn announce(fields: &mut Fields<'_>, lines: &[u8]) {
    let ends = memchr::memchr_iter(b'\n', lines).chain([lines.len()]);
    let mut begin = 0;
    for end in ends {
        let line = lines.get(begin..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        begin = end.saturating_add(1);
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b": ").unwrap_or_default();
        match named(name) {
            // Another one in every request: the table of the connection is for what comes again.
            Some(name) if name == X_REQUEST_ID => fields.once(&name, value),
            Some(name) => fields.bytes(&name, value),
            None => {}
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
    use http::uri::PathAndQuery;
    use http::{HeaderMap, HeaderValue};
    use pylon_http2::hpack::{Decoder, Field};

    /// The fields as they arrive.
    fn sent(head: &RequestHead<'_>, tls: bool) -> Result<Vec<String>, EncodeError> {
        let sendable = check(head, tls)?;
        let block = Fields::alone(|fields| sendable.write(fields));
        let mut all = Vec::new();
        let take = |field| {
            all.push(match field {
                Field::Regular(name, value) => format!("{name}: {}", value.to_str().unwrap()),
                pseudo => format!("{pseudo:?}"),
            });
        };
        Decoder::default().decode(&block, usize::MAX, take).unwrap();
        Ok(all)
    }

    #[test]
    fn the_host_becomes_the_authority_and_what_is_vouched_for_follows() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "client.test"), ("content-length", "9"), ("te", "trailers"), ("expect", "x")] {
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
        assert_eq!(
            sent(&head, true).unwrap(),
            [
                "Method(POST)",
                "Scheme(b\"https\")",
                "Authority(b\"client.test\")",
                "Path(b\"/a?b\")",
                "te: trailers",
                "via: 1.1 pylon",
                "x-request-id: 7",
                "content-length: 3"
            ]
        );
        let other = HeaderValue::from_static("other.test:81");
        let fields = sent(&RequestHead { host: Some(&other), framing: Framing::Chunked, ..head }, false).unwrap();
        assert_eq!(fields[1..3], ["Scheme(b\"http\")", "Authority(b\"other.test:81\")"]);
        assert!(!fields.iter().any(|field| field.starts_with("content-length")));
        for bad in ["a b", "", "a/b", "u@a"] {
            let bad = HeaderValue::from_static(bad);
            assert_eq!(sent(&RequestHead { host: Some(&bad), ..head }, false), Err(EncodeError::Host));
        }
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("x"));
        assert_eq!(sent(&RequestHead { headers: &headers, ..head }, false), Err(EncodeError::Field(header::UPGRADE)));
    }
}
