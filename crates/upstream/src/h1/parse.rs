//! Reads the head of a response (RFC 9112 §4 and §5) out of the bytes of a connection, without copying its fields.
//!
//! Strict: bare line feeds, folded lines, blanks before a colon, control characters and HTTP versions other than 1.0
//! and 1.1 are errors. The reason phrase is dropped. `Transfer-Encoding` is consumed here, since the body is handed on
//! without it; repeated equal lengths become one; all other fields are kept as they came.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use memchr::memchr;

use super::framing::{Claims, FramingError, Length};

/// How many fields a response may have.
pub const MAX_FIELDS: usize = 128;

/// Why the head of a response was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It is longer than the limit, in bytes; with the name and the length of its largest field, as far as it was read.
    #[error("the head is longer than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// The largest field.
        largest: Option<(HeaderName, usize)>,
    },
    /// It has more than [`MAX_FIELDS`] fields.
    #[error("the head has more than {MAX_FIELDS} fields")]
    TooMany,
    /// A line does not end in carriage return and line feed.
    #[error("a line of the head ends in a bare line feed")]
    LineEnd,
    /// It is not an HTTP/1 head.
    #[error("the head is not valid: {0}")]
    Syntax(httparse::Error),
    /// A status, name or value is not valid.
    #[error("the head has an invalid status, name or value")]
    Field,
    /// A switch of protocols that nobody asked for.
    #[error("the upstream switched protocols unasked")]
    Switched,
    /// A switch of protocols that does not prove that the handshake was understood.
    #[error("the upstream's switch to WebSocket is not valid: {0}")]
    Handshake(&'static str),
    /// More interim answers than anyone needs.
    #[error("too many interim answers")]
    Interim,
    /// The length of the body is ambiguous.
    #[error(transparent)]
    Framing(#[from] FramingError),
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status, interim ones (1xx) included.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// How the end of the body is found.
    pub length: Length,
    /// Whether the connection may carry another exchange (RFC 9112 §9.3).
    pub keep_alive: bool,
}

/// Finds heads in bytes that arrive piece by piece; no byte is looked at twice before the head is whole.
#[derive(Debug, Default)]
pub struct HeadReader {
    scanned: usize,
}

impl HeadReader {
    /// Takes a head out of `buf` once it is whole there. `limit` bounds its length in bytes.
    pub fn read(
        &mut self,
        buf: &mut BytesMut,
        method: &Method,
        limit: usize,
    ) -> Result<Option<ResponseHead>, HeadError> {
        let Some(end) = self.end(buf)? else {
            return if buf.len() > limit { Err(too_large(buf, limit)) } else { Ok(None) };
        };
        if end > limit {
            return Err(too_large(buf.get(..end).unwrap_or_default(), limit));
        }
        self.scanned = 0;
        parse(buf.split_to(end), method).map(Some)
    }

    /// Where the empty line ends. Each line is checked to end in CR LF.
    fn end(&mut self, buf: &[u8]) -> Result<Option<usize>, HeadError> {
        let mut line = self.scanned;
        while let Some(rest) = buf.get(line..).filter(|rest| !rest.is_empty()) {
            let Some(feed) = memchr(b'\n', rest) else { break };
            match rest.get(..feed) {
                Some([b'\r']) if line == 0 => return Err(HeadError::Syntax(httparse::Error::Version)),
                Some([b'\r']) => return Ok(Some(line.saturating_add(2))),
                Some([.., b'\r']) => line = line.saturating_add(feed).saturating_add(1),
                _ => return Err(HeadError::LineEnd),
            }
        }
        self.scanned = line;
        Ok(None)
    }
}

fn too_large(head: &[u8], limit: usize) -> HeadError {
    let fields = head.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        let name = line.get(..memchr(b':', line)?)?;
        Some((HeaderName::from_bytes(name).ok()?, line.trim_ascii_end().len()))
    });
    HeadError::TooLarge { limit, largest: fields.max_by_key(|(_, length)| *length) }
}

