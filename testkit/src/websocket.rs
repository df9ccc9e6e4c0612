//! WebSocket, frame by frame (RFC 6455): both sides of a handshake, and a service that gives back what it gets.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::{Raw, request};
use crate::message::{Message, ReadError};
use crate::upstream::{Peer, Upstream};

/// A key, and what it is answered by: the example of the RFC.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A text.
pub const TEXT: u8 = 1;
/// Bytes.
pub const BINARY: u8 = 2;
/// The end.
pub const CLOSE: u8 = 8;
/// A question whether the other side is there.
pub const PING: u8 = 9;
/// The answer to it.
pub const PONG: u8 = 10;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with it.
    pub is_final: bool,
    /// What it is.
    pub opcode: u8,
    /// Whether it came with a mask.
    pub masked: bool,
    /// Its content, without the mask.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a Close frame.
    pub fn code(&self) -> Option<u16> {
        match self.payload.get(..2) {
            Some([high, low]) if self.opcode == CLOSE => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }

    /// Reads one by `exactly`, which reads so many bytes.
    ///
    /// # Errors
    /// As `exactly` tells.
    pub fn read<E>(mut exactly: impl FnMut(usize) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let head = exactly(2)?;
        let length = match head[1] & 0x7F {
            126 => exactly(2)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => exactly(8)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            length => usize::from(length),
        };
        let masked = head[1] & 0x80 != 0;
        let mask = if masked { exactly(4)? } else { vec![0; 4] };
        let mut payload = exactly(length)?;
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[at % 4];
        }
        Ok(Self { is_final: head[0] & 0x80 != 0, opcode: head[0] & 0x0F, masked, payload })
    }
}

/// A final frame as a client sends it.
pub fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload, Some([7, 1, 9, 4]))
}

/// A final frame as a service sends it.
pub fn from_service(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(0x80 | opcode, payload, None)
}

/// A frame whose first byte is `first`.
pub fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit: u8 = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(bit | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(bit | 0x7E);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(bit | 0x7F);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.inspect(|mask| bytes.extend_from_slice(mask)).unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// The payload of a Close frame.
pub fn code(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

/// A handshake in wire format, with these fields besides.
pub fn handshake(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
    ];
    request("GET", path, &[&fields, more].concat(), b"")
}

/// What a service answers to a handshake, with these fields besides.
pub fn switching(request: &Message, more: &str) -> String {
    let key = request.field("sec-websocket-key").unwrap_or_default();
    let hash = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes(),
    );
    let accept = STANDARD.encode(hash);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n{more}\r\n"
    )
}

/// A service that switches where it is asked to, and then gives back each message; other requests it answers `plain`.
pub fn echo() -> Upstream {
    Upstream::script(|peer| {
        while let Ok(request) = peer.request() {
            if request.field("upgrade").is_some() {
                peer.send(switching(&request, ""));
                return give_back(peer);
            }
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain");
        }
    })
}

/// Gives back each message, answers each ping and the Close, and closes then.
pub fn give_back(peer: &mut Peer) {
    while let Ok(frame) = next(peer) {
        let first = if frame.is_final { 0x80 } else { 0 };
        let opcode = if frame.opcode == PING { PONG } else { frame.opcode };
        if !peer.send(self::frame(first | opcode, &frame.payload, None)) || frame.opcode == CLOSE {
            return;
        }
    }
}

/// The next frame that a service gets.
///
/// # Errors
/// As the connection ends.
pub fn next(peer: &mut Peer) -> Result<Frame, ReadError> {
    Frame::read(|length| peer.exactly(length))
}

/// A client that has switched.
#[derive(Debug)]
pub struct WebSocket {
    /// Its connection.
    pub raw: Raw,
    /// The answer to its handshake.
    pub answer: Message,
}

impl WebSocket {
    /// Shakes hands on this connection.
    ///
    /// # Panics
    /// If it is not switched.
    pub fn begin(mut raw: Raw, path: &str, more: &[(&str, &str)]) -> Self {
        let answer = raw.send(handshake(path, more)).head();
        assert_eq!(answer.status(), 101, "{answer:?}");
        Self { raw, answer }
    }

    /// Sends a whole message or control frame.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> &mut Self {
        self.raw.send(from_client(opcode, payload));
        self
    }

    /// The next frame.
    ///
    /// # Panics
    /// If none comes.
    pub fn frame(&mut self) -> Frame {
        Frame::read(|length| Ok::<_, ()>(self.raw.exactly(length))).unwrap()
    }

    /// Sends a message and wants it back.
    ///
    /// # Panics
    /// If something else comes.
    pub fn echoes(&mut self, opcode: u8, payload: &[u8]) {
        self.send(opcode, payload);
        let frame = self.frame();
        assert!(!frame.masked && frame.opcode == opcode && frame.payload == payload, "another message came back");
    }
}
