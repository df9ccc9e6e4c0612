//! The state of a connection, and what each frame that comes does to it (RFC 9113 §6).

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Buf as _, BytesMut};
use http::Request;

use crate::error::{By, Error, Fatal, Reason};
use crate::frame::{self, Head};
use crate::hpack::{Decoder, Encoder};
use crate::out::Out;
use crate::shared::{Limits, Role};
use crate::stream::{self, Key, Streams};

mod control;
mod data;
mod ended;
mod heads;
mod windows;

use ended::{Ended, Ending};

/// Answers to SETTINGS and PING that may wait for a peer that does not read.
const REPLIES: u32 = 1000;
/// Frames of DATA without data, more than there were with some.
const EMPTY: u32 = 1000;
/// What our PING says when it asks whether the peer knows of our GOAWAY.
const FAREWELL: [u8; 8] = *b"farewell";

/// How far our side has said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    No,
    /// It was told that we will take no more, and not yet which was the last.
    Told,
    /// Streams behind this one are not looked at.
    Last(u32),
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) streams: Streams,
    pub(crate) out: Out,
    pub(crate) encoder: Encoder,
    decoder: Decoder,
    /// A block of fields that goes on in CONTINUATION frames.
    block: Option<heads::Block>,
    /// What is missing of the preface.
    preface: usize,
    /// The peer's first SETTINGS are here.
    pub(crate) settled: bool,
    /// A frame with fields has come in part.
    in_head: bool,
    /// How many heads are over.
    heads: u64,
    /// What the peer's settings say.
    pub(crate) peer_window: i64,
    pub(crate) peer_streams: usize,
    pub(crate) peer_connects: bool,
    pub(crate) send_window: i64,
    receive_window: i64,
    taken: u32,
    /// Streams that wait for room on the connection.
    pub(crate) waiting: VecDeque<Key>,
    pub(crate) accepted: VecDeque<(Key, Request<u32>)>,
    /// The next stream of a client; on a server, the last that came.
    pub(crate) newest: u32,
    ended: Ended,
    pub(crate) farewell: Farewell,
    /// The peer takes no more streams.
    pub(crate) peer_left: bool,
    /// Since when nothing works any more.
    pub(crate) failed: Option<Error>,
    /// Requests that the peer took back before they were accepted, streams that we reset for its faults, and so on.
    resets: usize,
    mistakes: usize,
    pub(crate) replies: u32,
    empty: u32,
    /// How many handles to the connection there are, beside its driver.
    pub(crate) handles: usize,
    pub(crate) driver: Option<Waker>,
    /// The driver has been woken and has not run since.
    pub(crate) woken: bool,
}

impl Connection {
    pub(crate) fn new(role: Role, limits: Limits) -> Self {
        let mut connection = Self {
            role,
            limits,
            streams: Streams::default(),
            out: Out::default(),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            block: None,
            preface: if role == Role::Server { frame::PREFACE.len() } else { 0 },
            settled: false,
            in_head: false,
            heads: 0,
            peer_window: frame::DEFAULT_WINDOW,
            // The peer may allow fewer; none until it has said so.
            peer_streams: usize::MAX,
            peer_connects: false,
            send_window: frame::DEFAULT_WINDOW,
            receive_window: limits.connection_window.into(),
            taken: 0,
            waiting: VecDeque::new(),
            accepted: VecDeque::new(),
            newest: u32::from(role == Role::Client),
            ended: Ended::default(),
            farewell: Farewell::No,
            peer_left: false,
            failed: None,
            resets: 0,
            mistakes: 0,
            replies: 0,
            empty: 0,
            handles: 0,
            driver: None,
            woken: false,
        };
        connection.greet();
        connection
    }

    /// What each side begins with.
    fn greet(&mut self) {
        let tail = &mut self.out.tail;
        let Limits { streams, stream_window, connection_window, head, .. } = self.limits;
        if self.role == Role::Server {
            let settings = [
                (frame::MAX_CONCURRENT_STREAMS, streams),
                (frame::INITIAL_WINDOW_SIZE, stream_window),
                (frame::MAX_HEADER_LIST_SIZE, head),
                (frame::ENABLE_CONNECT_PROTOCOL, 1),
            ];
            frame::put_settings(tail, &settings);
        } else {
            tail.extend_from_slice(frame::PREFACE);
            let settings = [
                (frame::ENABLE_PUSH, 0),
                (frame::INITIAL_WINDOW_SIZE, stream_window),
                (frame::MAX_HEADER_LIST_SIZE, head),
            ];
            frame::put_settings(tail, &settings);
        }
        let more = connection_window.saturating_sub(frame::DEFAULT_WINDOW as u32);
        if more > 0 {
            frame::put_window(tail, 0, more);
        }
    }

