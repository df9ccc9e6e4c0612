//! A quick hash for keys that the document chooses: clients look them up but never put them in, so nothing can be flooded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map with the quick hash.
pub(crate) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

const SEED: u64 = 0x517c_c1b7_2722_0a95;

/// The hash of a node and a segment.
pub(crate) fn hash(parent: u32, segment: &[u8]) -> u32 {
    let mut quick = Quick(u64::from(parent));
    quick.write(segment);
    (quick.0 >> 32) as u32
}

#[derive(Debug, Default)]
pub(crate) struct Quick(u64);

impl Quick {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(SEED);
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        self.mix(tail.iter().fold(0u64, |word, byte| (word << 8) | u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        // The map takes its bits from both ends; multiplication leaves the low ones weak.
        self.0 ^ (self.0 >> 32)
    }
}
