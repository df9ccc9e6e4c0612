//! Writes JSON and decimal numbers straight into a buffer: no allocation, no formatting machinery.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// What stands at the end of a value that was cut.
pub(crate) const CUT: &str = "…";

/// Appends `text` escaped for the inside of a JSON string (RFC 8259 §7), without the quotes.
pub(crate) fn escaped(out: &mut Vec<u8>, text: &str) {
    // Nearly all values need no escape: one pass that the compiler turns into vector code finds that out.
    if !text.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                let (high, low) = (byte >> 4, byte & 15);
                let low = if low < 10 { b'0' + low } else { b'a' + low - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + high, low]);
            }
            _ => out.push(byte),
        }
    }
}

/// Appends `text` as a whole JSON string, cut after `cap` bytes.
pub(crate) fn string(out: &mut Vec<u8>, text: &str, cap: usize) {
    out.push(b'"');
    let (kept, mark) = cut(text, cap);
    escaped(out, kept);
    out.extend_from_slice(mark.as_bytes());
    out.push(b'"');
}

/// Appends bytes that need not be UTF-8 as a JSON string, cut after `cap` bytes; what is no text becomes U+FFFD.
pub(crate) fn lossy(out: &mut Vec<u8>, bytes: &[u8], cap: usize) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return string(out, text, cap);
    }
    let kept = bytes.get(..cap).unwrap_or(bytes);
    out.push(b'"');
    for chunk in kept.utf8_chunks() {
        escaped(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    if kept.len() < bytes.len() {
        out.extend_from_slice(CUT.as_bytes());
    }
    out.push(b'"');
}

/// The first `cap` bytes of `text` at most, whole characters only, and the mark that belongs after them.
pub(crate) fn cut(text: &str, cap: usize) -> (&str, &'static str) {
    if text.len() <= cap {
        return (text, "");
    }
    (text.get(..text.floor_char_boundary(cap)).unwrap_or_default(), CUT)
}

/// Appends a number.
pub(crate) fn number(out: &mut Vec<u8>, number: u64) {
    match number {
        0..10 => out.push(b'0' + number as u8),
        10..100 => out.extend_from_slice(&[digit(number, 10), digit(number, 1)]),
        100..1000 => out.extend_from_slice(&[digit(number, 100), digit(number, 10), digit(number, 1)]),
        _ => out.extend_from_slice(Decimal::new(number).as_bytes()),
    }
}

/// Appends `micros` as milliseconds with three decimals.
pub(crate) fn millis(out: &mut Vec<u8>, micros: u64) {
    number(out, micros / 1000);
    out.extend_from_slice(&[b'.', digit(micros, 100), digit(micros, 10), digit(micros, 1)]);
}

/// Appends an address, without quotes.
pub(crate) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            number(out, a.into());
            for octet in [b, c, d] {
                out.push(b'.');
                number(out, octet.into());
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(v6) => _ = write!(out, "{v6}"),
    }
}

/// Appends an address with its port, without quotes.
pub(crate) fn socket(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            ip(out, IpAddr::V4(*v4.ip()));
            out.push(b':');
            number(out, v4.port().into());
        }
        SocketAddr::V6(v6) => _ = write!(out, "{v6}"),
    }
}

/// The decimal text of a number.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The text of `number`.
    pub(crate) fn new(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 20);
        for place in digits.iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            start -= 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    /// As ASCII.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The decimal digit of `number` at `place` (1, 10, 100 …), in ASCII.
pub(crate) fn digit(number: u64, place: u64) -> u8 {
    b'0' + (number / place % 10) as u8
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(written(|out| string(out, "aéb", 2)), "\"a…\"");
        assert_eq!(written(|out| string(out, "aéb", 4)), "\"aéb\"");
        assert_eq!(written(|out| lossy(out, b"a\xff\xfeb", 10)), "\"a\u{FFFD}\u{FFFD}b\"");
        assert_eq!(written(|out| lossy(out, b"abc", 2)), "\"ab…\"");
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        assert_eq!(written(|out| millis(out, 0)), "0.000");
        assert_eq!(written(|out| millis(out, 1_042)), "1.042");
        assert_eq!(written(|out| millis(out, 60_000_007)), "60000.007");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(text in any::<String>(), n in any::<u64>(), v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), port in any::<u16>()) {
            let json = written(|out| string(out, &text, usize::MAX));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            prop_assert_eq!(written(|out| number(out, n)), n.to_string());
            for address in [IpAddr::from(v4), IpAddr::from(v6)] {
                prop_assert_eq!(written(|out| ip(out, address)), address.to_string());
                let socket_address = SocketAddr::new(address, port);
                prop_assert_eq!(written(|out| socket(out, socket_address)), socket_address.to_string());
            }
        }

        #[test]
        fn any_bytes_become_valid_json(bytes in any::<Vec<u8>>(), cap in 0_usize..40) {
            let json = written(|out| lossy(out, &bytes, cap));
            prop_assert!(serde_json::from_str::<String>(&json).is_ok(), "{}", json);
        }
    }
}
