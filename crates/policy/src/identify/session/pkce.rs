//! What binds an authorization code to the login that asked for it (RFC 7636), and other values that nobody can guess.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// 256 bits of chance in 43 letters, digits, `-` and `_`: a verifier as RFC 7636 §4.1 wants it.
pub(super) fn fresh() -> Option<String> {
    let mut chance = [0; 32];
    rand::fill(&mut chance).ok()?;
    Some(URL_SAFE_NO_PAD.encode(chance))
}

/// The challenge of a verifier, by the method `S256` (RFC 7636 §4.2).
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn values_come_by_chance() {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        assert!(one != other && one.len() == 43);
    }
}
