//! Integers behind a prefix (RFC 7541 §5.1).

use bytes::{BufMut as _, BytesMut};

/// No length or index that we accept needs more octets behind its prefix.
const OCTETS: u32 = 5;

/// Reads an integer whose first octet has `prefix` bits for it. None where the bytes end, or it is larger than any we take.
pub(super) fn read(bytes: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    let mask = 0xff_u8 >> 8_u32.saturating_sub(prefix);
    let start = first & mask;
    if start < mask {
        return Some(start.into());
    }
    let mut value = u64::from(mask);
    for octet in 0..OCTETS {
        let (next, rest) = bytes.split_first()?;
        *bytes = rest;
        value = value.checked_add(u64::from(next & 0x7f) << octet.saturating_mul(7))?;
        if next & 0x80 == 0 {
            return u32::try_from(value).ok().map(|value| value as usize);
        }
    }
    None
}

/// Writes an integer behind the bits that `first` has set; most are one octet.
#[inline]
pub(super) fn write(out: &mut BytesMut, first: u8, prefix: u32, value: usize) {
    let mask = 0xff_u8 >> 8_u32.saturating_sub(prefix);
    if value < usize::from(mask) {
        out.put_u8(first | value as u8);
    } else {
        write_long(out, first, mask, value);
    }
}

fn write_long(out: &mut BytesMut, first: u8, mask: u8, value: usize) {
    out.put_u8(first | mask);
    let mut left = value.saturating_sub(usize::from(mask));
    while left >= 0x80 {
        out.put_u8((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}
