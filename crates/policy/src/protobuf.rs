//! Reads and writes messages of Protocol Buffers, field by field, without generated code: for the few messages that policies exchange.
//!
//! The encoding is that of <https://protobuf.dev/programming-guides/encoding/>. Groups, which are long gone from it, are refused.

/// Numbers of variable length have at most ten bytes.
const LONGEST_NUMBER: u32 = 63;

/// A message that is being written. Fields with their default value are left out, as they all may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A whole number that is not negative, or an enum.
    pub fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// A text or bytes.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.always(field, value);
        }
    }

    /// A message within, which is there even where it is empty.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.always(field, &inner.0);
    }

    /// One entry of a map from text to text.
    pub fn entry(&mut self, field: u32, key: &[u8], value: &[u8]) {
        self.message(field, |entry| {
            entry.bytes(1, key);
            entry.bytes(2, value);
        });
    }

    fn always(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits are what is meant")]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What stands behind the number of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'m> {
    /// A whole number, a truth or an enum.
    Number(u64),
    /// A text, bytes or a message within.
    Bytes(&'m [u8]),
    /// Something of fixed length, which nobody here looks into.
    Other,
}

/// The message is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The fields of a message, in the order in which they stand.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), Malformed>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = field(&mut rest).ok_or(Malformed);
        if read.is_err() {
            rest = &[];
        }
        Some(read)
    })
}

fn field<'m>(rest: &mut &'m [u8]) -> Option<(u32, Value<'m>)> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Other)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Value::Other)?,
        _ => return None,
    };
    Some((number, value))
}

fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..=LONGEST_NUMBER).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == LONGEST_NUMBER && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        fields(message).collect()
    }

    /// The examples of the page that describes the encoding.
    #[test]
    fn messages_are_those_of_the_encoding_page() {
        let mut message = Writer::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 150));
        assert_eq!(message.clone().into_bytes(), b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
        let bytes = message.into_bytes();
        let expected = [(1, Value::Number(150)), (2, Value::Bytes(b"testing")), (3, Value::Bytes(b"\x08\x96\x01"))];
        assert_eq!(read(&bytes).unwrap(), expected);
    }

    #[test]
    fn what_is_cut_or_has_no_field_is_no_message() {
        for bad in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x00\x01",
            b"\x12\x03ab",
            b"\x0b",
            b"\x0c",
            b"\x0f\x00",
            b"\x09\x00\x00",
            b"\x0d\x00",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad:x?}");
        }
        assert_eq!(read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(vec![(1, Value::Number(u64::MAX))]));
        assert_eq!(read(b"\x0d\x00\x00\x00\x00\x11\0\0\0\0\0\0\0\0"), Ok(vec![(1, Value::Other), (2, Value::Other)]));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(parts in proptest::collection::vec((1_u32..1 << 29, any::<u64>(), any::<Vec<u8>>()), 0..8)) {
            let mut message = Writer::default();
            for (field, number, bytes) in &parts {
                message.number(*field, *number);
                message.bytes(*field, bytes);
            }
            let bytes = message.into_bytes();
            let expected: Vec<_> = parts.iter().flat_map(|(field, number, bytes)| {
                let number = (*number != 0).then_some((*field, Value::Number(*number)));
                let bytes = (!bytes.is_empty()).then_some((*field, Value::Bytes(bytes)));
                number.into_iter().chain(bytes)
            }).collect();
            prop_assert_eq!(read(&bytes).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in any::<Vec<u8>>()) {
            let _ = read(&bytes);
        }
    }
}
