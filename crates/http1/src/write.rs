//! What both sides write: fields, chunks and trailers (RFC 9112 §5, §7.1).

use http::{HeaderMap, HeaderName};

use crate::trailers::may_trail;

/// The end of a body in chunks, behind the line end of the last one.
pub const LAST: &[u8] = b"0\r\n\r\n";

/// Appends one field.
pub fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    // One reservation for the four parts.
    out.reserve(name.len().saturating_add(value.len()).saturating_add(4));
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends `SIZE CR LF` in hexadecimal, which begins a chunk.
pub fn size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let nibbles = usize::BITS.saturating_sub(size.leading_zeros()).div_ceil(4).max(1);
    for nibble in (0..nibbles).rev() {
        let digit = (size >> nibble.saturating_mul(4)) & 15;
        out.extend(DIGITS.get(digit));
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a body in chunks, with those of `trailers` that may stand there.
pub fn end<'a>(out: &mut Vec<u8>, trailers: impl IntoIterator<Item = &'a HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| may_trail(name)) {
        field(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
