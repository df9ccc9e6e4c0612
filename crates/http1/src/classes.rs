//! Which bytes may stand where, and how a run of them is found quickly.

/// `tchar` (RFC 9110 §5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// What a target may hold: visible ASCII, but for `#`, which has no place in it (RFC 9112 §3.2).
pub(crate) const TARGET: u8 = 2;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "a table that is made when this is compiled")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7f {
        let mut class = if byte == b'#' { 0 } else { TARGET };
        if byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        table[byte as usize] = class;
        byte += 1;
    }
    table
}

pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// How many bytes of this class `bytes` begins with, `most` at the most.
pub(crate) fn run(bytes: &[u8], class: u8, most: usize) -> usize {
    let bytes = bytes.get(..most).unwrap_or(bytes);
    bytes.iter().position(|byte| !is(*byte, class)).unwrap_or(bytes.len())
}

/// Where the first control byte stands: below 0x20, or DEL. Eight bytes at a time.
pub(crate) fn control(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A borrow may mark bytes above the first that counts, never below it.
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let del = del.wrapping_sub(ONES) & !del;
        let hits = (low | del) & HIGH;
        if hits != 0 {
            return Some(index * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(u8::is_ascii_control)?;
    Some(words.len() * 8 + at)
}
