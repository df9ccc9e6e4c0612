//! Keys that tokens are signed with, and their public halves (RFC 7517, RFC 7518 §6).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::spec::MadeSpec;

/// The shortest modulus of an RSA key, in bytes.
const SHORTEST_RSA: usize = 2048 / 8;

/// A private key with its public half.
pub(super) struct Key {
    kid: Box<str>,
    public: Value,
    /// The first part of each of its tokens, with the dot behind it.
    header: Box<str>,
    by: By,
}

enum By {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Key {
    /// Makes one.
    pub(super) fn make(kind: MadeSpec) -> Result<Self, &'static str> {
        let by = match kind {
            MadeSpec::Es256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map(By::Ecdsa),
            MadeSpec::EdDsa => Ed25519KeyPair::generate().map(By::Ed25519),
        };
        Self::of(by.map_err(|_| "no key can be made")?)
    }

    /// Reads one in PEM: PKCS#8 (RFC 5958), or the forms of OpenSSL for each kind.
    pub(super) fn read(pem: &[u8]) -> Result<Self, &'static str> {
        let (label, der) = unwrapped(pem).ok_or("it is not in PEM")?;
        let by = match label.as_str() {
            "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => read(&label, &der),
            "ENCRYPTED PRIVATE KEY" => return Err("it is encrypted by a password"),
            label if label.ends_with("PUBLIC KEY") => return Err("it is a public key"),
            _ => return Err("it is no private key"),
        };
        Self::of(by.ok_or("it is none of P-256, Ed25519 and RSA")?)
    }

    /// One that was [packed](Self::packed).
    pub(super) fn unpacked(text: &str) -> Result<Self, &'static str> {
        let der = STANDARD.decode(text).map_err(|_| "a key is not in Base64")?;
        Self::of(read("PRIVATE KEY", &der).ok_or("a key is none of P-256 and Ed25519")?)
    }

    /// The whole key as one that is made is kept: PKCS#8 (RFC 5958) in Base64.
    pub(super) fn packed(&self) -> Result<String, &'static str> {
        let der = match &self.by {
            By::Ecdsa(pair) => pair.to_pkcs8v1(),
            By::Ed25519(pair) => pair.to_pkcs8v1(),
            By::Rsa(_) => return Err("RSA keys are not made here"),
        };
        der.map(|der| STANDARD.encode(der)).map_err(|_| "a key does not let itself be written")
    }

    fn of(by: By) -> Result<Self, &'static str> {
        let (alg, mut public) = match &by {
            By::Ecdsa(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref().get(1..).and_then(|point| point.split_at_checked(32));
                let (x, y) = point.ok_or("its public half is odd")?;
                ("ES256", json!({ "crv": "P-256", "kty": "EC", "x": encode(x), "y": encode(y) }))
            }
            By::Ed25519(pair) => {
                ("EdDSA", json!({ "crv": "Ed25519", "kty": "OKP", "x": encode(pair.public_key().as_ref()) }))
            }
            By::Rsa(pair) => {
                if pair.public_modulus_len() < SHORTEST_RSA {
                    return Err("it is an RSA key of fewer than 2048 bits");
                }
                let (n, e) = rsa_parts(pair.public_key().as_ref()).ok_or("its public half is odd")?;
                ("RS256", json!({ "e": encode(e), "kty": "RSA", "n": encode(n) }))
            }
        };
        // So far these are the members that a thumbprint is of, in its order (RFC 7638 §3).
        let kid = encode(digest::digest(&digest::SHA256, public.to_string().as_bytes()).as_ref());
        if let Value::Object(members) = &mut public {
            let more = [("kid", kid.as_str()), ("alg", alg), ("use", "sig")];
            members.extend(more.map(|(name, value)| (name.to_owned(), value.into())));
        }
        let header = json!({ "alg": alg, "kid": kid, "typ": "JWT" }).to_string();
        let header = format!("{}.", encode(header.as_bytes())).into();
        Ok(Self { kid: kid.into(), public, header, by })
    }

    /// Its name: the thumbprint of its public half (RFC 7638).
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public half as it stands in a set.
    pub(super) fn public(&self) -> &Value {
        &self.public
    }

    /// Whether a signature takes so long that a worker would be held up.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.by, By::Rsa(_))
    }

    /// A token that says this (RFC 7515 §7.1).
    pub(super) fn token(&self, claims: &str) -> Option<String> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 352);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.signature(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }

    fn signature(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match &self.by {
            By::Ecdsa(pair) => Some(pair.sign(&SystemRandom::new(), bytes).ok()?.as_ref().to_vec()),
            By::Ed25519(pair) => Some(pair.try_sign(bytes).ok()?.as_ref().to_vec()),
            By::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

fn read(label: &str, der: &[u8]) -> Option<By> {
    match label {
        "EC PRIVATE KEY" => {
            EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(By::Ecdsa)
        }
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(der).ok().map(By::Rsa),
        _ => {
            let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok().map(By::Ecdsa);
            ecdsa
                .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(By::Ed25519))
                .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(By::Rsa))
        }
    }
}

/// The label and the content of the first private or public key in a text in PEM (RFC 7468); parameters before it are passed over.
fn unwrapped(pem: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut rest = std::str::from_utf8(pem).ok()?;
    loop {
        let (_, begun) = rest.split_once("-----BEGIN ")?;
        let (label, begun) = begun.split_once("-----")?;
        let (content, after) = begun.split_once(&format!("-----END {label}-----"))?;
        if label.ends_with("KEY") {
            let content: String = content.split_ascii_whitespace().collect();
            return Some((label.to_owned(), STANDARD.decode(content).ok()?));
        }
        rest = after;
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent out of an `RSAPublicKey` (RFC 8017 §A.1.1), each without leading zeros.
fn rsa_parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (inside, _) = element(der, 0x30)?;
    let (modulus, rest) = element(inside, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    let bare = |bytes: &'_ [u8]| bytes.iter().take_while(|byte| **byte == 0).count();
    Some((modulus.get(bare(modulus)..)?, exponent.get(bare(exponent)..)?))
}

/// The content of the element of DER that stands first and has this tag, and what stands behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..0x80 => (usize::from(length), rest),
        _ => {
            let (long, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length =
                long.iter().try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)));
            (length?, rest)
        }
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

/// The members of a set of keys.
pub(super) fn set(keys: impl Iterator<Item = Value>) -> Value {
    Value::Object(Map::from_iter([("keys".to_owned(), keys.collect())]))
}
