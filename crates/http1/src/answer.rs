//! Reads the heads of answers (RFC 9112 §4, §5) in one pass, without copying their fields.
//!
//! Strict: bare line feeds, folded lines, blanks before a colon, control characters and versions other than 1.0 and 1.1 are
//! refused, and so is a length beside a transfer coding. The reason phrase is dropped. `Transfer-Encoding` is consumed here,
//! since the body is handed on without it; equal lengths become one; all other fields are kept as they came.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use memchr::memchr;

use crate::Length;
use crate::classes::control;
use crate::fault::Fault;
use crate::fields::{Fields, Place};

/// How many fields an answer may have.
pub const MAX_FIELDS: usize = 128;

/// Why the head of an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
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
    /// It begins with no status line of HTTP/1.0 or HTTP/1.1.
    #[error("the head does not begin with the status line of HTTP/1.1")]
    StatusLine,
    /// What came is malformed.
    #[error("the answer is not valid: {0}")]
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        if fault == Fault::ManyFields { Self::TooMany } else { Self::Fault(fault) }
    }
}

/// A head that is whole.
#[derive(Debug)]
pub struct Head {
    /// The status, interim ones (1xx) included.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// How the end of the body is found.
    pub length: Length,
    /// Whether the connection may carry another exchange (RFC 9112 §9.3).
    pub keep_alive: bool,
}

/// Finds heads in bytes that come piece by piece, each time from where it was.
#[derive(Debug, Default)]
pub struct HeadReader {
    state: State,
    /// Up to here the status line is fine.
    at: usize,
    status: u16,
    fields: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Before version and status.
    #[default]
    Start,
    Reason,
    /// Behind the CR of the status line.
    LineLf,
    Fields,
}

/// `HTTP/1.1 200`, and a byte that shows that the status ends there.
const START: usize = 13;

impl HeadReader {
    /// Takes a head out of `buf`, the answer to a request of `method`, once it is whole there. `limit` bounds its length in bytes.
    pub fn read(&mut self, buf: &mut BytesMut, method: &Method, limit: usize) -> Result<Option<Head>, Refusal> {
        if !self.look(buf)? {
            return if buf.len() > limit { Err(too_large(buf, limit)) } else { Ok(None) };
        }
        if self.fields.at > limit {
            return Err(too_large(buf.get(..self.fields.at).unwrap_or_default(), limit));
        }
        self.take(buf, method).map(Some)
    }

    /// Gives back what only long heads need.
    pub(crate) fn rest(&mut self) {
        self.fields.rest();
    }

    /// Goes on in `bytes`. Answers whether the head is whole.
    fn look(&mut self, bytes: &[u8]) -> Result<bool, Refusal> {
        while self.state != State::Fields {
            let rest = bytes.get(self.at..).unwrap_or_default();
            match self.state {
                State::Start if bytes.len() < START => {
                    // What cannot become one is refused at once, whether more comes or not.
                    return if may_begin(bytes) { Ok(false) } else { Err(Refusal::StatusLine) };
                }
                State::Start => self.start(bytes)?,
                State::Reason => {
                    let Some(plain) = control(rest) else {
                        self.at = bytes.len();
                        return Ok(false);
                    };
                    self.at = self.at.saturating_add(plain).saturating_add(1);
                    match rest.get(plain) {
                        Some(b'\r') => self.state = State::LineLf,
                        Some(b'\t') => {}
                        Some(b'\n') => return Err(Fault::BareLf.into()),
                        _ => return Err(Fault::Control.into()),
                    }
                }
                State::LineLf => match rest.first() {
                    None => return Ok(false),
                    Some(b'\n') => {
                        self.fields.begin(self.at.saturating_add(1), Place::Answer, bytes.get(7) == Some(&b'0'));
                        self.state = State::Fields;
                    }
                    Some(_) => return Err(Fault::BareCr.into()),
                },
                State::Fields => {}
            }
        }
        Ok(self.fields.read(bytes)?)
    }

    /// Version and status. A reason phrase may be missing, with the blank before it.
    fn start(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte.wrapping_sub(b'0')));
        let status = match bytes {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', a, b, c, b' ' | b'\r', ..] => digit(*a)
                .zip(digit(*b))
                .zip(digit(*c))
                .map(|((a, b), c)| a.wrapping_mul(100).wrapping_add(b.wrapping_mul(10)).wrapping_add(c)),
            _ => None,
        };
        self.status = status.filter(|status| *status >= 100).ok_or(Refusal::StatusLine)?;
        (self.at, self.state) = (START.saturating_sub(1), State::Reason);
        Ok(())
    }

    /// Takes the head off, and begins anew.
    fn take(&mut self, buf: &mut BytesMut, method: &Method) -> Result<Head, Refusal> {
        let (said, old) = (self.fields.said, self.fields.old);
        let bytes = buf.split_to(self.fields.at).freeze();
        let headers = self.fields.take(&bytes)?;
        let status = StatusCode::from_u16(self.status).map_err(|_| Refusal::StatusLine)?;
        (self.state, self.at) = (State::Start, 0);
        let none = *method == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = match said.length {
            _ if none => Length::Empty,
            _ if said.chunked => Length::Chunked,
            Some(0) => Length::Empty,
            Some(length) => Length::Fixed(length),
            None => Length::UntilClose,
        };
        // No content may follow a 204, whatever it claims; if it claims some, something is amiss.
        let amiss = status == StatusCode::NO_CONTENT && said.length.is_some_and(|length| length > 0);
        let keep_alive = !said.close && (!old || said.keep_alive) && !amiss && length != Length::UntilClose;
        Ok(Head { status, headers, length, keep_alive })
    }
}

/// Whether a status line may begin with these bytes.
fn may_begin(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/1.v ddd").all(|(byte, shape)| match shape {
        b'v' => matches!(byte, b'0' | b'1'),
        b'd' => byte.is_ascii_digit(),
        shape => byte == shape,
    })
}

fn too_large(head: &[u8], limit: usize) -> Refusal {
    let fields = head.split(|&byte| byte == b'\n').skip(1).filter_map(|line| {
        let name = line.get(..memchr(b':', line)?)?;
        Some((HeaderName::from_bytes(name).ok()?, line.trim_ascii_end().len()))
    });
    Refusal::TooLarge { limit, largest: fields.max_by_key(|(_, length)| *length) }
}
