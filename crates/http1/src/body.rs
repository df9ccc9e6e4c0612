//! Takes the body of a message out of the bytes behind its head (RFC 9112 §6, §7.1).
//!
//! The chunks of a request are held to their one form. Behind the size of a chunk of an answer may stand blanks and a `;`, and
//! after that anything but control bytes.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;

use crate::Length;
use crate::classes::{TOKEN, is};
use crate::fault::Fault;
use crate::fields::{Fields, append};

/// The longest line before a chunk of a request, extensions included and line end not, in bytes.
pub const MAX_CHUNK_LINE: u16 = 256;
/// The same of an answer.
pub const MAX_ANSWER_CHUNK_LINE: u16 = 4096;
/// All extensions of one body together, in bytes.
pub const MAX_EXTENSIONS: u16 = 16 * 1024;
/// The longest trailer section, in bytes.
pub const MAX_TRAILERS: usize = 16 * 1024;

/// One step of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of it.
    Data(Bytes),
    /// The fields behind the last chunk; then the body is over.
    Trailers(HeaderMap),
    /// More bytes are needed.
    More,
    /// The body is over. What is left in the buffer does not belong to it.
    End,
}

/// The connection ended before the body did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection closed before the body was complete")]
pub struct Incomplete;

/// Where a body has come to.
#[derive(Debug)]
pub struct Decoder {
    at: At,
    /// It belongs to an answer.
    answer: bool,
    /// Bytes of the line before a chunk so far.
    line: u16,
    /// Bytes of all extensions so far.
    extensions: u16,
    trailers: Option<Box<Fields>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Fixed(u64),
    UntilClose,
    /// At the first digit of a size.
    Chunk,
    Size(u64),
    /// Within a chunk's extension; the size of the chunk is kept.
    Extension(Ext, u64),
    /// Behind the size of a chunk of an answer, before a `;` and behind it.
    Blank(u64),
    Loose(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers,
    Done,
}

/// Parts of `;name=token` and `;name="quoted"` (RFC 9112 §7.1.1), without the blanks that senders may no longer send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ext {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    Unquoted,
}

impl Decoder {
    /// At the first byte behind the head of a request.
    pub fn of_request(length: Length) -> Self {
        Self::new(length, false)
    }

    /// At the first byte behind the head of an answer.
    pub fn of_answer(length: Length) -> Self {
        Self::new(length, true)
    }

    fn new(length: Length, answer: bool) -> Self {
        let at = match length {
            Length::Empty | Length::Fixed(0) => At::Done,
            Length::Fixed(length) => At::Fixed(length),
            Length::Chunked => At::Chunk,
            Length::UntilClose => At::UntilClose,
        };
        Self { at, answer, line: 0, extensions: 0, trailers: None }
    }

