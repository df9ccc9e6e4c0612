//! The certificate that a client showed and that was verified: what it says of the client (RFC 5280).

use std::fmt::Write as _;

/// A certificate of a client, read once for its connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientCertificate {
    /// The common name of its subject.
    pub common_name: Option<Box<str>>,
    /// The URIs among its alternative names, such as a SPIFFE id.
    pub uris: Box<[Box<str>]>,
    /// The DNS names among them, in lower case.
    pub names: Box<[Box<str>]>,
    /// The mail addresses among them.
    pub emails: Box<[Box<str>]>,
    /// Who issued it (RFC 4514).
    pub issuer: Box<str>,
    /// Its number, in hexadecimal.
    pub serial: Box<str>,
    /// The SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// When it ends, in seconds since 1970.
    pub until: u64,
}

impl ClientCertificate {
    /// The fingerprint as documents write it: `sha256:` and 64 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.iter().fold("sha256:".to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
