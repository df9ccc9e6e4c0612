//! The lines before and behind chunks (RFC 9112 §7.1).

use super::bytes::{TOKEN, is};
use super::fault::Fault;
use super::framing::append;
use super::{At, MAX_CHUNK_LINE, MAX_EXTENSIONS, Scanner};

/// Parts of `;name=token` and `;name="quoted"` (RFC 9112 §7.1.1), without the blanks that senders may no longer send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ext {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    Unquoted,
}

impl Scanner {
    pub(super) fn chunk(&mut self, rest: &mut &[u8]) -> Result<(), Fault> {
        let Some(&byte) = rest.first() else { return Ok(()) };
        if matches!(self.at, At::Chunk | At::Size(_) | At::Extension(..)) && byte != b'\r' {
            self.count = self.count.saturating_add(1);
            if self.count > MAX_CHUNK_LINE {
                return Err(Fault::ChunkLine);
            }
        }
        let next = match (self.at, byte) {
            (_, b'\n') if !matches!(self.at, At::SizeLf(_) | At::DataLf | At::DataCr) => return Err(Fault::BareLf),
            (At::Chunk, _) => At::Size(digit(byte)?),
            (At::Size(size), b'\r') => At::SizeLf(size),
            (At::Size(size), b';') => At::Extension(Ext::NameStart, size),
            (At::Size(_), b' ' | b'\t') => return Err(Fault::ChunkBlank),
            (At::Size(size), _) => At::Size(append(size, 16, u8::try_from(digit(byte)?).unwrap_or_default())?),
            (At::Extension(ext, size), _) => self.extension(ext, size, byte)?,
            (At::SizeLf(_), b'\n') => {
                self.count = 0;
                match self.at {
                    At::SizeLf(0) => {
                        self.trailers = true;
                        At::Field
                    }
                    At::SizeLf(size) => At::Data(size),
                    at => at,
                }
            }
            (At::SizeLf(_), _) => return Err(Fault::BareCr),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Chunk,
            _ => return Err(Fault::ChunkEnd),
        };
        self.go(rest, next);
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

fn digit(byte: u8) -> Result<u64, Fault> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(Fault::ChunkSize)
}
