//! Writes the head of a request (RFC 9112 §3): exactly one framing, `Host` exactly once, nothing that could break it.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

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
    /// The host to send in place of the `Host` field among `headers`.
    pub host: Option<&'a HeaderValue>,
    /// The host to send where there is neither.
    pub fallback_host: &'a HeaderValue,
    /// How the body is delimited.
    pub framing: Framing,
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
        field(out, header::HOST.as_str(), host.as_bytes());
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
        field(out, name.as_str(), value.as_bytes());
    }
    if !hosted {
        field(out, header::HOST.as_str(), head.fallback_host.as_bytes());
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

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    // One reservation for the four parts.
    out.reserve(name.len().saturating_add(value.len()).saturating_add(4));
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    field(out, header::CONTENT_LENGTH.as_str(), itoa::Buffer::new().format(length).as_bytes());
}
