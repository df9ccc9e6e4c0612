//! Brings the path of a request into its one normal form, so that router, policies, log and upstream see the same bytes.
//!
//! Sources: RFC 3986 §6.2.2 (case, percent-encoding, dot segments), RFC 9112 §3.2 (request targets). The normal form has
//! upper-case percent triplets, no encoded unreserved character, no dot segment and, unless told otherwise, no empty
//! segment but the last. What servers are known to read in more than one way is refused rather than guessed at.
//! A reserved character that came encoded stays encoded: RFC 3986 gives it another meaning than the bare one. Nothing is
//! ever decoded twice: `%252f` is a percent sign followed by `2f`, before and after.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest path that is looked at, in bytes: spans of captures are 16 bits wide.
pub const MAX_PATH: usize = u16::MAX as usize;

/// How paths are brought into normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathRules {
    /// Whether `//` becomes `/` (the default). Without it an empty segment is a segment like any other.
    pub merge_slashes: bool,
    /// What `%2F` is. Servers normalise once with [`EncodedSlash::Keep`] and let the table ask the route that matched.
    pub encoded_slash: EncodedSlash,
    /// What `;name=value` within a segment is.
    pub parameters: Parameters,
}

impl Default for PathRules {
    fn default() -> Self {
        Self { merge_slashes: true, encoded_slash: EncodedSlash::Reject, parameters: Parameters::Keep }
    }
}

impl PathRules {
    /// The rules of a server: `%2F` is kept here, and the matched route decides whether it is welcome.
    pub const SERVE: Self =
        Self { merge_slashes: true, encoded_slash: EncodedSlash::Keep, parameters: Parameters::Keep };
}

/// What a path with an encoded slash (`%2F`) meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// It is answered with 400, since many servers take it for a separator.
    #[default]
    Reject,
    /// It stays as it is and never separates segments. Only for upstreams that agree.
    Keep,
}

/// What a path with parameters (`/a;v=1`) meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// They stay in the path but take no part in the comparison with the literal text of a route.
    #[default]
    Keep,
    /// They are answered with 400.
    Reject,
}

/// Why a path is refused. Each is the client's fault: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathError {
    /// The path does not begin with a slash.
    NotAbsolute,
    /// The path is longer than [`MAX_PATH`].
    TooLong,
    /// A backslash, bare or encoded: some servers take it for a slash.
    Backslash,
    /// A NUL, bare or encoded: some servers end the path there.
    Nul,
    /// A control character, bare or encoded.
    Control,
    /// A bare space or a character above ASCII.
    Bare,
    /// A bare `#`: fragments are not sent.
    Fragment,
    /// A bare `?` inside a path: the query was not split off.
    Query,
    /// A `%` that is not followed by two hexadecimal digits.
    Percent,
    /// An encoded slash where none is welcome, or one beside an empty or dot segment.
    EncodedSlash,
    /// Dot segments that climb over the root.
    Climbs,
    /// A segment that some servers take for a dot or empty segment, such as `..;` or `;x`.
    Parameters,
}

impl PathError {
    /// A stable word for logs and problem details.
    pub fn kind(self) -> &'static str {
        match self {
            Self::NotAbsolute => "not_absolute",
            Self::TooLong => "too_long",
            Self::Backslash => "backslash",
            Self::Nul => "nul",
            Self::Control => "control",
            Self::Bare => "bare",
            Self::Fragment => "fragment",
            Self::Query => "query",
            Self::Percent => "percent",
            Self::EncodedSlash => "encoded_slash",
            Self::Climbs => "climbs",
            Self::Parameters => "parameters",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::TooLong => "the path is longer than 65,535 bytes",
            Self::Backslash => "the path has a backslash",
            Self::Nul => "the path has a NUL",
            Self::Control => "the path has a control character",
            Self::Bare => "the path has a space or a character above ASCII that is not percent-encoded",
            Self::Fragment => "the path has a fragment",
            Self::Query => "the path has a question mark that is not percent-encoded",
            Self::Percent => "the path has a percent sign without two hexadecimal digits",
            Self::EncodedSlash => "the path has an encoded slash",
            Self::Climbs => "the path climbs over its root",
            Self::Parameters => "the path has parameters where none are allowed",
        })
    }
}

impl std::error::Error for PathError {}

/// The normal form of `path`. A path that is in normal form already is borrowed: nothing is allocated or copied.
///
/// Errors: see [`PathError`]; all of them are answered with 400. `normalise(normalise(x)) == normalise(x)`.
pub fn normalise(path: &str, rules: PathRules) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    if bytes.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    if is_plain(bytes, rules.merge_slashes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes)?;
    let resolved = resolve(&decoded, rules)?;
    if resolved == bytes {
        return Ok(Cow::Borrowed(path));
    }
    if resolved.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    // `decode` lets ASCII through only; the error is there so that nothing can panic.
    String::from_utf8(resolved).map(Cow::Owned).map_err(|_| PathError::Bare)
}

/// Whether a path in normal form has an encoded slash.
pub fn has_encoded_slash(path: &str) -> bool {
    let bytes = path.as_bytes();
    memchr::memchr_iter(b'%', bytes).any(|at| bytes.get(at..at.saturating_add(3)) == Some(b"%2F"))
}