fn parse(head: BytesMut, method: &Method) -> Result<ResponseHead, HeadError> {
    let head = head.freeze();
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, &head, &mut fields)
        .map_err(|error| {
            if error == httparse::Error::TooManyHeaders { HeadError::TooMany } else { HeadError::Syntax(error) }
        })?;
    if status != httparse::Status::Complete(head.len()) {
        return Err(HeadError::Syntax(httparse::Error::NewLine));
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadError::Field)?;
    let http10 = parsed.version == Some(0);
    let mut headers = HeaderMap::try_with_capacity(parsed.headers.len()).map_err(|_| HeadError::TooMany)?;
    let mut claims = Claims::default();
    let mut keep_alive = !http10;
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Field)?;
        let mut kept = field.value;
        if name == header::CONTENT_LENGTH {
            if !claims.content_length(field.value)? {
                continue;
            }
            kept = kept.split(|&byte| byte == b',').next().unwrap_or(kept).trim_ascii();
        } else if name == header::TRANSFER_ENCODING {
            claims.transfer_encoding(field.value)?;
            continue;
        } else if name == header::CONNECTION {
            keep_alive = connection(field.value, keep_alive);
        }
        let value = HeaderValue::from_maybe_shared(head.slice_ref(kept)).map_err(|_| HeadError::Field)?;
        headers.try_append(name, value).map_err(|_| HeadError::TooMany)?;
    }
    // No content may follow an interim answer or a 204, whatever it claims; if it claims some, something is amiss.
    if status == StatusCode::NO_CONTENT && claims.length().is_some_and(|length| length > 0) {
        keep_alive = false;
    }
    let length = if status.is_informational() { Length::Empty } else { claims.decide(method, status, http10)? };
    Ok(ResponseHead { status, headers, length, keep_alive: keep_alive && length != Length::UntilClose })
}

fn connection(value: &[u8], mut keep_alive: bool) -> bool {
    for option in value.split(|&byte| byte == b',') {
        let option = option.trim_ascii();
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    keep_alive
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<ResponseHead>, HeadError> {
        HeadReader::default().read(&mut BytesMut::from(bytes), &Method::GET, 64 * 1024)
    }

    #[test]
    fn fields_share_the_memory_that_they_were_read_into() {
        let mut buf =
            BytesMut::from(&b"HTTP/1.1 200 OK\r\nx-a:  one two \t\r\nx-b:\r\ncontent-length: 2\r\n\r\nok"[..]);
        let range = buf.as_ptr_range();
        let head = HeadReader::default().read(&mut buf, &Method::GET, 1024).unwrap().unwrap();
        assert_eq!((head.headers["x-a"].as_bytes(), head.headers["x-b"].as_bytes()), (&b"one two"[..], &b""[..]));
        assert!(range.contains(&head.headers["x-a"].as_bytes().as_ptr()));
        assert_eq!((head.length, head.keep_alive, &buf[..]), (Length::Fixed(2), true, &b"ok"[..]));
    }

    #[test]
    fn a_connection_is_kept_by_the_rules_of_its_version() {
        let keeps = |version: &str, fields: &str| {
            let head = format!("HTTP/{version} 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
            read(head.as_bytes()).unwrap().unwrap().keep_alive
        };
        assert!(keeps("1.1", "") && keeps("1.1", "connection: x\r\n") && keeps("1.0", "connection: Keep-Alive\r\n"));
        assert!(!keeps("1.0", "") && !keeps("1.1", "connection: x, close\r\n"));
        assert!(!keeps("1.1", "connection: keep-alive\r\nconnection: close\r\n"));
        let until_close = read(b"HTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
        assert_eq!((until_close.length, until_close.keep_alive), (Length::UntilClose, false));
    }

    #[test]
    fn reasons_may_be_anything_or_nothing() {
        for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Sehr g\u{fc}t"] {
            assert!(read(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).unwrap().is_some(), "{line}");
        }
        for line in [
            "HTTP/1.1  200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 OK",
            "http/1.1 200 OK",
            "HTTP/1.2 200 OK",
        ] {
            assert!(read(format!("{line}\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_however_it_is_split(
            bytes in prop::collection::vec(prop::sample::select(b"HTP/1. 20OK:ab\r\n\r\n".to_vec()), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat();
            let (mut reader, mut buf) = (HeadReader::default(), BytesMut::new());
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            buf.extend_from_slice(first);
            let early = reader.read(&mut buf, &Method::GET, 1024);
            let late = match early {
                Ok(None) => {
                    buf.extend_from_slice(second);
                    reader.read(&mut buf, &Method::GET, 1024)
                }
                early => early,
            };
            prop_assert_eq!(format!("{:?}", late), format!("{:?}", read(&bytes)));
        }
    }
}
