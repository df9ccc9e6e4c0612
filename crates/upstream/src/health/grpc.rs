//! The question and the answer of `grpc.health.v1.Health/Check` (gRPC Health Checking Protocol), read and written by hand.
//!
//! Messages are so small that no generated code is worth its weight: field 1 of the question is a text, field 1 of the answer an
//! enum (protobuf encoding, wire types 2 and 0). The body of each begins with five bytes: uncompressed, and its length.

use std::sync::LazyLock;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};
use pylon_http2::Piece;

use super::probe::{Answered, field};

/// `SERVING` of `ServingStatus`.
const SERVING: u64 = 1;
/// The longest answer that is read, in bytes.
const LONGEST: usize = 1024;

pub(super) fn path() -> &'static PathAndQuery {
    static PATH: LazyLock<PathAndQuery> = LazyLock::new(|| PathAndQuery::from_static("/grpc.health.v1.Health/Check"));
    &PATH
}

/// The body that asks for the state of a service, whose name is no longer than 100 bytes.
pub(super) fn question(service: &str) -> Bytes {
    let length = u8::try_from(service.len()).unwrap_or(0);
    let mut body = BytesMut::new();
    match length {
        0 => body.put_slice(&[0, 0, 0, 0, 0]),
        length => {
            body.put_slice(&[0, 0, 0, 0, length.saturating_add(2), 0x0a, length]);
            body.put_slice(service.as_bytes());
        }
    }
    body.freeze()
}

/// Reads an answer: good where the call succeeded and its message says `SERVING`.
pub(super) async fn serving(status: StatusCode, headers: &HeaderMap, mut body: Answered) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("the status {} is not 200", status.as_u16()));
    }
    let (mut message, mut end) = (BytesMut::new(), None);
    while let Some(piece) = body.next().await? {
        match piece {
            Piece::Data(data) if message.len() + data.len() <= LONGEST => message.put_slice(&data),
            Piece::Data(_) => return Err("the answer is longer than any of `Health/Check`".to_owned()),
            Piece::Trailers(trailers) => end = Some(trailers),
        }
    }
    // A call that has no message ends with its head.
    judge(end.as_ref().unwrap_or(headers), &message)
}

fn judge(end: &HeaderMap, message: &[u8]) -> Result<(), String> {
    match field(end, "grpc-status") {
        Some("0") => {}
        Some("5") => return Err("the service is not known there (NOT_FOUND)".to_owned()),
        Some("12") => return Err("there are no checks by gRPC there (UNIMPLEMENTED)".to_owned()),
        Some(code) => {
            let message = field(end, "grpc-message").map(|message| format!(": {message}")).unwrap_or_default();
            return Err(format!("the call failed with code {code}{message}"));
        }
        None => return Err("the call has no status".to_owned()),
    }
    match state(message) {
        Some(SERVING) => Ok(()),
        Some(2) => Err("it says NOT_SERVING".to_owned()),
        Some(3) => Err("it says SERVICE_UNKNOWN".to_owned()),
        Some(_) => Err("it says UNKNOWN".to_owned()),
        None => Err("the answer is none of `Health/Check`".to_owned()),
    }
}

/// Field 1 of the message, 0 where it is not there.
fn state(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(5)?;
    let (compressed, length) = prefix.split_first()?;
    if *compressed != 0 || u32::from_be_bytes(length.try_into().ok()?) as usize != message.len() {
        return None;
    }
    let mut state = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        // Another number, 8 bytes, bytes with their length, 4 bytes: what is not known is passed over.
        match (tag, tag % 8) {
            (0x08, _) => state = varint(&mut message)?,
            (_, 0) => _ = varint(&mut message)?,
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(state)
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ended(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))])
    }

    #[test]
    fn a_question_names_a_service_or_the_whole_server() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], b"\x00\x00\x00\x00\x04\x0a\x02ab");
    }

    #[test]
    fn only_serving_is_well() {
        let ok = ended("0");
        assert_eq!(judge(&ok, b"\x00\x00\x00\x00\x02\x08\x01"), Ok(()));
        for (message, why) in [
            (&b"\x00\x00\x00\x00\x02\x08\x02"[..], "it says NOT_SERVING"),
            (b"\x00\x00\x00\x00\x02\x08\x03", "it says SERVICE_UNKNOWN"),
            (b"\x00\x00\x00\x00\x00", "it says UNKNOWN"),
            (b"", "the answer is none of `Health/Check`"),
            (b"\x01\x00\x00\x00\x02\x08\x01", "the answer is none of `Health/Check`"),
            (b"\x00\x00\x00\x00\x03\x08\x01", "the answer is none of `Health/Check`"),
            (b"\x00\x00\x00\x00\x02\x08\x81", "the answer is none of `Health/Check`"),
        ] {
            assert_eq!(judge(&ok, message), Err(why.to_owned()), "{message:?}");
        }
        assert_eq!(judge(&ended("5"), b""), Err("the service is not known there (NOT_FOUND)".to_owned()));
        assert_eq!(judge(&ended("14"), b""), Err("the call failed with code 14".to_owned()));
        assert_eq!(judge(&HeaderMap::new(), b""), Err("the call has no status".to_owned()));
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        assert_eq!(state(b"\x00\x00\x00\x00\x0a\x12\x02ab\x18\x96\x01\x08\x01\x08"), None);
        assert_eq!(state(b"\x00\x00\x00\x00\x09\x12\x02ab\x18\x96\x01\x08\x01"), Some(1));
        assert_eq!(state(b"\x00\x00\x00\x00\x0b\x25abcd\x08\x01\x08\x02\x08\x03"), Some(3));
    }
}
