//! The length of a body by the fields of its head (RFC 9112 §6).

use super::fault::Fault;
use super::{At, MAX_LENGTH, Scanner};

/// How much of a Content-Length has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Before,
    Digits(u64),
    Behind(u64),
}

const CHUNKED: &[u8; 7] = b"chunked";

impl Scanner {
    /// A field's name is whole: does it frame the body?
    pub(super) fn begin_value(&mut self, name: &[u8]) -> Result<(), Fault> {
        self.at = At::Value;
        if self.trailers {
            return Ok(());
        }
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = !self.old,
            14 if name.eq_ignore_ascii_case(b"content-length") => match self.length {
                Some(_) => return Err(Fault::Lengths),
                None if self.chunked => return Err(Fault::LengthAndCoding),
                None => self.at = At::Length(Number::Before),
            },
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => match self.length {
                _ if self.old => return Err(Fault::OldCoding),
                _ if self.chunked => return Err(Fault::Codings),
                Some(_) => return Err(Fault::LengthAndCoding),
                None => self.at = At::Coding(0),
            },
            _ => {}
        }
        Ok(())
    }

    pub(super) fn number(&mut self, rest: &mut &[u8], number: Number) -> Result<(), Fault> {
        let Some(byte) = rest.first() else { return Ok(()) };
        let next = match (number, byte) {
            (Number::Before, b' ' | b'\t') => Number::Before,
            (Number::Before, b'0'..=b'9') => Number::Digits(u64::from(byte.wrapping_sub(b'0'))),
            (Number::Digits(so_far), b'0'..=b'9') => Number::Digits(append(so_far, 10, byte.wrapping_sub(b'0'))?),
            (Number::Digits(value) | Number::Behind(value), b' ' | b'\t') => Number::Behind(value),
            (Number::Digits(value) | Number::Behind(value), b'\r') => {
                self.length = Some(value);
                self.go(rest, At::LineLf);
                return Ok(());
            }
            (_, b'\n') => return Err(Fault::BareLf),
            _ => return Err(Fault::Length),
        };
        self.go(rest, At::Length(next));
        Ok(())
    }

    /// Letters so far: up to 7; 8 behind a blank that follows the last.
    pub(super) fn coding(&mut self, rest: &mut &[u8], so_far: u8) -> Result<(), Fault> {
        let Some(byte) = rest.first() else { return Ok(()) };
        let next = match (so_far, byte) {
            (0, b' ' | b'\t') => 0,
            (0..7, _) if CHUNKED.get(usize::from(so_far)).is_some_and(|letter| byte.eq_ignore_ascii_case(letter)) => {
                so_far.saturating_add(1)
            }
            (7 | 8, b' ' | b'\t') => 8,
            (7 | 8, b'\r') => {
                self.chunked = true;
                self.go(rest, At::LineLf);
                return Ok(());
            }
            (_, b'\n') => return Err(Fault::BareLf),
            _ => return Err(Fault::Coding),
        };
        self.go(rest, At::Coding(next));
        Ok(())
    }

    /// Answers whether the request ends with its head.
    pub(super) fn head_ended(&mut self) -> bool {
        (self.at, self.count) = match self.length {
            _ if self.chunked => (At::Chunk, 0),
            Some(length) => (At::Body(length), 0),
            None => return true,
        };
        self.at == At::Body(0)
    }
}

/// One more digit.
pub(super) fn append(so_far: u64, radix: u64, digit: u8) -> Result<u64, Fault> {
    let value = so_far.checked_mul(radix).and_then(|value| value.checked_add(u64::from(digit)));
    value.filter(|value| *value <= MAX_LENGTH).ok_or(Fault::TooLong)
}
