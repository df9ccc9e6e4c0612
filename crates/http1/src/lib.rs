//! HTTP/1.1 on the wire, for both sides (RFC 9112): heads and bodies, each held to one meaning in the pass that reads it.
//!
//! [`request`] and [`answer`] read heads, [`body`] takes what follows them out of the bytes, [`mod@write`] has what both sides
//! write. All of it is pure: it sees bytes as they come, in whatever pieces. What clients send is held to the letter; answers
//! are given the few freedoms that services in use take (equal lengths said twice, blanks and any words behind the size of a
//! chunk).

pub mod answer;
pub mod body;
mod classes;
pub mod fault;
mod fields;
mod names;
pub mod request;
pub mod spare;
pub mod trailers;
pub mod write;

#[cfg(test)]
mod tests;

/// How the end of a body is found (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    Empty,
    /// So many bytes, at least one.
    Fixed(u64),
    /// Chunks, then trailers.
    Chunked,
    /// All that comes until the connection closes. Only answers end so.
    UntilClose,
}

/// Whether the list in a field names this option, in whatever case (RFC 9110 §5.6.1).
pub fn names_option(value: &[u8], option: &[u8]) -> bool {
    options(value).any(|item| item.eq_ignore_ascii_case(option))
}

/// What the list in a field names, without the blanks around each.
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
