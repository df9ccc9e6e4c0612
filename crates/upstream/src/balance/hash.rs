//! Hashes keys and names to 64 bits, the same in every process of every build: gateways side by side must agree.
//!
//! FNV-1a, with the finaliser of MurmurHash3 behind it, which spreads what FNV leaves close together. No secret is in it: whoever
//! chooses keys chooses where they go, which he could by sending one key again and again.

/// The hash of these bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// Another number for each number, without a pattern between them.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_key_never_changes() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_ne!(hash(b"10.0.0.1:80"), hash(b"10.0.0.1:81"));
    }

    #[test]
    fn keys_that_are_alike_are_spread_evenly() {
        let mut buckets = [0_u32; 16];
        for n in 0..16_000 {
            buckets[(hash(format!("user-{n}").as_bytes()) % 16) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }
}