    /// Whether the body is over.
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// How many bytes are still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.at {
            At::Done => Some(0),
            At::Fixed(left) => Some(left),
            _ => None,
        }
    }

    /// How many bytes of data are known to come before anything else: a hint for the size of a read.
    pub fn run(&self) -> u64 {
        match self.at {
            At::Fixed(left) | At::Data(left) => left,
            _ => 0,
        }
    }

    /// Takes the next piece out of `buf`. On a fault, what was fine has been taken.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            let Some(&byte) = buf.first() else {
                return Ok(if self.is_done() { Piece::End } else { Piece::More });
            };
            match self.at {
                At::Done => return Ok(Piece::End),
                At::Fixed(left) => {
                    let (data, left) = take(buf, left);
                    self.at = if left == 0 { At::Done } else { At::Fixed(left) };
                    return Ok(Piece::Data(data));
                }
                At::Data(left) => {
                    let (data, left) = take(buf, left);
                    self.at = if left == 0 { At::DataCr } else { At::Data(left) };
                    return Ok(Piece::Data(data));
                }
                At::UntilClose => return Ok(Piece::Data(buf.split().freeze())),
                At::Trailers => return self.trailers(buf),
                _ => {
                    self.chunk(byte)?;
                    buf.advance(1);
                }
            }
        }
    }

    /// Ends a body whose last chunk stands at the beginning of `buf`, so that its last data is known to be the last.
    pub fn finish_if_whole(&mut self, buf: &mut BytesMut) {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if self.at == At::DataCr && buf.starts_with(LAST) {
            buf.advance(LAST.len());
            self.at = At::Done;
        }
    }

    /// Says that the connection has ended. An error where the body had not.
    pub fn close(&mut self) -> Result<(), Incomplete> {
        if self.at == At::UntilClose {
            self.at = At::Done;
        }
        if self.is_done() { Ok(()) } else { Err(Incomplete) }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Piece, Fault> {
        let fields = self.trailers.get_or_insert_with(|| Box::new(Fields::of_trailers()));
        let bytes = buf.get(..MAX_TRAILERS).unwrap_or(buf);
        if !fields.read(bytes)? {
            return if buf.len() > MAX_TRAILERS { Err(Fault::Trailers) } else { Ok(Piece::More) };
        }
        let section = buf.split_to(fields.at).freeze();
        self.at = At::Done;
        let map = fields.take(&section)?;
        self.trailers = None;
        Ok(if map.is_empty() { Piece::End } else { Piece::Trailers(map) })
    }

    /// The next byte of what stands around data.
    fn chunk(&mut self, byte: u8) -> Result<(), Fault> {
        if !matches!(self.at, At::SizeLf(_) | At::DataCr | At::DataLf) && byte != b'\r' {
            self.line = self.line.saturating_add(1);
            if self.line > if self.answer { MAX_ANSWER_CHUNK_LINE } else { MAX_CHUNK_LINE } {
                return Err(Fault::ChunkLine);
            }
        }
        self.at = match (self.at, byte) {
            (at, b'\n') if !matches!(at, At::SizeLf(_) | At::DataLf | At::DataCr) => return Err(Fault::BareLf),
            (At::Chunk, _) => At::Size(u64::from(digit(byte)?)),
            (At::Size(size) | At::Loose(size), b'\r') => At::SizeLf(size),
            (At::Size(size) | At::Blank(size), b' ' | b'\t') if self.answer => At::Blank(size),
            (At::Size(size) | At::Blank(size), b';') if self.answer => At::Loose(size),
            (At::Loose(size), b'\t' | b' '..=b'~' | 0x80..) => At::Loose(size),
            (At::Loose(_), _) => return Err(Fault::Extension),
            (At::Blank(_), _) => return Err(Fault::ChunkBlank),
            (At::Size(size), b';') => At::Extension(Ext::NameStart, size),
            (At::Size(_), b' ' | b'\t') => return Err(Fault::ChunkBlank),
            (At::Size(size), _) => At::Size(append(size, 16, digit(byte)?)?),
            (At::Extension(ext, size), _) => self.extension(ext, size, byte)?,
            (At::SizeLf(size), b'\n') => {
                self.line = 0;
                if size == 0 { At::Trailers } else { At::Data(size) }
            }
            (At::SizeLf(_), _) => return Err(Fault::BareCr),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Chunk,
            _ => return Err(Fault::ChunkEnd),
        };
        Ok(())
    }

    fn extension(&mut self, ext: Ext, size: u64, byte: u8) -> Result<At, Fault> {
        if byte != b'\r' {
            self.extensions = self.extensions.saturating_add(1);
            if self.extensions > MAX_EXTENSIONS {
                return Err(Fault::Extensions);
            }
        }
        let next = match (ext, byte) {
            (Ext::Name | Ext::Value | Ext::Unquoted, b'\r') => return Ok(At::SizeLf(size)),
            (Ext::Name | Ext::Value | Ext::Unquoted, b';') => Ext::NameStart,
            (Ext::Name, b'=') => Ext::ValueStart,
            (Ext::NameStart | Ext::Name, _) if is(byte, TOKEN) => Ext::Name,
            (Ext::ValueStart, b'"') => Ext::Quoted,
            (Ext::ValueStart | Ext::Value, _) if is(byte, TOKEN) => Ext::Value,
            (Ext::Quoted, b'"') => Ext::Unquoted,
            (Ext::Quoted, b'\\') => Ext::QuotedPair,
            (Ext::Quoted | Ext::QuotedPair, b'\t' | 0x20..=0x7e | 0x80..) => Ext::Quoted,
            (_, b' ' | b'\t') => return Err(Fault::ChunkBlank),
            _ => return Err(Fault::Extension),
        };
        Ok(At::Extension(next, size))
    }
}

fn digit(byte: u8) -> Result<u8, Fault> {
    match byte {
        b'0'..=b'9' => Ok(byte.wrapping_sub(b'0')),
        b'a'..=b'f' | b'A'..=b'F' => Ok((byte | 0x20).wrapping_sub(b'a').wrapping_add(10)),
        _ => Err(Fault::ChunkSize),
    }
}

fn take(buf: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let here = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
    (buf.split_to(here).freeze(), left.saturating_sub(here as u64))
}