/// Refuses what a query must not hold: a fragment and control characters. The query itself is never changed.
pub fn check_query(query: &[u8]) -> Result<(), PathError> {
    for &byte in query {
        match byte {
            0 => return Err(PathError::Nul),
            1..=0x1f | 0x7f => return Err(PathError::Control),
            b'#' => return Err(PathError::Fragment),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the path is in normal form beyond doubt: the common case, in one pass and without state.
fn is_plain(path: &[u8], merge_slashes: bool) -> bool {
    let mut previous = 0u8;
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        if PLAIN.get(usize::from(byte)) != Some(&true) {
            if byte != b'%' || !is_plain_triplet(rest.next(), rest.next()) {
                return false;
            }
        } else if previous == b'/' && (byte == b'.' || (byte == b'/' && merge_slashes)) {
            // `/.` may begin a dot segment; `//` needs merging.
            return false;
        }
        previous = byte;
    }
    true
}

/// Whether a triplet stays as it is and needs no look at its neighbours.
fn is_plain_triplet(high: Option<&u8>, low: Option<&u8>) -> bool {
    let upper = |digit: Option<&u8>| digit.is_some_and(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    let keeps = |value: u8| !(is_unreserved(value) || matches!(value, 0..=0x1f | 0x7f | b'\\' | b'/'));
    upper(high) && upper(low) && triplet(high, low).is_some_and(keeps)
}

/// Characters that mean themselves in a path: unreserved, `/`, and the reserved ones that no server reads in a way of
/// its own. `;` and `%` are looked at by the slow path.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/!$&'()*+,=:@";
    let mut i = 0;
    while i < plain.len() {
        #[expect(clippy::indexing_slicing, reason = "computed by the compiler; out of bounds does not build")]
        {
            table[plain[i] as usize] = true;
        }
        i += 1;
    }
    table
};

/// Whether a character is unreserved (RFC 3986 §2.3): encoded or not, it means the same.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The value of the two hexadecimal digits after a percent sign.
pub(crate) fn triplet(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)?.wrapping_shl(4) | digit(low)?)
}

/// Upper-cases triplets, decodes unreserved characters, encodes what must not stand bare, refuses the rest.
pub(crate) fn decode(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'%' => {
                let value = triplet(rest.next(), rest.next()).ok_or(PathError::Percent)?;
                match value {
                    0 => return Err(PathError::Nul),
                    1..=0x1f | 0x7f => return Err(PathError::Control),
                    b'\\' => return Err(PathError::Backslash),
                    _ if is_unreserved(value) => out.push(value),
                    _ => push_triplet(&mut out, value),
                }
            }
            0 => return Err(PathError::Nul),
            1..=0x1f | 0x7f => return Err(PathError::Control),
            b'\\' => return Err(PathError::Backslash),
            b'#' => return Err(PathError::Fragment),
            b'?' => return Err(PathError::Query),
            b' ' | 0x80.. => return Err(PathError::Bare),
            // Not allowed bare by RFC 3986 §3.3, but harmless and seen in the wild: one spelling for both.
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' => push_triplet(&mut out, byte),
            _ => out.push(byte),
        }
    }
    Ok(out)
}

fn push_triplet(out: &mut Vec<u8>, value: u8) {
    let digit = |nibble: u8| if nibble < 10 { b'0' | nibble } else { b'A'.wrapping_add(nibble.wrapping_sub(10)) };
    out.extend([b'%', digit(value.wrapping_shr(4)), digit(value & 0x0f)]);
}

/// Removes dot segments and empty segments, and refuses segments that others would take for such.
fn resolve(decoded: &[u8], rules: PathRules) -> Result<Vec<u8>, PathError> {
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    // The path begins with a slash, so the first piece is empty and is not a segment.
    let mut segments = decoded.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let parent = out.iter().rposition(|byte| *byte == b'/').ok_or(PathError::Climbs)?;
                    out.truncate(parent);
                }
                if last {
                    out.push(b'/');
                }
            }
            b"" if !last && rules.merge_slashes => {}
            _ => {
                check_segment(segment, rules)?;
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(out)
}

/// Refuses a segment that a server which decodes `%2F` or drops parameters would read as a dot or empty segment.
fn check_segment(segment: &[u8], rules: PathRules) -> Result<(), PathError> {
    if memchr::memchr2(b'%', b';', segment).is_none() {
        return Ok(());
    }
    if rules.parameters == Parameters::Reject && segment.contains(&b';') {
        return Err(PathError::Parameters);
    }
    let mut rest = segment;
    let mut first = true;
    loop {
        let slash = find_encoded_slash(rest);
        let (piece, after) = match slash {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at.saturating_add(3)..)),
            None => (rest, None),
        };
        let alone = first && after.is_none();
        check_piece(piece, first, alone)?;
        match after {
            Some(_) if rules.encoded_slash == EncodedSlash::Reject => return Err(PathError::EncodedSlash),
            Some(after) => rest = after,
            None => return Ok(()),
        }
        first = false;
    }
}

fn check_piece(piece: &[u8], first: bool, alone: bool) -> Result<(), PathError> {
    let name_end = piece.iter().position(|byte| *byte == b';');
    let name = piece.get(..name_end.unwrap_or(piece.len())).unwrap_or_default();
    let dots = matches!(name, b"." | b"..");
    if name_end.is_some() && (dots || name.is_empty()) {
        return Err(PathError::Parameters);
    }
    // Behind a server that decodes and then collapses, `/%2Fadmin` is `/admin`; `https:%2F%2Fx` harms nobody.
    if !alone && (dots || (first && name.is_empty())) {
        return Err(PathError::EncodedSlash);
    }
    Ok(())
}

fn find_encoded_slash(segment: &[u8]) -> Option<usize> {
    segment.windows(3).position(|window| window == b"%2F")
}

#[cfg(test)]
mod tests;
