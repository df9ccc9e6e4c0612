//! DATA (RFC 9113 §6.1).

use bytes::Bytes;

use super::{Connection, EMPTY};
use crate::error::{Fatal, Reason};
use crate::frame::{self, Head};
use crate::shared::Role;
use crate::stream::Stream;

impl Connection {
    /// Takes a frame in. `whole` is its payload where that need not be copied.
    pub(super) fn data(&mut self, head: Head, payload: &[u8], whole: Option<&Bytes>) -> Result<(), Fatal> {
        if self.block.is_some() {
            return Err(Fatal::protocol("a block of fields was interrupted"));
        }
        let data = frame::unpad(head, payload)?;
        let ends = head.has(frame::END_STREAM);
        self.count_empty(data.is_empty() && !ends)?;
        self.receive_window = self.receive_window.saturating_sub(frame::width(head.length));
        if self.receive_window < 0 {
            return Err(Fatal::new(Reason::FLOW_CONTROL_ERROR, "more than the window of the connection"));
        }
        let waits_for_answer = |stream: &Stream| self.role == Role::Client && !stream.answered;
        let Some((key, stream)) = self.streams.find(head.stream) else {
            self.take_back(head.length);
            return self.on_no_stream(head.stream, "DATA on a stream that was never opened");
        };
        let fault = if stream.receive_over {
            Some(Reason::STREAM_CLOSED)
        } else if waits_for_answer(stream) {
            Some(Reason::PROTOCOL_ERROR)
        } else {
            admit(stream, head.length, data.len(), ends)
        };
        if let Some(reason) = fault {
            self.take_back(head.length);
            return self.fault(head.stream, reason);
        }
        stream.receive_over = ends;
        let unread = stream.unread;
        if !unread && !data.is_empty() {
            match whole {
                Some(whole) => stream.received.push(whole.clone()),
                None => stream.received.copy(data),
            }
        }
        if ends || !data.is_empty() {
            stream.wake_reader();
        }
        // What nobody reads leaves the stream's window as it is, so that little of it comes; padding is read by us.
        let padding = head.length.saturating_sub(data.len());
        if unread {
            self.take_back(head.length);
        } else if padding > 0 {
            self.taken_of(key, head.stream, padding);
        }
        self.close_if_over(key, head.stream);
        Ok(())
    }

    fn count_empty(&mut self, empty: bool) -> Result<(), Fatal> {
        self.empty = if empty { self.empty.saturating_add(1) } else { self.empty.saturating_sub(1) };
        if self.empty > EMPTY { Err(Fatal::calm("frames without content")) } else { Ok(()) }
    }
}

/// Counts a frame of `length` with `data` against the stream's window and its announced length. Answers what is wrong.
fn admit(stream: &mut Stream, length: usize, data: usize, ends: bool) -> Option<Reason> {
    stream.receive_window = stream.receive_window.saturating_sub(frame::width(length));
    if stream.receive_window < 0 {
        return Some(Reason::FLOW_CONTROL_ERROR);
    }
    if let Some(left) = stream.length_left {
        let left = left.checked_sub(data as u64);
        if left.is_none_or(|left| ends && left > 0) {
            return Some(Reason::PROTOCOL_ERROR);
        }
        stream.length_left = left;
    }
    None
}
