//! Interim answers (RFC 9110 §15.2) to the stream that runs: the exchange queues them on its connection in the form of
//! HTTP/1.1, as for every client, and all streams of a connection run one after the other.

use http::{HeaderName, HeaderValue, StatusCode};
use pylon_core::connection::Interim;
use pylon_http2::SendStream;

/// More fields than any interim answer has.
const FIELDS: usize = 32;

/// Sends what waits, in order.
pub(super) fn send(waiting: &Interim, stream: &mut SendStream) {
    let bytes = waiting.take();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = head.parse(rest) else { return };
        let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
        if let Some(status) = status.filter(StatusCode::is_informational) {
            // An error means that the stream is over: so are they.
            let _ = stream.answer(status, false, |into| {
                for field in head.headers.iter() {
                    let name = HeaderName::from_bytes(field.name.as_bytes());
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
                        into.field(&name, &value);
                    }
                }
            });
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}
