//! Writes the head of a request (RFC 9112 §3): exactly one framing, `Host` exactly once, nothing that could break it.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pylon_http1::write::field;

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// So many bytes.
    Fixed(u64),
    /// The chunked coding.
    Chunked,
}

/// Why a request is not sent: a fault of the gateway, since its earlier steps clean the head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field that would change the framing or the protocol.
    #[error("the field `{0}` may not be sent")]
    Field(HeaderName),
    /// A method that is not forwarded.
    #[error("the method {0} is not forwarded")]
    Method(Method),
    /// No host is known.
    #[error("there is no host to send")]
    Host,
}

/// What a request head is written from.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a PathAndQuery,
    /// All fields but those that concern framing, which are written from `framing`.
    pub headers: &'a HeaderMap,
    /// Whole lines that the gateway vouches for, sent behind `headers`.
    pub announced: &'a [u8],
    /// The host to send in place of the `Host` field among `headers`.
    pub host: Option<&'a HeaderValue>,
    /// The host to send where there is neither.
    pub fallback_host: &'a HeaderValue,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the service is asked to switch to WebSocket.
    pub websocket: bool,
    /// Whether an `Expect` field is passed on; it is not where the body goes out with the head.
    pub expects: bool,
}

/// Appends the head, empty line included, to `out`. On an error what was appended is of no use.
pub fn request(out: &mut Vec<u8>, head: &RequestHead<'_>) -> Result<(), EncodeError> {
    if head.method == Method::CONNECT {
        return Err(EncodeError::Method(head.method.clone()));
    }
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let path = head.path.as_str();
    if !path.starts_with('/') && path != "*" {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut hosted = false;
    if let Some(host) = head.host {
        field(out, &header::HOST, host.as_bytes());
        hosted = true;
    }
    for (name, value) in head.headers {
        if let Some(special) = Special::of(name) {
            match special {
                Special::Refused => return Err(EncodeError::Field(name.clone())),
                Special::Length => continue,
                Special::Host if hosted => continue,
                Special::Host => hosted = true,
                Special::Expect if !head.expects => continue,
                Special::Expect => {}
            }
        }
        field(out, name, value.as_bytes());
    }
    if !hosted {
        field(out, &header::HOST, head.fallback_host.as_bytes());
    }
    out.extend_from_slice(head.announced);
    if head.websocket {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\n");
    }
    match head.framing {
        Framing::Fixed(length) => length_field(out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        // RFC 9110 §8.6: a method that anticipates a body says so when there is none.
        Framing::Empty if anticipates_body(head) => length_field(out, 0),
        Framing::Empty => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn anticipates_body(head: &RequestHead<'_>) -> bool {
    matches!(*head.method, Method::POST | Method::PUT | Method::PATCH)
        || head.headers.contains_key(header::CONTENT_LENGTH)
}

enum Special {
    Refused,
    Length,
    Host,
    Expect,
}

impl Special {
    fn of(name: &HeaderName) -> Option<Self> {
        if *name == header::CONTENT_LENGTH {
            Some(Self::Length)
        } else if *name == header::HOST {
            Some(Self::Host)
        } else if *name == header::EXPECT {
            Some(Self::Expect)
        } else if *name == header::TRANSFER_ENCODING || *name == header::UPGRADE || *name == header::CONNECTION {
            Some(Self::Refused)
        } else {
            None
        }
    }
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    field(out, &header::CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(
        method: &Method,
        fields: &[(&'static str, &'static str)],
        framing: Framing,
    ) -> Result<String, EncodeError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let head = RequestHead {
            method,
            path: &PathAndQuery::from_static("/a?b"),
            headers: &headers,
            host: None,
            announced: b"",
            fallback_host: &HeaderValue::from_static("endpoint:1"),
            framing,
            websocket: false,
            expects: false,
        };
        let mut out = Vec::new();
        request(&mut out, &head).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn there_is_exactly_one_host_and_one_framing() {
        let fields = [("host", "a"), ("host", "b"), ("content-length", "9"), ("content-length", "8"), ("x", "1")];
        let sent = encode(&Method::PUT, &fields, Framing::Chunked).unwrap();
        assert_eq!(sent, "PUT /a?b HTTP/1.1\r\nhost: a\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n");
        let sent = encode(&Method::GET, &fields, Framing::Fixed(3)).unwrap();
        assert_eq!(sent, "GET /a?b HTTP/1.1\r\nhost: a\r\nx: 1\r\ncontent-length: 3\r\n\r\n");
        let sent = encode(&Method::GET, &[], Framing::Empty).unwrap();
        assert_eq!(sent, "GET /a?b HTTP/1.1\r\nhost: endpoint:1\r\n\r\n");
        assert!(encode(&Method::POST, &[], Framing::Empty).unwrap().ends_with("content-length: 0\r\n\r\n"));
    }

    #[test]
    fn what_would_change_the_framing_or_the_protocol_is_refused() {
        for name in ["transfer-encoding", "upgrade", "connection"] {
            assert_eq!(
                encode(&Method::GET, &[(name, "x")], Framing::Empty),
                Err(EncodeError::Field(name.parse().unwrap()))
            );
        }
        assert_eq!(encode(&Method::CONNECT, &[], Framing::Empty), Err(EncodeError::Method(Method::CONNECT)));
    }
}
