//! WebSocket (RFC 6455) as far as a gateway in between has to know it: the proof of a handshake, and where frames end.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

pub mod frame;

/// The one protocol that a connection may be switched to, as it stands in `Upgrade`.
pub const PROTOCOL: &str = "websocket";
/// The one version of it (§4.1), as it stands in `Sec-WebSocket-Version`.
pub const VERSION: &str = "13";
/// What is appended to a key before it is hashed (§1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether this is a key: 16 bytes in base64 (§4.1).
pub fn is_key(value: &[u8]) -> bool {
    // `decode_slice` wants room for whatever the length of its input might come to.
    let mut bytes = [0; 18];
    value.len() == 24 && STANDARD.decode_slice(value, &mut bytes) == Ok(16)
}

/// A key for a client that brought none, as those of HTTP/2 do (RFC 8441 §5.1).
pub fn fresh_key() -> HeaderValue {
    let bytes = fastrand::u128(..).to_be_bytes();
    HeaderValue::try_from(STANDARD.encode(bytes)).unwrap_or(HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="))
}

/// What a service answers to `key` if it has understood the handshake (§4.2.2): the value of `Sec-WebSocket-Accept`.
pub fn accept(key: &[u8]) -> String {
    // The hash proves understanding and protects nothing.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_holds() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_nothing_else() {
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ== ",
            "dGhlIHNhbXBsZSBub25jZT8h",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25j\u{e4}Q==",
        ] {
            assert!(!is_key(bad.as_bytes()), "{bad}");
        }
        assert!(is_key(fresh_key().as_bytes()));
        assert_ne!(fresh_key(), fresh_key());
    }
}
