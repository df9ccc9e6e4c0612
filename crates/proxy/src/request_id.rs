//! Correlation ids: UUIDs of version 7 (RFC 9562 §5.7), made by each worker for itself.
//!
//! They sort by time and need be unique, not secret: the random bits come from a fast generator.

use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use http::HeaderValue;
use pylon_observe::clock::Wall;

/// The longest id that is accepted from a trusted peer, in bytes.
const LONGEST: usize = 128;

/// Makes ids for one worker.
#[derive(Debug, Default)]
pub struct RequestIds {
    random: Rng,
}

impl RequestIds {
    /// A new id for a request that began at `now`.
    pub fn next(&mut self, wall: &Wall, now: Instant) -> HeaderValue {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let id = uuid::Builder::from_unix_timestamp_millis(
            u64::try_from(wall.unix(now).as_millis()).unwrap_or_default(),
            &random,
        )
        .into_uuid();
        let mut text = vec![0; uuid::fmt::Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// Whether an id from a trusted peer may be taken over: printable, without what would have to be escaped in logs.
pub fn is_acceptable(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    (1..=LONGEST).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_disturb_a_log_are_not_taken_over() {
        for (id, fine) in [("0191-ab", true), ("a b", false), ("a\"b", false), ("", false), ("{}", false)] {
            assert_eq!(is_acceptable(&HeaderValue::from_str(id).unwrap()), fine, "{id}");
        }
        assert!(!is_acceptable(&HeaderValue::from_str(&"a".repeat(129)).unwrap()));
    }
}
