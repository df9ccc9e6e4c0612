//! Blocks of fields: heads of requests and of answers, and trailers (RFC 9113 §6.2, §6.10 and §8.1).

use bytes::BytesMut;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode};

use super::{Connection, Ending, Farewell};
use crate::error::{Fatal, Reason};
use crate::frame::{self, Head};
use crate::message::{Fields, Malformed, length};
use crate::shared::Role;
use crate::stream::Key;

/// CONTINUATION frames of one block, at most: more is an attack (CVE-2024-27316).
const CONTINUATIONS: u32 = 32;
/// Fields that most requests have room for without growing; and most answers and trailers.
const REQUEST: usize = 12;
const ANSWER: usize = 6;
/// Interim answers that may wait for whoever asked.
const INTERIM: usize = 16;

/// A block that is not whole.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    ends: bool,
    /// The frame in front was wrong for its stream alone.
    wrong: bool,
    frames: u32,
    bytes: BytesMut,
}

impl Connection {
    /// HEADERS (§6.2).
    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return Err(Fatal::protocol("HEADERS on the connection"));
        }
        let mut block = frame::unpad(head, payload)?;
        let mut wrong = false;
        if head.has(frame::PRIORITISED) {
            wrong = frame::number(block) == Some(head.stream);
            block = block.get(5..).ok_or(Fatal::new(Reason::FRAME_SIZE_ERROR, "a priority in part"))?;
        }
        let ends = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.block(head.stream, ends, wrong, block);
        }
        self.block = Some(Block { stream: head.stream, ends, wrong, frames: 0, bytes: block.into() });
        Ok(())
    }

    /// CONTINUATION (§6.10).
    pub(super) fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let Some(mut block) = self.block.take() else {
            return Err(Fatal::protocol("CONTINUATION of nothing"));
        };
        block.frames = block.frames.saturating_add(1);
        block.bytes.extend_from_slice(payload);
        // No block is longer than the fields that it stands for, but for the few bytes of each.
        let longest = (self.limits.head as usize).saturating_mul(2).max(frame::MAX_PAYLOAD);
        if block.frames > CONTINUATIONS || block.bytes.len() > longest {
            return Err(Fatal::calm("a block of fields without end"));
        }
        if head.has(frame::END_HEADERS) {
            return self.block(block.stream, block.ends, block.wrong, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A whole block.
    fn block(&mut self, id: u32, ends: bool, wrong: bool, block: &[u8]) -> Result<(), Fatal> {
        self.heads = self.heads.wrapping_add(1);
        let limit = self.limits.head as usize;
        let known = self.streams.find(id).is_some();
        let mut fields = Fields::new(if known { ANSWER } else { REQUEST });
        let summary = self.decoder.decode(block, limit, |field| fields.take(field));
        let summary = summary.map_err(|_| Fatal::new(Reason::COMPRESSION_ERROR, "a block that cannot be read"))?;
        let fields = if summary.malformed || wrong { Err(Malformed) } else { Ok(fields) };
        let over = summary.size > limit;
        if let Some((key, _)) = self.streams.find(id) {
            return self.on_open_stream(key, id, ends, fields, over);
        }
        match self.role {
            Role::Server => self.request(id, ends, fields, over),
            Role::Client => self.on_no_stream(id, "an answer to no request"),
        }
    }

    /// A block on a stream that is open: trailers, or an answer.
    fn on_open_stream(
        &mut self,
        key: Key,
        id: u32,
        ends: bool,
        fields: Result<Fields, Malformed>,
        over: bool,
    ) -> Result<(), Fatal> {
        let answers = self.role == Role::Client;
        let Some(stream) = self.streams.get(key, id) else { return Ok(()) };
        if stream.receive_over {
            return self.fault(id, Reason::STREAM_CLOSED);
        }
        let Ok(fields) = fields else { return self.fault(id, Reason::PROTOCOL_ERROR) };
        if over {
            return self.fault(id, Reason::ENHANCE_YOUR_CALM);
        }
        if answers && !stream.answered {
            let Ok((status, headers)) = fields.answer() else { return self.fault(id, Reason::PROTOCOL_ERROR) };
            return self.answer(key, id, ends, status, headers);
        }
        let short = stream.length_left.is_some_and(|left| left > 0);
        match fields.trailers() {
            Ok(trailers) if ends && !short => {
                stream.receive_over = true;
                if !stream.unread {
                    stream.received.trailers = Some(trailers);
                }
                stream.wake_reader();
                self.close_if_over(key, id);
                Ok(())
            }
            _ => self.fault(id, Reason::PROTOCOL_ERROR),
        }
    }

    fn answer(&mut self, key: Key, id: u32, ends: bool, status: StatusCode, headers: HeaderMap) -> Result<(), Fatal> {
        let Some(stream) = self.streams.get(key, id) else { return Ok(()) };
        let interim = status.is_informational();
        if interim {
            let waiting = stream.received.interim.get_or_insert_default();
            if ends || waiting.len() >= INTERIM {
                return self.fault(id, Reason::PROTOCOL_ERROR);
            }
            waiting.push_back((status, headers));
            stream.wake_reader();
            return Ok(());
        }
        let bodiless = stream.bodiless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = match length(&headers) {
            Ok(length) => {
                if bodiless {
                    Some(0)
                } else {
                    length
                }
            }
            Err(Malformed) => return self.fault(id, Reason::PROTOCOL_ERROR),
        };
        if ends && length.is_some_and(|length| length > 0) {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        }
        stream.answered = true;
        stream.length_left = length;
        stream.receive_over = ends;
        stream.received.answer = Some((status, headers));
        stream.wake_reader();
        self.close_if_over(key, id);
        Ok(())
    }

    /// The head of a request.
    fn request(&mut self, id: u32, ends: bool, fields: Result<Fields, Malformed>, over: bool) -> Result<(), Fatal> {
        if !self.is_idle(id) {
            return match self.ended.find(id) {
                Some(Ending::Reset) => Ok(()),
                Some(Ending::Over) => Err(Fatal::new(Reason::STREAM_CLOSED, "HEADERS on a stream that is over")),
                None => Err(Fatal::protocol("the number of a stream that is not larger than those before")),
            };
        }
        if id.is_multiple_of(2) {
            return Err(Fatal::protocol("a client's streams have odd numbers"));
        }
        self.newest = id;
        if matches!(self.farewell, Farewell::Last(last) if id > last) {
            // What follows on it is not looked at either.
            self.ended.add(id, Ending::Reset);
            return Ok(());
        }
        if self.streams.open() >= self.limits.streams as usize {
            return self.fault(id, Reason::REFUSED_STREAM);
        }
        if over {
            self.too_large(id, ends);
            return Ok(());
        }
        let Ok(request) = fields.and_then(|fields| fields.request(id)) else {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        };
        let length = length(request.headers());
        let Ok(length) = length.and_then(|length| match length {
            Some(1..) if ends => Err(Malformed),
            length => Ok(length),
        }) else {
            return self.fault(id, Reason::PROTOCOL_ERROR);
        };
        let key = self.streams.begin(id, self.limits.stream_window.into(), self.peer_window);
        if let Some(stream) = self.streams.get(key, id) {
            stream.receive_over = ends;
            stream.length_left = length.filter(|_| *request.method() != Method::CONNECT);
        }
        self.accepted.push_back((key, request));
        Ok(())
    }

    /// Answers a head beyond the limit (RFC 6585 §5).
    fn too_large(&mut self, id: u32, ends: bool) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.put_block(id, true, |encoder, out| {
            encoder.status(status, out);
            encoder.bytes(&CONTENT_LENGTH, b"0", out);
        });
        if ends {
            self.ended.add(id, Ending::Over);
        } else {
            self.end_stream(id, Reason::NO_ERROR);
        }
    }
}