    /// The number of the head that is on its way to us, if there is one; the preface is one, up to the first SETTINGS.
    pub(crate) fn head_under_way(&self) -> Option<u64> {
        (self.in_head || self.block.is_some() || !self.settled).then_some(self.heads)
    }

    /// Takes all whole frames out of `input`.
    pub(crate) fn receive(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        self.take_preface(input)?;
        self.in_head = false;
        while self.preface == 0
            && let Some(head) = Head::read(input)
        {
            if !self.settled && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
                return Err(Fatal::protocol("a connection begins with SETTINGS"));
            }
            if head.length > frame::MAX_PAYLOAD {
                return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "a frame longer than was agreed on"));
            }
            let Some(payload) = input.get(frame::HEADER..frame::HEADER.saturating_add(head.length)) else {
                self.in_head = matches!(head.kind, frame::HEADERS | frame::CONTINUATION);
                break;
            };
            if head.kind == frame::DATA && head.length >= stream::LARGE && !head.has(frame::PADDED) {
                input.advance(frame::HEADER);
                let payload = input.split_to(head.length).freeze();
                self.data(head, &payload, Some(&payload))?;
                continue;
            }
            self.frame(head, payload)?;
            input.advance(frame::HEADER.saturating_add(head.length));
        }
        Ok(())
    }

    fn take_preface(&mut self, input: &mut BytesMut) -> Result<(), Fatal> {
        if self.preface > 0 {
            let have = input.len().min(self.preface);
            let wanted = frame::PREFACE.len().checked_sub(self.preface).and_then(|at| frame::PREFACE.get(at..));
            if wanted.is_none_or(|wanted| wanted.get(..have) != input.get(..have)) {
                return Err(Fatal::protocol("this is not HTTP/2"));
            }
            input.advance(have);
            self.preface = self.preface.saturating_sub(have);
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if let Some(block) = &self.block
            && (head.kind != frame::CONTINUATION || head.stream != block.stream)
        {
            return Err(Fatal::protocol("a block of fields was interrupted"));
        }
        match head.kind {
            frame::DATA => self.data(head, payload, None),
            frame::HEADERS => self.headers(head, payload),
            frame::PRIORITY => self.priority(head, payload),
            frame::RST_STREAM => self.reset(head, payload),
            frame::SETTINGS => self.settings(head, payload),
            frame::PUSH_PROMISE => Err(Fatal::protocol("nobody may push here")),
            frame::PING => self.ping(head, payload),
            frame::GOAWAY => self.goaway(head, payload),
            frame::WINDOW_UPDATE => self.window_update(head, payload),
            frame::CONTINUATION => self.continuation(head, payload),
            _ => Ok(()),
        }
    }

    /// A frame for a stream that is not open.
    fn on_no_stream(&mut self, id: u32, idle: &'static str) -> Result<(), Fatal> {
        if self.is_idle(id) {
            return Err(Fatal::protocol(idle));
        }
        match self.ended.find(id) {
            // It crossed our reset. A client does not mind what comes late, whatever it was.
            Some(Ending::Reset) => Ok(()),
            _ if self.role == Role::Client => Ok(()),
            _ => self.fault(id, Reason::STREAM_CLOSED),
        }
    }

    /// Whether there has never been such a stream.
    fn is_idle(&self, id: u32) -> bool {
        let ours = id % 2 == 1;
        match self.role {
            Role::Server => !ours || id > self.newest,
            Role::Client => !ours || id >= self.newest,
        }
    }

    /// PRIORITY (§6.3), which nobody follows any more.
    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 {
            return Err(Fatal::protocol("PRIORITY on the connection"));
        }
        if payload.len() != 5 {
            return self.fault(head.stream, Reason::FRAME_SIZE_ERROR);
        }
        if frame::number(payload) == Some(head.stream) {
            return self.fault(head.stream, Reason::PROTOCOL_ERROR);
        }
        Ok(())
    }

    /// RST_STREAM (§6.4).
    fn reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let &[a, b, c, d] = payload else {
            return Err(Fatal::new(Reason::FRAME_SIZE_ERROR, "RST_STREAM has four bytes"));
        };
        let reason = Reason::from(u32::from_be_bytes([a, b, c, d]));
        let Some((key, stream)) = self.streams.find(head.stream) else {
            let idle = self.is_idle(head.stream);
            return if idle { Err(Fatal::protocol("RST_STREAM on no stream")) } else { Ok(()) };
        };
        stream.failed = Some(Error::Reset { reason, by: By::Peer });
        stream.wake();
        self.closed(key, head.stream, Ending::Over);
        let is_this = |(_, request): &(Key, Request<u32>)| *request.body() == head.stream;
        if let Some(at) = self.accepted.iter().position(is_this) {
            self.accepted.remove(at);
            let unread = self.streams.get(key, head.stream).map_or(0, |stream| stream.received.clear());
            self.take_back(unread);
            self.streams.free(key);
            self.resets = self.resets.saturating_add(1);
            if self.resets > self.limits.resets {
                return Err(Fatal::calm("requests are taken back as fast as they are sent"));
            }
        }
        Ok(())
    }

    /// The peer has made a mistake on one stream, which ends for it (§5.4.2).
    pub(crate) fn fault(&mut self, id: u32, reason: Reason) -> Result<(), Fatal> {
        if id == 0 {
            return Err(Fatal::new(reason, "a frame of a stream on the connection"));
        }
        if self.is_idle(id) {
            // One that has not begun cannot be reset (§6.4).
            return Err(Fatal::new(reason, "a frame that no stream may have"));
        }
        self.mistakes = self.mistakes.saturating_add(1);
        if self.mistakes > self.limits.mistakes {
            return Err(Fatal::calm("too many mistakes"));
        }
        self.end_stream(id, reason);
        Ok(())
    }

    /// Resets a stream, open or not.
    pub(crate) fn end_stream(&mut self, id: u32, reason: Reason) {
        frame::put_reset(&mut self.out.tail, id, reason);
        if let Some((key, stream)) = self.streams.find(id) {
            stream.failed = Some(Error::Reset { reason, by: By::Us });
            stream.wake();
            self.closed(key, id, Ending::Reset);
        } else if self.ended.find(id).is_none() {
            self.ended.add(id, Ending::Reset);
        }
    }

    /// A request is looked at: one more may be taken back.
    pub(crate) fn accepts(&mut self) {
        self.resets = self.resets.saturating_sub(1);
    }

    /// A stream that both sides have ended is closed.
    pub(crate) fn close_if_over(&mut self, key: Key, id: u32) {
        if self.streams.get(key, id).is_some_and(|stream| stream.receive_over && stream.send_over) {
            self.closed(key, id, Ending::Over);
        }
    }

    pub(crate) fn closed(&mut self, key: Key, id: u32, ending: Ending) {
        self.streams.close(id);
        self.ended.add(id, ending);
        if ending == Ending::Over && self.mistakes > 0 && self.streams.get(key, id).is_some_and(|s| s.failed.is_none())
        {
            self.mistakes = self.mistakes.saturating_sub(1);
        }
    }

    /// Tells the peer that no further stream is looked at. Those that run go on.
    pub(crate) fn say_farewell(&mut self) {
        if self.farewell != Farewell::No || self.failed.is_some() {
            return;
        }
        // Two steps, so that requests which are on their way now are served still.
        self.farewell = Farewell::Told;
        frame::put_goaway(&mut self.out.tail, 0x7fff_ffff, Reason::NO_ERROR);
        frame::put(&mut self.out.tail, frame::PING, 0, 0, &FAREWELL);
    }

    /// Ends the connection and all its streams.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.failed.is_some() {
            return;
        }
        if let Error::Ended { reason, by: By::Us, .. } = error {
            let last = match (self.role, self.farewell) {
                // It never grows (§6.8).
                (Role::Server, Farewell::Last(last)) => last,
                (Role::Server, _) => self.newest,
                (Role::Client, _) => 0,
            };
            frame::put_goaway(&mut self.out.tail, last, reason);
        }
        let mut gone = smallvec::SmallVec::<[u32; 8]>::new();
        for stream in self.streams.each_open() {
            stream.failed = Some(error.clone());
            stream.wake();
            gone.push(stream.id);
        }
        gone.into_iter().for_each(|id| self.streams.close(id));
        for (key, _) in std::mem::take(&mut self.accepted) {
            self.streams.free(key);
        }
        self.failed = Some(error);
    }

    /// Whether there is nothing more to do but to write what is left.
    pub(crate) fn is_finished(&self) -> bool {
        if self.failed.is_some() {
            return true;
        }
        let leaving = match self.role {
            Role::Server => self.peer_left || matches!(self.farewell, Farewell::Last(_)),
            Role::Client => self.peer_left || self.handles == 0,
        };
        leaving && self.streams.open() == 0 && self.accepted.is_empty()
    }
}
