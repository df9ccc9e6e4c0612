//! Names of fields that are seen often, told without a hash of theirs and without a copy.

use http::HeaderName;

/// The same names twice: as they are written, which can be looked at while this is compiled, and as names.
macro_rules! names {
    ($($text:literal)*) => {
        const TEXTS: [&str; COUNT] = [$($text),*];
        static NAMES: [HeaderName; COUNT] = [$(HeaderName::from_static($text)),*];
    };
}

const COUNT: usize = 81;

names! {
    "host" "connection" "accept" "accept-encoding" "accept-language" "accept-charset" "accept-ranges" "user-agent"
    "content-length" "content-type" "content-encoding" "content-language" "content-disposition" "content-location"
    "content-range" "transfer-encoding" "cookie" "set-cookie" "authorization" "cache-control" "pragma" "origin"
    "referer" "te" "trailer" "upgrade" "expect" "via" "forwarded" "from" "range" "if-match" "if-none-match"
    "if-modified-since" "if-unmodified-since" "if-range" "date" "dnt" "upgrade-insecure-requests"
    "access-control-request-method" "access-control-request-headers" "access-control-allow-origin"
    "access-control-expose-headers" "sec-websocket-key" "sec-websocket-version"
    "sec-websocket-protocol" "sec-websocket-extensions" "sec-websocket-accept" "proxy-authorization"
    "proxy-connection" "keep-alive" "x-forwarded-for" "x-forwarded-proto" "x-forwarded-host" "x-real-ip"
    "x-request-id" "traceparent" "tracestate" "grpc-timeout" "sec-fetch-mode" "sec-fetch-site" "sec-fetch-dest"
    "sec-fetch-user" "priority" "max-forwards" "server" "etag" "last-modified" "expires" "age" "location" "vary"
    "link" "allow" "retry-after" "strict-transport-security" "x-content-type-options" "x-frame-options"
    "content-security-policy" "referrer-policy" "www-authenticate"
}

/// The place of a name that is none of these.
pub(crate) const OTHER: u8 = u8::MAX;

pub(crate) const CONNECTION: u8 = at("connection");
pub(crate) const CONTENT_LENGTH: u8 = at("content-length");
pub(crate) const EXPECT: u8 = at("expect");
pub(crate) const TE: u8 = at("te");
pub(crate) const TRANSFER_ENCODING: u8 = at("transfer-encoding");
pub(crate) const UPGRADE: u8 = at("upgrade");

/// Within so many bytes stand all names that are known, and their colons.
const LONGEST: usize = 32;
/// Eight bytes of a name, the first one lowest.
type Word = u64;
const WORD: usize = size_of::<Word>();
/// A bit in each byte.
const ONES: Word = Word::from_ne_bytes([1; WORD]);

/// A name as it is compared: in lower case, with zeros behind it.
#[derive(Clone, Copy)]
struct Known {
    length: usize,
    words: [Word; LONGEST / WORD],
}

impl Known {
    #[expect(
        clippy::indexing_slicing,
        reason = "computed when this is compiled, where an index out of bounds is an error"
    )]
    const fn new(text: &str) -> Self {
        let text = text.as_bytes();
        assert!(text.len() < LONGEST);
        let (mut words, mut at) = ([0; LONGEST / WORD], 0);
        while at < text.len() {
            words[at / WORD] |= (text[at] as Word) << (at % WORD * 8);
            at += 1;
        }
        Self { length: text.len(), words }
    }
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
static KNOWN: [Known; COUNT] = {
    let (mut known, mut at) = ([Known::new(""); COUNT], 0);
    while at < COUNT {
        known[at] = Known::new(TEXTS[at]);
        at += 1;
    }
    known
};

/// Places in the index: the more, the sooner a factor is found that gives each name its own.
const PLACES: usize = 1024;

/// By which two words of a name become its place, and which name stands at each.
static INDEX: (Word, [u8; PLACES]) = {
    let mut factor = 0x9e37_79b9_7f4a_7c15;
    loop {
        if let Some(index) = index(factor) {
            break (factor, index);
        }
        factor = factor.wrapping_add(ONES << 1);
    }
};

/// None where two names have the same place by this factor.
#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn index(factor: Word) -> Option<[u8; PLACES]> {
    let (mut table, mut at) = ([OTHER; PLACES], 0);
    while at < COUNT {
        let Known { length, words } = Known::new(TEXTS[at]);
        let place = place(factor, length, words[0], words[(length - 1) / WORD]);
        if table[place] != OTHER {
            return None;
        }
        table[place] = at as u8;
        at += 1;
    }
    Some(table)
}

