//! The keys by which consumers sign requests (RFC 9421): read from the document, and checked with.
//!
//! The key says by which algorithm, never the request (RFC 9421 §7.3.6). RSA keys have 2048 to 8192 bits; a secret has at least the 32
//! bytes of its hash.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pylon_core::caller::Consumer;
use pylon_core::secret::{Reveal, SecretSpec};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::written;

/// The fewest bytes of a secret: as many as its hash has (RFC 2104 §3).
const SHORTEST_SECRET: usize = 32;
/// The largest file that holds a key, in bytes.
const LARGEST: u64 = 64 * 1024;

/// A key by which a consumer signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SigningKeySpec {
    /// By what requests name the key: their `keyid`. Required.
    #[schemars(example = &"billing-2026")]
    pub keyid: String,
    /// The one algorithm that the key is for. Required.
    #[schemars(example = &"ed25519")]
    pub algorithm: SigningAlgorithm,
    /// The public key in PEM, or `file:PATH`, which is read when the document is loaded. Default: none; needed for all but `hmac-sha256`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"file:keys/billing.pem")]
    pub key: Option<String>,
    /// The secret that both share, of at least 32 bytes: `env:NAME` or `file:PATH`. Default: none; needed for `hmac-sha256`.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"env:BILLING_SECRET")]
    pub secret: Option<SecretSpec>,
}

/// An algorithm of signatures (RFC 9421 §3.3), by the name that the registry of HTTP signatures has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SigningAlgorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    EcdsaP256Sha256,
    /// ECDSA on P-384.
    EcdsaP384Sha384,
    /// RSA, PSS, SHA-512.
    RsaPssSha512,
    /// HMAC, SHA-256.
    HmacSha256,
}

impl SigningAlgorithm {
    /// The name in the registry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::HmacSha256 => "hmac-sha256",
        }
    }

    /// How its public keys are used; none where it has a secret.
    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Ed25519 => &ED25519,
            Self::EcdsaP256Sha256 => &ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384Sha384 => &ECDSA_P384_SHA384_FIXED,
            Self::RsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
            Self::HmacSha256 => return None,
        })
    }
}

/// A key by which a consumer signs, ready to check with.
#[derive(Debug)]
pub struct SigningKey {
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// The one algorithm that it is for.
    pub algorithm: SigningAlgorithm,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public(_) => "a public key",
            Self::Secret(_) => "a secret",
        })
    }
}

