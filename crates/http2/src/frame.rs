//! Frames on the wire (RFC 9113 §4 and §6): their nine bytes in front, and those that we write.

use bytes::{BufMut as _, BytesMut};

use crate::error::{Fatal, Reason};

/// What a client begins with (§3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of what stands in front of each payload.
pub(crate) const HEADER: usize = 9;
/// The longest payload that is taken or sent: what holds unless a peer asks for more (§6.5.2).
pub(crate) const MAX_PAYLOAD: usize = 16_384;
/// The widest window there may be (§6.9.1).
pub(crate) const MAX_WINDOW: i64 = 0x7fff_ffff;
/// The window of a connection, and of each stream, until somebody says otherwise (§6.9.2).
pub(crate) const DEFAULT_WINDOW: i64 = 65_535;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PUSH_PROMISE: u8 = 0x5;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITISED: u8 = 0x20;

pub(crate) const HEADER_TABLE_SIZE: u16 = 0x1;
pub(crate) const ENABLE_PUSH: u16 = 0x2;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 0x4;
pub(crate) const MAX_FRAME_SIZE: u16 = 0x5;
pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
/// RFC 8441 §3.
pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What stands in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// Reads it, where it is whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let ([high, middle, low, kind, flags], stream) = bytes.split_first_chunk()?;
        Some(Self {
            length: u32::from_be_bytes([0, *high, *middle, *low]) as usize,
            kind: *kind,
            flags: *flags,
            stream: number(stream)?,
        })
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn bytes(self) -> [u8; HEADER] {
        let [_, high, middle, low] = (self.length as u32).to_be_bytes();
        let [first, second, third, fourth] = self.stream.to_be_bytes();
        [high, middle, low, self.kind, self.flags, first, second, third, fourth]
    }
}

/// Takes the padding away (§6.1).
pub(crate) fn unpad(head: Head, payload: &[u8]) -> Result<&[u8], Fatal> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let whole = |(padding, rest): (&u8, _)| {
        let rest: &[u8] = rest;
        rest.get(..rest.len().checked_sub(usize::from(*padding))?)
    };
    payload.split_first().and_then(whole).ok_or(Fatal::protocol("padding longer than its frame"))
}

/// Appends a frame.
pub(crate) fn put(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.reserve(HEADER.saturating_add(payload.len()));
    out.put_slice(&Head { length: payload.len(), kind, flags, stream }.bytes());
    out.put_slice(payload);
}

/// Appends SETTINGS.
pub(crate) fn put_settings(out: &mut BytesMut, settings: &[(u16, u32)]) {
    out.put_slice(&Head { length: settings.len().saturating_mul(6), kind: SETTINGS, flags: 0, stream: 0 }.bytes());
    for (name, value) in settings {
        out.put_u16(*name);
        out.put_u32(*value);
    }
}

/// Appends RST_STREAM.
pub(crate) fn put_reset(out: &mut BytesMut, stream: u32, reason: Reason) {
    put(out, RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes());
}

/// Appends WINDOW_UPDATE.
pub(crate) fn put_window(out: &mut BytesMut, stream: u32, more: u32) {
    put(out, WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
}

/// Appends GOAWAY.
pub(crate) fn put_goaway(out: &mut BytesMut, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    let (first, second) = payload.split_at_mut(4);
    first.copy_from_slice(&last.to_be_bytes());
    second.copy_from_slice(&u32::from(reason).to_be_bytes());
    put(out, GOAWAY, 0, 0, &payload);
}

/// A length as windows count.
pub(crate) fn width(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The number that four bytes make, without its first bit, which means nothing.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}
