//! Frames that concern the connection: SETTINGS, PING and GOAWAY (RFC 9113 §6.5, §6.7 and §6.8).

use super::{Connection, FAREWELL, Farewell, REPLIES};
use crate::error::{By, Error, Fatal, Reason};
use crate::frame::{self, Head};
use crate::shared::Role;

impl Connection {
    /// SETTINGS (§6.5).
    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(Fatal::protocol("SETTINGS on a stream"));
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || head.has(frame::ACK) && !payload.is_empty() {
            return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "SETTINGS are six bytes each"));
        }
        if head.has(frame::ACK) {
            return Ok(());
        }
        for [a, b, c, d, e, f] in settings {
            self.setting(u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]))?;
        }
        if !self.settled {
            self.settled = true;
            self.heads = self.heads.wrapping_add(1);
        }
        self.reply(frame::SETTINGS, &[])
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Fatal> {
        match name {
            frame::HEADER_TABLE_SIZE => self.encoder.set_max(value as usize),
            frame::ENABLE_PUSH if value > 1 => return Err(Fatal::protocol("ENABLE_PUSH is 0 or 1")),
            frame::ENABLE_CONNECT_PROTOCOL if value > 1 => {
                return Err(Fatal::protocol("ENABLE_CONNECT_PROTOCOL is 0 or 1"));
            }
            frame::ENABLE_CONNECT_PROTOCOL => self.peer_connects = value == 1,
            frame::MAX_CONCURRENT_STREAMS => self.peer_streams = value as usize,
            frame::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
            frame::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                return Err(Fatal::protocol("MAX_FRAME_SIZE out of its range"));
            }
            _ => {}
        }
        Ok(())
    }

    /// PING (§6.7).
    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(Fatal::protocol("PING on a stream"));
        }
        if payload.len() != 8 {
            return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "PING has eight bytes"));
        }
        if !head.has(frame::ACK) {
            return self.reply(frame::PING, payload);
        }
        if payload == FAREWELL && self.farewell == Farewell::Told {
            self.farewell = Farewell::Last(self.newest);
            frame::put_goaway(&mut self.out.tail, self.newest, Reason::NO_ERROR);
        }
        Ok(())
    }

    /// Acknowledges, unless too much of that waits already.
    fn reply(&mut self, kind: u8, payload: &[u8]) -> Result<(), Fatal> {
        self.replies = self.replies.saturating_add(1);
        if self.replies > REPLIES {
            return Err(Fatal::calm("more to acknowledge than is read"));
        }
        frame::put(&mut self.out.tail, kind, frame::ACK, 0, payload);
        Ok(())
    }

    /// GOAWAY (§6.8).
    pub(super) fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream != 0 {
            return Err(Fatal::protocol("GOAWAY on a stream"));
        }
        let code = payload.get(4..).and_then(|rest| rest.first_chunk()).map(|code| u32::from_be_bytes(*code));
        let (Some(last), Some(code)) = (frame::number(payload), code) else {
            return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "GOAWAY has eight bytes"));
        };
        self.peer_left = true;
        if self.role == Role::Server {
            return Ok(());
        }
        let reason = Reason::from(code);
        let mut gone = smallvec::SmallVec::<[u32; 8]>::new();
        for stream in self.streams.each_open() {
            let error = if stream.id > last {
                Error::Refused
            } else if reason != Reason::NO_ERROR {
                Error::Ended { reason, by: By::Peer, why: "" }
            } else {
                continue;
            };
            stream.failed = Some(error);
            stream.wake();
            gone.push(stream.id);
        }
        gone.into_iter().for_each(|id| self.streams.close(id));
        Ok(())
    }
}
