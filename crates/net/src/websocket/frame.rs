//! Where the frames of a WebSocket begin and end (RFC 6455 §5.2), and what no frame may be. Pure: bytes in, places out.
//!
//! Payloads are neither looked at nor kept: text, masks, close codes and extensions are the endpoints' own matter, so the
//! three reserved bits pass. A frame costs some ten instructions for its head and none for its content.

use std::fmt;

/// The longest payload of a control frame, in bytes (§5.5).
const CONTROL: u8 = 125;
/// The longest payload whose length stands in the second byte (§5.2).
const SHORT: u8 = 125;
/// The longest head without its mask: two bytes and a length of eight.
const HEAD: usize = 10;

/// Which side sends: clients mask what they send, services do not (§5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The one that began.
    Client,
    /// The one that accepted.
    Service,
}

/// What a frame may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A client's frame without a mask (§5.1).
    #[error("a frame of a client is not masked")]
    Unmasked,
    /// A service's frame with a mask (§5.1).
    #[error("a frame of a service is masked")]
    Masked,
    /// An opcode without a meaning (§5.2).
    #[error("a frame has a reserved opcode")]
    Opcode,
    /// A control frame in pieces (§5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame over 125 bytes (§5.5).
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    /// A length whose highest bit is set (§5.2).
    #[error("the length of a frame is out of range")]
    Length,
    /// A piece of a message that was not begun, or a message within another (§5.4).
    #[error("the fragments of a message are out of order")]
    Fragments,
    /// A message over the limit.
    #[error("a message is longer than its limit")]
    TooLong,
}

impl Violation {
    /// The code to close with (§7.4.1).
    pub fn code(self) -> Code {
        if self == Self::TooLong { Code::TooBig } else { Code::Protocol }
    }
}

/// A violation, and how many of the bytes before it may still be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Bytes up to the frame that is wrong.
    pub good: usize,
    /// Whether they end with a frame; they do not where the head of the one that is wrong came in pieces.
    pub clean: bool,
    /// What is wrong with it.
    pub why: Violation,
}

/// Codes that a gateway closes with (§7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// This side goes away.
    GoingAway = 1001,
    /// The other side broke the protocol.
    Protocol = 1002,
    /// A message is too long.
    TooBig = 1009,
    /// Something unexpected happened behind this side.
    Internal = 1011,
}

/// Follows the frames that one side sends.
#[derive(Clone, Copy)]
pub struct Frames {
    sender: Sender,
    /// How long a message may be, all its frames together, in bytes.
    limit: u64,
    /// The same, where it is shorter than what counts as short.
    short: u8,
    /// What is left of the frame's content, its mask included.
    left: u64,
    /// What has come of the message.
    message: u64,
    /// What has come of the head, as far as it is not complete.
    head: [u8; HEAD],
    have: u8,
    /// A message is under way of which more frames are to come.
    fragmented: bool,
    close: bool,
}

impl Frames {
    /// Begins with the first byte behind the handshake.
    pub fn new(sender: Sender, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(u64::MAX);
        Self {
            sender,
            limit,
            short: u8::try_from(limit).map_or(SHORT, |limit| limit.min(SHORT)),
            left: 0,
            message: 0,
            head: [0; HEAD],
            have: 0,
            fragmented: false,
            close: false,
        }
    }

    /// Whether no frame is under way.
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Whether a whole Close frame has come (§5.5.1).
    pub fn has_closed(&self) -> bool {
        self.close && self.left == 0
    }

