//! Holds a client's bytes against HTTP/1.1 before the codec acts on them: what two readers may understand differently is
//! refused (RFC 9112 §2.2, §3, §5, §6.3, §7.1, §11.2). Pure: it sees slices as they are read, in whatever pieces.
//!
//! It follows heads, bodies, chunks and trailers of one request after the other and keeps none of their bytes. Left to
//! others: Host and the path (the proxy's reading of heads), and the length of a head (the codec).

use bytes::{TARGET, TOKEN, control, is, run, take_run};
use chunks::Ext;
use fault::Fault;
use framing::Number;

mod bytes;
mod chunks;
pub mod fault;
mod framing;
#[cfg(test)]
mod tests;

/// The longest method, in bytes.
pub const MAX_METHOD: u16 = 64;
/// The longest target, in bytes: the codec counts no further.
pub const MAX_TARGET: u16 = u16::MAX - 1;
/// The longest line before a chunk, extensions included and line end not, in bytes.
pub const MAX_CHUNK_LINE: u16 = 256;
/// All extensions of one body together, in bytes.
pub const MAX_EXTENSIONS: u16 = 16 * 1024;
/// The longest trailer section, in bytes.
pub const MAX_TRAILERS: u16 = 16 * 1024;
/// The longest body, and the longest chunk: many readers count in signed numbers of 64 bits.
pub const MAX_LENGTH: u64 = i64::MAX as u64;

/// What a reader gets in place of bytes that are refused: no head, chunk line or trailer goes on so, wherever it was cut.
/// (Within a chunk's data, and within a body of known length, nothing is refused.)
pub const POISON: &[u8] = b"\r\0\r\n\r\n";

/// Where a request's bytes have come to.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    at: At,
    /// Whether an empty line stood before the request.
    led: bool,
    /// Bytes of the method, target, chunk line or trailer section so far.
    count: u16,
    /// Bytes of all chunk extensions of this body.
    extensions: u16,
    /// The beginning of a field's name, where a piece of input ended within it; its length may exceed what is kept.
    name: [u8; 17],
    named: u8,
    /// Of HTTP/1.0.
    old: bool,
    upgrade: bool,
    chunked: bool,
    length: Option<u64>,
    trailers: bool,
}

