//! Holds a body to the digests that are told of it (`Content-Digest`, RFC 9530). Those by algorithms that are not safe do not count (§5).

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use http::HeaderMap;

use super::header;
use crate::structured::{self, Bare, Item, Member};

/// What the digests of a body have to be, and what they are so far.
pub(super) struct Digests(Vec<(Context, Vec<u8>)>);

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Digests").field(&self.0.len()).finish()
    }
}

impl Digests {
    /// Reads what is told. All that is told by a safe algorithm has to hold, and it is one at least.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        let told = structured::field(headers, &header("content-digest")).ok_or("`Content-Digest` is no dictionary")?;
        let mut all = Vec::new();
        for (name, member) in told {
            let algorithm = match name.as_str() {
                "sha-256" => &SHA256,
                "sha-512" => &SHA512,
                _ => continue,
            };
            let Member::Item(Item { value: Bare::Bytes(digest), .. }) = member else {
                return Err("`Content-Digest` holds what is no digest");
            };
            all.push((Context::new(algorithm), digest));
        }
        if all.is_empty() {
            return Err("`Content-Digest` has neither `sha-256` nor `sha-512`");
        }
        Ok(Self(all))
    }

    /// Takes the next piece of the body in.
    pub(super) fn update(&mut self, piece: &[u8]) {
        for (context, _) in &mut self.0 {
            context.update(piece);
        }
    }

    /// Whether the body is what was told.
    pub(super) fn hold(self) -> bool {
        self.0.into_iter().all(|(context, told)| context.finish().as_ref() == told)
    }
}
