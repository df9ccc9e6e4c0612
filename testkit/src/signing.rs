//! Signs requests (RFC 9421), by an account of the standard that owes nothing to the gateway's: what is signed is written out by hand.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::issuer::{Signer, unix_now};

/// The fields `Signature-Input` and `Signature` of a request, with one signature named `sig`.
///
/// `covered` are the components with their values, such as `("\"@method\"", "GET")`; `params` are those of the signature, such as
/// `created=1;keyid="a"`.
pub fn sign(signer: &Signer, covered: &[(&str, &str)], params: &str) -> [(&'static str, String); 2] {
    let names: Vec<&str> = covered.iter().map(|(name, _)| *name).collect();
    let input = format!("({});{params}", names.join(" "));
    let lines: Vec<String> = covered.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let base = format!("{}\"@signature-params\": {input}", lines.concat());
    let signature = STANDARD.encode(signer.sign(base.as_bytes()));
    [("signature-input", format!("sig={input}")), ("signature", format!("sig=:{signature}:"))]
}

/// What a request of `method` for this path and query covers at the least.
pub fn covered<'t>(method: &'t str, authority: &'t str, path: &'t str, query: &'t str) -> Vec<(&'static str, &'t str)> {
    vec![("\"@method\"", method), ("\"@authority\"", authority), ("\"@path\"", path), ("\"@query\"", query)]
}

/// The parameters of a signature that is made now.
pub fn now_by(keyid: &str, nonce: &str) -> String {
    format!("created={};keyid=\"{keyid}\";nonce=\"{nonce}\"", unix_now())
}

/// The field `Content-Digest` of a body.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body)))
}
