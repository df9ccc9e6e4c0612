//! A service of WebSockets on streams of HTTP/2 (RFC 8441) that gives back what it gets.

use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::Builder;

use crate::http2::send;
use crate::http2_service::{Call, Http2Service};
use crate::websocket::{CLOSE, Frame, PING, PONG, frame};

/// A service that agrees to WebSockets and then gives back each message; other requests it answers `plain`.
pub fn echo() -> Http2Service {
    Http2Service::with(allow, give_back)
}

/// Settings that allow WebSockets.
pub fn allow(builder: &mut Builder) {
    builder.enable_connect_protocol();
}

/// Gives back each message, answers each ping and the Close, and ends then.
pub async fn give_back(mut call: Call) {
    if call.request.extensions().get::<Protocol>().is_none() {
        return call.answer(200, &[], b"plain", &[]).await;
    }
    let mut sending = call.begin(200, &[("sec-websocket-protocol", "v1")]);
    let mut ahead = Vec::new();
    while let Some(Ok(data)) = call.request.body_mut().data().await {
        let _ = call.request.body_mut().flow_control().release_capacity(data.len());
        ahead.extend_from_slice(&data);
        while let Some(got) = whole(&mut ahead) {
            let opcode = if got.opcode == PING { PONG } else { got.opcode };
            let first = if got.is_final { 0x80 } else { 0 } | opcode;
            if send(&mut sending, Bytes::from(frame(first, &got.payload, None))).await.is_err() {
                return;
            }
            if got.opcode == CLOSE {
                let _ = sending.send_data(Bytes::new(), true);
                return;
            }
        }
    }
}

/// The next frame, once all of it is there.
pub fn whole(ahead: &mut Vec<u8>) -> Option<Frame> {
    let mut at = 0;
    let read = Frame::read(|length| {
        let piece = ahead.get(at..at + length).ok_or(())?.to_vec();
        at += length;
        Ok::<_, ()>(piece)
    });
    let frame = read.ok()?;
    ahead.drain(..at);
    Some(frame)
}