/// What a piece of input came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// All of it is fine, and a request is under way, or none has begun.
    More,
    /// A request ended.
    End {
        /// Whether it asked to go on in another protocol, so that what follows may be no HTTP/1.1.
        upgrade: bool,
    },
    /// The next byte must not reach anybody.
    Fault(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// Before a request line.
    #[default]
    Start,
    StartLf,
    Method,
    Target,
    /// So many bytes of the version have come.
    Version(u8),
    /// Behind the CR of a request line or field.
    LineLf,
    /// At the beginning of a field, or of the empty line.
    Field,
    Name,
    Value,
    /// Within a Content-Length.
    Length(Number),
    /// Within a Transfer-Encoding, of which so many letters have come.
    Coding(u8),
    /// Behind the CR of the empty line.
    HeadLf,
    Body(u64),
    /// At the first digit of a size.
    Chunk,
    Size(u64),
    /// Within a chunk's extension; the size of the chunk is kept.
    Extension(Ext, u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
}

const VERSION: &[u8; 7] = b"HTTP/1.";

impl Scanner {
    /// Looks at the next bytes. Answers how many of them are fine, and what ended there.
    pub fn scan(&mut self, bytes: &[u8]) -> (usize, Event) {
        let mut rest = bytes;
        let event = loop {
            if rest.is_empty() {
                break Event::More;
            }
            match self.step(&mut rest) {
                Ok(false) => {}
                Ok(true) => {
                    let upgrade = self.upgrade;
                    *self = Self::default();
                    break Event::End { upgrade };
                }
                Err(fault) => break Event::Fault(fault),
            }
        };
        (bytes.len().saturating_sub(rest.len()), event)
    }

    /// Whether the target of a request is under way.
    pub fn is_in_target(&self) -> bool {
        self.at == At::Target
    }

    /// Takes at least one byte off `rest`, or finds it at fault. Answers whether the request is over.
    fn step(&mut self, rest: &mut &[u8]) -> Result<bool, Fault> {
        if self.trailers {
            return self.trailer(rest);
        }
        match self.at {
            At::Start | At::StartLf | At::Method | At::Target | At::Version(_) => self.request_line(rest)?,
            At::LineLf | At::Field | At::Name | At::Value | At::Length(_) | At::Coding(_) => self.field(rest)?,
            At::HeadLf => {
                line_feed(rest)?;
                return Ok(self.head_ended());
            }
            At::Body(left) => {
                let left = skip(rest, left);
                self.at = At::Body(left);
                return Ok(left == 0);
            }
            At::Data(left) => {
                let left = skip(rest, left);
                self.at = if left == 0 { At::DataCr } else { At::Data(left) };
            }
            At::Chunk | At::Size(_) | At::Extension(..) | At::SizeLf(_) | At::DataCr | At::DataLf => {
                self.chunk(rest)?;
            }
        }
        Ok(false)
    }

    fn request_line(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        match self.at {
            At::Method => self.method(rest),
            At::Target => self.target(rest),
            At::Version(so_far) => self.version(rest, so_far),
            At::StartLf => {
                line_feed(rest)?;
                (self.led, self.at) = (true, At::Start);
                Ok(())
            }
            _ => match rest.first() {
                Some(b'\r') if !self.led => {
                    self.go(rest, At::StartLf);
                    Ok(())
                }
                Some(b'\r' | b'\n') => Err(Fault::LeadingLines),
                _ => {
                    (self.at, self.count) = (At::Method, 0);
                    self.method(rest)
                }
            },
        }
    }

    fn method(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let room = MAX_METHOD.saturating_sub(self.count);
        self.count = self.count.saturating_add(take_run(rest, TOKEN, room));
        match rest.first() {
            None => Ok(()),
            Some(b' ') if self.count > 0 => {
                self.count = 0;
                self.go(rest, At::Target);
                Ok(())
            }
            Some(b' ' | b'\t' | b'\r' | b'\n') => Err(Fault::RequestLine),
            Some(byte) if is(*byte, TOKEN) => Err(Fault::MethodTooLong),
            Some(_) => Err(Fault::Method),
        }
    }

    fn target(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let room = MAX_TARGET.saturating_sub(self.count);
        self.count = self.count.saturating_add(take_run(rest, TARGET, room));
        match rest.first() {
            None => Ok(()),
            Some(b' ') if self.count > 0 => {
                self.go(rest, At::Version(0));
                Ok(())
            }
            Some(b'#') => Err(Fault::Fragment),
            Some(b' ' | b'\t' | b'\r' | b'\n') => Err(Fault::RequestLine),
            Some(byte) if is(*byte, TARGET) => Err(Fault::TargetTooLong),
            Some(_) => Err(Fault::Target),
        }
    }

    fn version(&mut self, rest: &mut &[u8], so_far: u8) -> Result<(), Fault> {
        let Some(byte) = rest.first() else { return Ok(()) };
        match (so_far, byte) {
            // The usual case, at once.
            (0, _) if rest.starts_with(b"HTTP/1.1\r") => {
                *rest = rest.get(9..).unwrap_or_default();
                self.at = At::LineLf;
                return Ok(());
            }
            (0..7, _) if VERSION.get(usize::from(so_far)) == Some(byte) => {}
            (7, b'0') => self.old = true,
            (7, b'1') => {}
            (8, b'\r') => {
                self.go(rest, At::LineLf);
                return Ok(());
            }
            (_, b' ' | b'\t') => return Err(Fault::RequestLine),
            _ => return Err(Fault::Version),
        }
        self.go(rest, At::Version(so_far.saturating_add(1)));
        Ok(())
    }

    fn field(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        match self.at {
            At::LineLf => {
                plain_fields(rest);
                line_feed(rest)?;
                self.at = At::Field;
                Ok(())
            }
            At::Field => match rest.first() {
                Some(b'\r') => {
                    self.go(rest, At::HeadLf);
                    Ok(())
                }
                Some(b' ' | b'\t') => Err(Fault::Fold),
                Some(b'\n') => Err(Fault::BareLf),
                _ => {
                    (self.at, self.named) = (At::Name, 0);
                    self.name(rest)
                }
            },
            At::Name => self.name(rest),
            At::Length(number) => self.number(rest, number),
            At::Coding(so_far) => self.coding(rest, so_far),
            _ => self.value(rest),
        }
    }

    fn name(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let all = *rest;
        let run = run(all, TOKEN, usize::MAX);
        let (name, behind) = all.split_at_checked(run).unwrap_or((all, &[]));
        *rest = behind;
        match behind.first() {
            None => self.keep_name(name),
            Some(b':') if self.named == 0 && run > 0 => {
                *rest = behind.get(1..).unwrap_or_default();
                self.begin_value(name)?;
            }
            Some(b':') if self.named > 0 => {
                self.keep_name(name);
                let kept = self.name;
                *rest = behind.get(1..).unwrap_or_default();
                self.begin_value(kept.get(..usize::from(self.named)).unwrap_or_default())?;
            }
            Some(b':') => return Err(Fault::EmptyName),
            Some(b' ' | b'\t') => return Err(Fault::BlankBeforeColon),
            Some(b'\r' | b'\n') => return Err(Fault::NoColon),
            Some(_) => return Err(Fault::Name),
        }
        Ok(())
    }

    /// Keeps the beginning of a name whose rest is still to come.
    fn keep_name(&mut self, part: &[u8]) {
        for byte in part {
            if let Some(slot) = self.name.get_mut(usize::from(self.named)) {
                *slot = *byte;
            }
            // One more than there is room for is enough to know that it is none of ours.
            self.named = self.named.saturating_add(1).min(18);
        }
    }

    fn value(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let all = *rest;
        let Some(at) = control(all) else {
            *rest = &[];
            return Ok(());
        };
        *rest = all.get(at..).unwrap_or_default();
        match rest.first() {
            Some(b'\r') => self.go(rest, At::LineLf),
            Some(b'\t') => self.go(rest, At::Value),
            Some(b'\n') => return Err(Fault::BareLf),
            _ => return Err(Fault::Control),
        }
        Ok(())
    }

    /// A step within the trailers, which are counted.
    fn trailer(&mut self, rest: &mut &[u8]) -> Result<bool, Fault> {
        let all = *rest;
        let room = usize::from(MAX_TRAILERS.saturating_sub(self.count));
        let mut part = all.get(..room).unwrap_or(all);
        if part.is_empty() {
            return Err(Fault::Trailers);
        }
        let before = part.len();
        let over = if self.at == At::HeadLf {
            line_feed(&mut part).map(|()| true)
        } else {
            self.field(&mut part).map(|()| false)
        };
        let taken = before.saturating_sub(part.len());
        self.count = self.count.saturating_add(u16::try_from(taken).unwrap_or(u16::MAX));
        *rest = all.get(taken..).unwrap_or_default();
        over
    }

    /// Takes one byte and goes on at `at`.
    fn go(&mut self, rest: &mut &[u8], at: At) {
        *rest = rest.get(1..).unwrap_or_default();
        self.at = at;
    }
}

/// Takes whole fields that are fine and frame nothing, each with the line feed before it and the CR behind it: the usual
/// case at once. Whatever is not so plain is left to the steps.
fn plain_fields(rest: &mut &[u8]) {
    while let Some((b'\n', line)) = rest.split_first() {
        let name = run(line, TOKEN, usize::MAX);
        // As long as the names that frame a body or ask for another protocol.
        if matches!(name, 0 | 7 | 14 | 17) {
            return;
        }
        let Some((b':', value)) = line.get(name..).and_then(<[u8]>::split_first) else { return };
        let Some(end) = control(value) else { return };
        match value.get(end..) {
            Some([b'\r', behind @ ..]) if !behind.is_empty() => *rest = behind,
            _ => return,
        }
    }
}

fn line_feed(rest: &mut &[u8]) -> Result<(), Fault> {
    match rest.split_first() {
        Some((b'\n', behind)) => {
            *rest = behind;
            Ok(())
        }
        _ => Err(Fault::BareCr),
    }
}

/// Drops up to `left` bytes and answers how many are left then.
fn skip(rest: &mut &[u8], left: u64) -> u64 {
    let all = *rest;
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(all.len());
    *rest = all.get(taken..).unwrap_or_default();
    left.saturating_sub(taken as u64)
}
