//! Windows (RFC 9113 §5.2): what we may send, and what the peer is told that it may.

use super::Connection;
use crate::error::{Fatal, Reason};
use crate::frame::{self, Head, MAX_WINDOW};
use crate::shared::Role;
use crate::stream::Key;

impl Connection {
    /// WINDOW_UPDATE (§6.9).
    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let more = frame::number(payload).filter(|_| payload.len() == 4);
        let Some(more) = more else {
            return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes"));
        };
        if head.stream == 0 {
            if more == 0 {
                return Err(Fatal::protocol("a window of nothing more"));
            }
            self.send_window = self.send_window.saturating_add(more.into());
            if self.send_window > MAX_WINDOW {
                return Err(Fatal::new(Reason::FLOW_CONTROL_ERROR, "a window wider than there is any"));
            }
            self.wake_waiting();
            return Ok(());
        }
        let Some((_, stream)) = self.streams.find(head.stream) else {
            let idle = self.is_idle(head.stream);
            return if idle { Err(Fatal::protocol("WINDOW_UPDATE on no stream")) } else { Ok(()) };
        };
        if more == 0 {
            return self.fault(head.stream, Reason::PROTOCOL_ERROR);
        }
        stream.send_window = stream.send_window.saturating_add(more.into());
        if stream.send_window > MAX_WINDOW {
            return self.fault(head.stream, Reason::FLOW_CONTROL_ERROR);
        }
        stream.wake_writer();
        Ok(())
    }

    /// The peer's windows begin with another width: those that are open change by the difference (§6.9.2).
    pub(super) fn initial_window(&mut self, width: u32) -> Result<(), Fatal> {
        let width = i64::from(width);
        let wider = Fatal::new(Reason::FLOW_CONTROL_ERROR, "a window wider than there is any");
        if width > MAX_WINDOW {
            return Err(wider);
        }
        let change = width.saturating_sub(self.peer_window);
        self.peer_window = width;
        for stream in self.streams.each_open() {
            stream.send_window = stream.send_window.saturating_add(change);
            if stream.send_window > MAX_WINDOW {
                return Err(wider);
            }
            if change > 0 {
                stream.wake_writer();
            }
        }
        Ok(())
    }

    /// There is room again on the connection: who waits for it has its turn, in order.
    pub(crate) fn wake_waiting(&mut self) {
        while let Some(key) = self.waiting.pop_front() {
            if let Some(stream) = self.streams.at(key) {
                stream.queued = false;
                stream.wake_writer();
            }
        }
    }

    /// So much of the connection's window may be used again.
    pub(crate) fn take_back(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes as u32);
        if self.taken >= self.limits.connection_window / 2 && self.failed.is_none() {
            self.receive_window = self.receive_window.saturating_add(self.taken.into());
            frame::put_window(&mut self.out.tail, 0, std::mem::take(&mut self.taken));
        }
    }

    /// So much of what came on a stream was taken.
    pub(crate) fn taken_of(&mut self, key: Key, id: u32, bytes: usize) {
        self.take_back(bytes);
        let half = self.limits.stream_window / 2;
        let Some(stream) = self.streams.get(key, id).filter(|stream| !stream.receive_over && stream.failed.is_none())
        else {
            return;
        };
        stream.taken = stream.taken.saturating_add(bytes as u32);
        if stream.taken >= half {
            stream.receive_window = stream.receive_window.saturating_add(stream.taken.into());
            frame::put_window(&mut self.out.tail, id, std::mem::take(&mut stream.taken));
        }
    }

    /// What the peer may send on the connection, or will be told that it may.
    #[cfg(test)]
    pub(crate) fn window_in_all(&self) -> i64 {
        self.receive_window.saturating_add(self.taken.into())
    }

    /// How many streams a client may open in all.
    pub(crate) fn allowed_streams(&self) -> usize {
        if self.settled && self.role == Role::Client { self.peer_streams } else { 0 }
    }
}