/// A place for a name, whatever its case, by its length and its first and its last word.
const fn place(factor: Word, length: usize, first: Word, last: Word) -> usize {
    let (first, last) = (first | (ONES * 0x20), last | (ONES * 0x20));
    let mixed = (first.rotate_left(length as u32) ^ last).wrapping_mul(factor);
    (mixed >> (Word::BITS - PLACES.trailing_zeros())) as usize
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn at(name: &str) -> u8 {
    let mut at = 0;
    while at < COUNT {
        if eq(TEXTS[at].as_bytes(), name.as_bytes()) {
            return at as u8;
        }
        at += 1;
    }
    OTHER
}

#[expect(clippy::indexing_slicing, reason = "computed when this is compiled, where an index out of bounds is an error")]
const fn eq(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    one.len() == other.len()
}

/// A known name at the beginning of `bytes` with a colon behind it, in whatever case, and its length.
pub(crate) fn find(bytes: &[u8]) -> Option<(u8, usize)> {
    let words = words(bytes);
    let length = colon(&words)?;
    let last = length.checked_sub(1)? / WORD;
    let keep = Word::MAX >> (Word::BITS as usize - (length - last * WORD) * 8);
    let tail = words.get(last)? & keep;
    let head = if last == 0 { tail } else { words[0] };
    let (factor, names) = &INDEX;
    let index = *names.get(place(*factor, length, head, tail))?;
    let known = KNOWN.get(usize::from(index))?;
    let whole = known.words.get(..last)?.iter().zip(&words).all(|(known, written)| is(*known, *written));
    (known.length == length && whole && is(*known.words.get(last)?, tail)).then_some((index, length))
}

/// Whether what is written are these letters of a name, in whatever case. Only letters have the bit above that of their case.
fn is(known: Word, written: Word) -> bool {
    written | ((known >> 1) & (ONES * 0x20)) == known
}

/// What `bytes` begin with, as far as a known name goes.
fn words(bytes: &[u8]) -> [Word; LONGEST / WORD] {
    let mut padded = [0; LONGEST];
    let window = bytes.first_chunk().unwrap_or_else(|| {
        if let Some(room) = padded.get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        &padded
    });
    let (words, _) = window.as_chunks::<WORD>();
    let mut found = [0; LONGEST / WORD];
    found.iter_mut().zip(words).for_each(|(to, from)| *to = Word::from_le_bytes(*from));
    found
}

/// Where the first colon stands.
fn colon(words: &[Word]) -> Option<usize> {
    for (at, word) in words.iter().enumerate() {
        // A borrow may mark bytes above a colon, never below it.
        let other = word ^ (ONES * Word::from(b':'));
        let hits = other.wrapping_sub(ONES) & !other & (ONES << 7);
        if hits != 0 {
            return Some(at * WORD + hits.trailing_zeros() as usize / 8);
        }
    }
    None
}

/// The name at a place.
pub(crate) fn name(index: u8) -> Option<&'static HeaderName> {
    NAMES.get(usize::from(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_something_here_are_known() {
        for index in [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING, UPGRADE] {
            assert_ne!(index, OTHER);
        }
    }

    #[test]
    fn names_are_found_in_any_case_and_nothing_else_is() {
        for (at, text) in TEXTS.iter().enumerate() {
            for written in [text.to_string(), text.to_ascii_uppercase()] {
                for behind in [":", ": ", ": and more than a name can have, so that nothing is padded"] {
                    let found = find(format!("{written}{behind}").as_bytes());
                    assert_eq!(found, Some((u8::try_from(at).unwrap(), text.len())), "{written}{behind}");
                    assert_eq!(name(found.unwrap().0).unwrap(), text);
                    assert_eq!(find(format!("{written}x{behind}").as_bytes()), None);
                }
            }
            assert_eq!(find(text.as_bytes()), None, "the name may go on");
        }
        for other in [
            "",
            ":",
            "x:",
            "hosts:",
            "hos\x14:",
            "content_length:",
            "Content-Lengtj:",
            "content\rlength:",
            "te\u{212a}:",
        ] {
            assert_eq!(find(other.as_bytes()), None, "{other:?}");
        }
    }

    #[test]
    fn a_name_is_itself_with_any_byte_in_the_other_case_and_not_with_another_byte() {
        for text in TEXTS {
            for at in 0..text.len() {
                for byte in 0..=u8::MAX {
                    let mut written = [text.as_bytes(), b": a"].concat();
                    let before = std::mem::replace(&mut written[at], byte);
                    let found = find(&written).is_some_and(|(_, length)| length == text.len());
                    let same = text.as_bytes() == &written[..text.len()].to_ascii_lowercase()[..];
                    // Another name that differs by a byte alone is none of those here.
                    assert_eq!(found, same, "{text}: {before} as {byte} at {at}");
                }
            }
        }
    }
}
