//! Writes the head of an answer (RFC 9112 §4, §6): exactly one framing, and what every answer has.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use pylon_http1::names_option;
use pylon_http1::write::field;

use crate::date;

/// What of a request its answer depends on.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Asked {
    /// By HEAD: the answer has no body, whatever it says.
    pub(super) head: bool,
    /// By HTTP/1.0.
    pub(super) old: bool,
    /// Whether another request may follow.
    pub(super) keep_alive: bool,
    /// Whether the client reads trailers.
    pub(super) trailers: bool,
}

/// How the body of an answer is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Fixed(u64),
    Chunked,
    /// All that comes until the connection closes.
    UntilClose,
}

/// What is known of a body before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is empty.
    Empty,
    Length(u64),
    Nothing,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) framing: Framing,
    /// Whether the connection may go on.
    pub(super) keep_alive: bool,
}

/// Appends the head, empty line included, to `out`.
pub(super) fn answer(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    known: Known,
    mut asked: Asked,
) -> Written {
    status_line(out, status, asked.old);
    let switch = status == StatusCode::SWITCHING_PROTOCOLS;
    let bodiless = switch || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut said: Option<u64> = None;
    let mut dated = false;
    for (name, value) in headers {
        match *name {
            CONTENT_LENGTH => {
                said = said.or_else(|| std::str::from_utf8(value.as_bytes()).ok()?.parse().ok());
                continue;
            }
            TRANSFER_ENCODING => continue,
            TRAILER if asked.old || bodiless => continue,
            CONNECTION if !switch => {
                asked.keep_alive &= !names_option(value.as_bytes(), b"close");
                continue;
            }
            DATE => dated = true,
            _ => {}
        }
        field(out, name, value.as_bytes());
    }
    if !dated {
        date::with(|date| out.extend_from_slice(date));
    }
    let framing = if bodiless { Framing::Empty } else { length(out, known, said, asked) };
    let keep_alive = asked.keep_alive && framing != Framing::UntilClose;
    if switch {
    } else if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if asked.old {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Written { framing, keep_alive }
}

fn status_line(out: &mut Vec<u8>, status: StatusCode, old: bool) {
    if status == StatusCode::OK && !old {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes how long the body is, or that nobody knows.
fn length(out: &mut Vec<u8>, known: Known, said: Option<u64>, asked: Asked) -> Framing {
    let length = match (known, said) {
        // Of the body that GET would have got.
        (Known::Empty, said) if asked.head => said,
        (Known::Empty, _) => Some(0),
        (_, Some(said)) => Some(said),
        (Known::Length(length), None) => Some(length),
        (Known::Nothing, None) => None,
    };
    if let Some(length) = length {
        field(out, &CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
    }
    match length {
        _ if asked.head => Framing::Empty,
        Some(0) => Framing::Empty,
        Some(length) => Framing::Fixed(length),
        None if asked.old => Framing::UntilClose,
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    }
}