    /// Goes on by all of `bytes`.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = match self.behind_short_message(rest) {
                Some(behind) => behind,
                None => {
                    let at = self.step(bytes, bytes.len().saturating_sub(rest.len()))?;
                    bytes.get(at..).unwrap_or_default()
                }
            };
        }
        Ok(())
    }

    /// What follows the frame that begins here, if it is all of a message, good, short and complete, as most are.
    fn behind_short_message<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let [0x81 | 0x82, second, ref behind @ ..] = *bytes else { return None };
        let (length, mask) = match self.sender {
            Sender::Client => (second.wrapping_sub(0x80), 4),
            Sender::Service => (second, 0),
        };
        if length > self.short || !self.at_boundary() || self.fragmented {
            return None;
        }
        behind.get(usize::from(length.saturating_add(mask))..)
    }

    /// Goes on to the end of the frame that is under way, if there is one and it ends within `bytes`. Answers how many
    /// bytes that took.
    pub fn finish_frame(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        while at < bytes.len() && !self.at_boundary() {
            at = self.step(bytes, at)?;
        }
        Ok(at)
    }

    /// Takes one piece: what there is of a content, or of a head. Answers where the next begins.
    #[inline(never)]
    fn step(&mut self, bytes: &[u8], at: usize) -> Result<usize, Broken> {
        let rest = bytes.get(at..).unwrap_or_default();
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
            self.left = self.left.saturating_sub(taken as u64);
            return Ok(at.saturating_add(taken));
        }
        let had = usize::from(self.have);
        let broken = |why| Broken { good: if had == 0 { at } else { 0 }, clean: had == 0, why };
        let wanted = self.wanted();
        let taken = wanted.saturating_sub(had).min(rest.len());
        if let (Some(into), Some(from)) = (self.head.get_mut(had..had.saturating_add(taken)), rest.get(..taken)) {
            into.copy_from_slice(from);
        }
        self.have = self.have.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
        let mut next = at.saturating_add(taken);
        if usize::from(self.have) == 2 {
            self.check().map_err(broken)?;
            let more = self.wanted().saturating_sub(2);
            let rest = bytes.get(next..).unwrap_or_default();
            let taken = more.min(rest.len());
            if let (Some(into), Some(from)) = (self.head.get_mut(2..taken.saturating_add(2)), rest.get(..taken)) {
                into.copy_from_slice(from);
            }
            self.have = self.have.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
            next = next.saturating_add(taken);
        }
        if usize::from(self.have) == self.wanted() {
            self.begin().map_err(broken)?;
        }
        Ok(next)
    }

    /// How long the head is, as far as that is known.
    fn wanted(&self) -> usize {
        match self.head {
            _ if self.have < 2 => 2,
            [_, length, ..] if length & 0x7F == 126 => 4,
            [_, length, ..] if length & 0x7F == 127 => HEAD,
            _ => 2,
        }
    }

    /// What the first two bytes say.
    fn check(&self) -> Result<(), Violation> {
        let [first, second, ..] = self.head;
        let (is_final, opcode, length) = (first & 0x80 != 0, first & 0x0F, second & 0x7F);
        match (self.sender, second & 0x80 != 0) {
            (Sender::Client, false) => return Err(Violation::Unmasked),
            (Sender::Service, true) => return Err(Violation::Masked),
            _ => {}
        }
        match opcode {
            0 if self.fragmented => Ok(()),
            1 | 2 if !self.fragmented => Ok(()),
            0..=2 => Err(Violation::Fragments),
            8..=10 if !is_final => Err(Violation::FragmentedControl),
            8..=10 if length > CONTROL => Err(Violation::LongControl),
            8..=10 => Ok(()),
            _ => Err(Violation::Opcode),
        }
    }

    /// The head is whole: its content begins.
    fn begin(&mut self) -> Result<(), Violation> {
        let [first, second, ext @ ..] = self.head;
        let length = match (second & 0x7F, ext) {
            (126, [high, low, ..]) => u64::from(u16::from_be_bytes([high, low])),
            (127, ext) => u64::from_be_bytes(ext),
            (length, _) => u64::from(length),
        };
        if length > i64::MAX as u64 {
            return Err(Violation::Length);
        }
        match first & 0x0F {
            opcode @ 0..=2 => {
                self.message = if opcode == 0 { self.message.saturating_add(length) } else { length };
                if self.message > self.limit {
                    return Err(Violation::TooLong);
                }
                self.fragmented = first & 0x80 == 0;
            }
            opcode => self.close |= opcode == 8,
        }
        self.have = 0;
        self.left = length.saturating_add(if second & 0x80 == 0 { 0 } else { 4 });
        Ok(())
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("sender", &self.sender).field("left", &self.left).finish_non_exhaustive()
    }
}

/// A Close frame with this code, as `sender` writes it (§5.5.1); `mask` is used where it is a client.
pub fn close(sender: Sender, code: Code, mask: [u8; 4]) -> Vec<u8> {
    let [high, low] = (code as u16).to_be_bytes();
    match sender {
        Sender::Service => vec![0x88, 2, high, low],
        Sender::Client => {
            let [a, b, c, d] = mask;
            vec![0x88, 0x82, a, b, c, d, high ^ a, low ^ b]
        }
    }
}

#[cfg(test)]
mod tests;
