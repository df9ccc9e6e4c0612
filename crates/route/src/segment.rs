//! Compares one segment of a path with the literal text of a route, as the server behind would.
//!
//! The path keeps its normal form, in which `%3A` and `:` differ; a server that decodes takes them for the same. So
//! literals are compared decoded, once, without parameters (`;v=1`) and, where the table says so, without case.
//! Otherwise `/admin;x` or `/jobs/1%3Acancel` would walk past the route that guards `/admin` or `/jobs/{id}:cancel`.

use smallvec::SmallVec;

use crate::normalise::triplet;

/// Room for a decoded segment.
pub(crate) type Scratch = SmallVec<[u8; 64]>;

/// The bytes of a segment as literals are compared: decoded, without parameters, folded if asked for.
pub(crate) fn canonical(segment: &[u8], fold: bool) -> Scratch {
    units(segment, fold).map(|unit| unit.byte).collect()
}

/// Where the variable part of a segment lies between `prefix` and `suffix` (both canonical), as offset and length
/// within the segment. It has at least one character. `plain` says that the segment is its own canonical form.
pub(crate) fn between(segment: &[u8], prefix: &[u8], suffix: &[u8], plain: bool, fold: bool) -> Option<(usize, usize)> {
    let affixes = prefix.len() + suffix.len();
    if plain {
        let fits = segment.len() > affixes && segment.starts_with(prefix) && segment.ends_with(suffix);
        return fits.then(|| (prefix.len(), segment.len() - affixes));
    }
    let all: SmallVec<[Unit; 64]> = units(segment, fold).collect();
    let middle = all.len().checked_sub(affixes).filter(|length| *length > 0)?;
    let same = |units: &[Unit], text: &[u8]| units.iter().map(|unit| unit.byte).eq(text.iter().copied());
    let (head, rest) = all.split_at_checked(prefix.len())?;
    let (middle, tail) = rest.split_at_checked(middle)?;
    if !same(head, prefix) || !same(tail, suffix) {
        return None;
    }
    let (start, end) = (middle.first()?.start, middle.last()?.end);
    Some((start, end - start))
}

/// One character of a segment, with the bytes that spelled it.
#[derive(Clone, Copy)]
struct Unit {
    byte: u8,
    start: usize,
    end: usize,
}

fn units(segment: &[u8], fold: bool) -> impl Iterator<Item = Unit> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let first = *segment.get(at)?;
        if first == b';' {
            return None;
        }
        let decoded = if first == b'%' { triplet(segment.get(at + 1), segment.get(at + 2)) } else { None };
        at += if decoded.is_some() { 3 } else { 1 };
        let byte = decoded.unwrap_or(first);
        Some(Unit { byte: if fold { byte.to_ascii_lowercase() } else { byte }, start, end: at })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_compared_decoded_and_without_parameters() {
        assert_eq!(canonical(b"a%3Ab;v=1", false).as_slice(), b"a:b");
        assert_eq!(canonical(b"100%25", false).as_slice(), b"100%");
        assert_eq!(canonical(b"Admin", true).as_slice(), b"admin");
    }

    #[test]
    fn the_variable_part_keeps_its_spelling() {
        let segment = b"v%3A1%202%3Acancel;x";
        let (start, length) = between(segment, b"v:", b":cancel", false, false).unwrap();
        assert_eq!(&segment[start..start + length], b"1%202");
        assert_eq!(between(b":cancel", b"", b":cancel", true, false), None);
        assert_eq!(between(b"aa", b"aa", b"a", false, false), None);
    }
}
