//! Compression of fields (RFC 7541).
//!
//! What we send is never Huffman coded: plain strings are as good for a peer, and cost neither side much.

mod decode;
mod encode;
mod huffman;
mod integer;
mod names;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Error, Field, Summary};
pub use encode::Encoder;

/// The size of a table until somebody says otherwise (RFC 9113 §6.5.2), and the largest that we keep.
pub const TABLE: usize = 4096;

/// What an entry counts for beside its name and its value (§4.1).
const OVERHEAD: usize = 32;