impl SigningKey {
    /// Whether `signature` is one of `signed` by this key.
    pub(crate) fn made(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Material::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

/// Keys by the names that requests have for them.
pub(super) type SigningKeys = HashMap<Box<str>, SigningKey>;

/// Takes in what is written of one consumer; errors begin at the item.
pub(super) fn add(
    keys: &mut SigningKeys,
    spec: &SigningKeySpec,
    consumer: &Arc<Consumer>,
    secrets: Reveal,
) -> Result<(), SpecError> {
    let at = |key: &str| FieldPath::root().key(key);
    if spec.keyid.is_empty() || !spec.keyid.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let error = SpecError::new(at("keyid"), format!("`{}` cannot be the name of a key", spec.keyid));
        return Err(error.help("use visible ASCII characters"));
    }
    let material = match (spec.algorithm.verification(), &spec.key, &spec.secret) {
        (Some(algorithm), Some(key), None) => public(algorithm, key).map_err(|problem| {
            let error =
                SpecError::new(at("key"), format!("this is no public key for `{}`: {problem}", spec.algorithm.name()));
            error.help(
                "write what begins with `-----BEGIN PUBLIC KEY-----`: `openssl pkey -in private.pem -pubout` prints it",
            )
        })?,
        (None, None, Some(secret)) => self::secret(secret, secrets)?,
        (Some(_), ..) => {
            let error = SpecError::new(
                FieldPath::root(),
                format!("`{}` takes a public key and no secret", spec.algorithm.name()),
            );
            return Err(error.help("write `key: file:PATH`, and leave `secret` out"));
        }
        (None, ..) => {
            let error = SpecError::new(FieldPath::root(), "`hmac-sha256` takes a secret and no public key");
            return Err(error.help("write `secret: env:NAME`, and leave `key` out"));
        }
    };
    let key = SigningKey { consumer: Arc::clone(consumer), algorithm: spec.algorithm, material };
    match keys.insert(spec.keyid.as_str().into(), key) {
        None => Ok(()),
        Some(other) => {
            let problem = format!("`{}` has a key of this name", other.consumer.name);
            Err(SpecError::new(at("keyid"), problem).help("requests name the key by it: choose another one"))
        }
    }
}

fn public(algorithm: &'static dyn VerificationAlgorithm, written: &str) -> Result<Material, String> {
    let text = match written.strip_prefix("file:") {
        None => written.to_owned(),
        Some(path) => {
            let length = fs::metadata(path).map_err(|error| format!("{path}: {error}"))?.len();
            if length > LARGEST {
                return Err(format!("{path} is larger than 64 KiB"));
            }
            fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?
        }
    };
    let key = pem(&text).ok_or("it is no public key in PEM")?;
    ParsedPublicKey::new(algorithm, key)
        .map(Material::Public)
        .map_err(|_| "it is one of another kind or strength".to_owned())
}

/// What stands between the lines of a public key in PEM (RFC 7468 §13).
fn pem(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let body: String = body.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
    STANDARD.decode(body).ok()
}

fn secret(spec: &SecretSpec, secrets: Reveal) -> Result<Material, SpecError> {
    let at = FieldPath::root().key("secret");
    let secret = secrets(spec).map_err(|error| error.below(&at))?;
    if secret.expose().len() < SHORTEST_SECRET {
        let error = SpecError::new(at, format!("this secret has fewer than {SHORTEST_SECRET} bytes"));
        return Err(error.help("let chance make one: `openssl rand -base64 48`"));
    }
    Ok(Material::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret.expose()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ED25519_PEM, plain_secrets};

    fn added(json: serde_json::Value) -> Result<SigningKeys, String> {
        let consumer = Arc::new(Consumer { name: "app".into(), ..Consumer::default() });
        let mut keys = SigningKeys::new();
        let all: Vec<SigningKeySpec> = serde_json::from_value(json).map_err(|error| error.to_string())?;
        for spec in &all {
            add(&mut keys, spec, &consumer, plain_secrets)
                .map_err(|error| format!("{}: {}", error.at, error.problem))?;
        }
        Ok(keys)
    }

    #[test]
    fn a_key_is_for_its_one_algorithm() {
        let key = |algorithm: &str, key: &str| {
            added(serde_json::json!([{ "keyid": "k", "algorithm": algorithm, "key": key }]))
        };
        assert!(key("ed25519", ED25519_PEM).is_ok());
        for algorithm in ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512"] {
            let error = key(algorithm, ED25519_PEM).unwrap_err();
            assert!(error.contains("another kind"), "{error}");
        }
        for (algorithm, text, wrong) in [
            ("hmac-sha256", ED25519_PEM, "takes a secret"),
            ("rsa-v1_5-sha256", ED25519_PEM, "unknown variant"),
            ("ed25519", "0123456789abcdef0123456789abcdef", "no public key in PEM"),
            ("ed25519", "-----BEGIN PUBLIC KEY-----\nMDEy\n-----END PUBLIC KEY-----", "another kind"),
            ("ed25519", "file:/does/not/exist.pem", "No such file"),
        ] {
            let error = key(algorithm, text).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn secrets_are_long_and_names_are_of_one_key() {
        let json = |secret: &str| serde_json::json!([{ "keyid": "k", "algorithm": "hmac-sha256", "secret": secret }]);
        assert!(added(json(&"x".repeat(32))).is_ok());
        assert!(added(json(&"x".repeat(31))).unwrap_err().contains("fewer than 32"));
        let both =
            serde_json::json!([{ "keyid": "k", "algorithm": "ed25519", "key": ED25519_PEM, "secret": "x".repeat(32) }]);
        assert!(added(both).unwrap_err().contains("no secret"));
        let one = serde_json::json!({ "keyid": "k", "algorithm": "ed25519", "key": ED25519_PEM });
        assert_eq!(added(serde_json::json!([one, one])).unwrap_err(), "keyid: `app` has a key of this name");
        let nameless = serde_json::json!([{ "keyid": "", "algorithm": "ed25519", "key": ED25519_PEM }]);
        assert!(added(nameless).unwrap_err().contains("cannot be the name"));
    }
}
