//! Interim answers (RFC 9110 §15.2) to the stream that runs: the exchange queues them on its connection in the form of
//! HTTP/1.1, as for every client, and all streams of a connection run one after the other.

use bytes::BytesMut;
use http::Method;
use pylon_core::connection::Interim;
use pylon_http1::answer::HeadReader;
use pylon_http2::SendStream;

/// Sends what waits, in order.
pub(super) fn send(waiting: &Interim, stream: &mut SendStream) {
    let (mut reader, mut rest) = (HeadReader::default(), BytesMut::from(&waiting.take()[..]));
    while let Ok(Some(head)) = reader.read(&mut rest, &Method::GET, usize::MAX) {
        if head.status.is_informational() {
            // An error means that the stream is over: so are they.
            let _ = stream.answer(head.status, false, |into| {
                for (name, value) in &head.headers {
                    into.field(name, value);
                }
            });
        }
    }
}
