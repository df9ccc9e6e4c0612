//! Keys that signatures are checked with: read from a set (RFC 7517) or made of a secret.
//!
//! The key says with which algorithms it may be used, never the token (RFC 8725 §3.1): its kind and curve, its `alg`, `use`
//! and `key_ops`. An RSA key that names no algorithm is one of RS256, unless the document names others. Keys that are too short, of an
//! unknown kind, or not there to check signatures with are left out; secrets never come from a set, nor do private keys.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use serde_json::{Map, Value};

use super::json;
use super::spec::AlgorithmSpec as Algorithm;
use super::token::{Token, decode};

/// The most keys of one set.
const MOST: usize = 1000;
/// How many keys are tried for one token.
const TRIES: usize = 8;
/// The bounds of an RSA modulus, in bits.
const RSA: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of one issuer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Keys {
    all: Vec<Key>,
    /// Why others were left out.
    pub(crate) left_out: Vec<String>,
}

/// One key.
#[derive(Debug, PartialEq)]
pub(crate) struct Key {
    kid: Option<Box<str>>,
    /// The algorithm that it names itself.
    stated: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa(RsaPublicKeyComponents<Box<[u8]>>),
    /// A curve has one algorithm.
    Curve(Algorithm, ParsedPublicKey),
    Secret(Box<[u8]>),
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "RSA",
            Self::Curve(..) => "a curve",
            Self::Secret(_) => "a secret",
        })
    }
}

impl PartialEq for Material {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rsa(a), Self::Rsa(b)) => a.n == b.n && a.e == b.e,
            (Self::Curve(a, x), Self::Curve(b, y)) => a == b && x.as_ref() == y.as_ref(),
            // Secrets are never compared, for they never come anew.
            _ => false,
        }
    }
}

/// What keys say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One of them made it.
    Good,
    /// The one that it names did not make it so.
    Bad,
    /// None of them is the one that it names.
    NoKey,
}

impl Keys {
    /// Reads a set.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let set = json::object(bytes).ok_or("this is no JSON object whose members stand once")?;
        let Some(Value::Array(items)) = set.get("keys") else {
            return Err("it has no list `keys` (RFC 7517 §5)".to_owned());
        };
        if items.len() > MOST {
            return Err(format!("{} keys are more than the {MOST} that a set may have", items.len()));
        }
        let mut keys = Self::default();
        for (index, item) in items.iter().enumerate() {
            let members = item.as_object();
            match members.ok_or("it is no object").and_then(Key::read) {
                Ok(key) => keys.all.push(key),
                Err(why) => {
                    let kid = members.and_then(|key| key.get("kid")).and_then(Value::as_str).map(named);
                    keys.left_out.push(format!("{}: {why}", kid.unwrap_or_else(|| format!("key {index}"))));
                }
            }
        }
        if keys.all.is_empty() {
            let why = keys.left_out.first().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(format!("no key in it can check signatures{why}"));
        }
        Ok(keys)
    }

    /// The one key that is a secret.
    pub(crate) fn secret(secret: &[u8]) -> Self {
        let key = Key { kid: None, stated: None, material: Material::Secret(secret.into()) };
        Self { all: vec![key], left_out: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Checks the signature of `token`. `allowed` is what the document names; nothing where it leaves that to the keys.
    pub(crate) fn judge(&self, token: &Token<'_>, algorithm: Algorithm, allowed: &[Algorithm]) -> Verdict {
        let is_named = |key: &&Key| key.kid.is_some() && key.kid == token.kid;
        let may_be = |key: &&Key| token.kid.is_none() || key.kid.is_none() || key.kid == token.kid;
        let fits = self.all.iter().filter(may_be).filter(|key| key.may(algorithm, allowed));
        if fits.take(TRIES).any(|key| key.made(token, algorithm)) {
            return Verdict::Good;
        }
        // One without a name may have been replaced by another one without a name.
        let known = self.all.iter().any(|key| is_named(&key) || matches!(key.material, Material::Secret(_)));
        if known { Verdict::Bad } else { Verdict::NoKey }
    }
}

impl Key {
    fn read(key: &Map<String, Value>) -> Result<Self, &'static str> {
        let text = |name: &str| match key.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err("`alg`, `kid`, `use` or a part of it is no text"),
        };
        let part =
            |name: &str| text(name)?.and_then(|text| decode(text.as_bytes())).ok_or("a part of it is no base64url");
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err("it is not there for signatures");
        }
        match key.get("key_ops") {
            None => {}
            Some(Value::Array(ops)) if ops.iter().any(|op| op == "verify") => {}
            Some(_) => return Err("it is not there to check signatures"),
        }
        if ["d", "p", "q", "k"].iter().any(|part| key.contains_key(*part)) {
            return Err("it is a secret or a private key, which must not stand in a set");
        }
        let stated = text("alg")?.map(|name| Algorithm::of(name).ok_or("its algorithm is not known")).transpose()?;
        let material = match text("kty")?.ok_or("it has no `kty`")? {
            "RSA" => rsa(&part("n")?, &part("e")?)?,
            "EC" => {
                let (algorithm, curve, length): (_, &'static dyn VerificationAlgorithm, _) = match text("crv")? {
                    Some("P-256") => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED, 32),
                    Some("P-384") => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED, 48),
                    Some("P-521") => (Algorithm::Es512, &ECDSA_P521_SHA512_FIXED, 66),
                    _ => return Err("its curve is not known"),
                };
                let (x, y) = (part("x")?, part("y")?);
                // RFC 7518 §6.2.1.2: both as long as the curve's field.
                if x.len() != length || y.len() != length {
                    return Err("its point is not as long as its curve has it");
                }
                let point = [&[4][..], &x, &y].concat();
                Material::Curve(
                    algorithm,
                    ParsedPublicKey::new(curve, point).map_err(|_| "its point is not on its curve")?,
                )
            }
            "OKP" if text("crv")? == Some("Ed25519") => {
                let key = ParsedPublicKey::new(&ED25519, part("x")?).map_err(|_| "it is no key of its curve")?;
                Material::Curve(Algorithm::EdDsa, key)
            }
            "OKP" => return Err("its curve is not known"),
            _ => return Err("its kind is not known"),
        };
        let key = Self { kid: text("kid")?.map(Into::into), stated, material };
        if stated.is_some_and(|algorithm| !key.may(algorithm, &[algorithm])) {
            return Err("its algorithm is none of its kind");
        }
        Ok(key)
    }

    /// Whether signatures by `algorithm` may be checked with it.
    fn may(&self, algorithm: Algorithm, allowed: &[Algorithm]) -> bool {
        let of_kind = match &self.material {
            Material::Rsa(_) => rsa_by(algorithm).is_some(),
            Material::Curve(of_curve, _) => *of_curve == algorithm,
            Material::Secret(_) => hmac_by(algorithm).is_some(),
        };
        let said = match (self.stated, &self.material) {
            (Some(stated), _) => stated == algorithm,
            (None, Material::Rsa(_)) if allowed.is_empty() => algorithm == Algorithm::Rs256,
            (None, Material::Secret(_)) if allowed.is_empty() => algorithm == Algorithm::Hs256,
            (None, _) => true,
        };
        of_kind && said && (allowed.is_empty() || allowed.contains(&algorithm))
    }

    fn made(&self, token: &Token<'_>, algorithm: Algorithm) -> bool {
        let (signed, signature) = (token.signed, &*token.signature);
        match &self.material {
            Material::Rsa(key) => rsa_by(algorithm).is_some_and(|by| key.verify(by, signed, signature).is_ok()),
            Material::Curve(_, key) => key.verify_sig(signed, signature).is_ok(),
            Material::Secret(secret) => hmac_by(algorithm)
                .is_some_and(|by| hmac::verify(&hmac::Key::new(by, secret), signed, signature).is_ok()),
        }
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, &'static str> {
    let bare = |bytes: &[u8]| -> Box<[u8]> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().into()
    };
    let (n, e) = (bare(modulus), bare(exponent));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if !RSA.contains(&bits) {
        return Err("it is an RSA key of fewer than 2048 or more than 8192 bits");
    }
    // With an exponent of 1 everything is its own signature.
    if e.len() > 4
        || e.last().is_none_or(|last| last % 2 == 0)
        || *e == [1]
        || n.last().is_none_or(|last| last % 2 == 0)
    {
        return Err("it is no RSA key that is safe to use");
    }
    let key = RsaPublicKeyComponents { n, e };
    key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| "it is no RSA key")?;
    Ok(Material::Rsa(key))
}

fn rsa_by(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn hmac_by(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}

/// How long a secret has to be, in bytes (RFC 7518 §3.2); none where `algorithm` has no secret.
pub(crate) fn shortest_secret(algorithm: Algorithm) -> Option<usize> {
    hmac_by(algorithm).map(|by| by.tag_len())
}

/// A name from outside, for people: short, and on one line.
fn named(kid: &str) -> String {
    kid.chars().filter(|letter| !letter.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keys(keys: &Value) -> Result<Keys, String> {
        Keys::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// What `keys` say of a signature of any text.
    fn judged(keys: &Keys, alg: &str, text: &str, signature: &str) -> Verdict {
        let signature = decode(signature.as_bytes()).unwrap();
        let (kid, typ, claims) = (None, None, Map::new());
        let token = Token { alg: alg.into(), kid, typ, claims, signed: text.as_bytes(), signature };
        keys.judge(&token, Algorithm::of(alg).unwrap(), &[])
    }

    const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    /// RFC 7515, appendices A.1 to A.4, and RFC 8037, appendix A.4.
    #[test]
    fn the_examples_of_the_standards_are_good_and_with_one_letter_changed_bad() {
        let rsa = json!({ "kty": "RSA", "e": "AQAB", "n": concat!(
            "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs",
            "D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV",
            "MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
        ) });
        let p256 = json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        let p521 = json!({
            "kty": "EC", "crv": "P-521",
            "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
            "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        });
        let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let secret = decode(b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
        let set = |key| keys(&json!([key])).unwrap();
        for (keys, alg, text, signature) in [
            (
                Keys::secret(&secret.unwrap()),
                "HS256",
                format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}"),
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                set(rsa),
                "RS256",
                format!("eyJhbGciOiJSUzI1NiJ9.{JOE}"),
                concat!(
                    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb",
                    "F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383",
                    "LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWy",
                    "wlVmtVrBp0igcN_IoypGlUPQGe77Rw"
                ),
            ),
            (
                set(p256),
                "ES256",
                format!("eyJhbGciOiJFUzI1NiJ9.{JOE}"),
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                set(p521),
                "ES512",
                "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA".to_owned(),
                concat!(
                    "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgo",
                    "XD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
                ),
            ),
            (
                set(ed),
                "EdDSA",
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ] {
            assert_eq!(judged(&keys, alg, &text, signature), Verdict::Good, "{alg}");
            assert_ne!(judged(&keys, alg, &text.replacen('J', "K", 1), signature), Verdict::Good, "{alg}");
            let other = format!("{}A{}", &signature[..9], &signature[10..]);
            assert_ne!(judged(&keys, alg, &text, &other), Verdict::Good, "{alg}");
        }
    }

    #[test]
    fn keys_that_are_not_safe_or_not_meant_for_it_are_left_out() {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key[name] = value;
            key
        };
        let rsa = |n: &[u8], e: &str| {
            let n = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, n);
            json!({ "kty": "RSA", "n": n, "e": e })
        };
        let x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
        for (key, why) in [
            (with("use", json!("enc")), "not there for signatures"),
            (with("key_ops", json!(["sign"])), "not there to check"),
            (with("key_ops", json!("verify")), "not there to check"),
            (with("alg", json!("ES256")), "none of its kind"),
            (with("alg", json!("none")), "not known"),
            (with("alg", json!("HS256")), "none of its kind"),
            (with("kid", json!(1)), "no text"),
            (with("crv", json!("Ed448")), "not known"),
            (with("crv", json!("X25519")), "not known"),
            (with("kty", json!("XX")), "not known"),
            (with("x", json!("")), "no key"),
            (with("x", json!("AAA=")), "no base64url"),
            (with("d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")), "private"),
            (json!({ "kty": "oct", "k": "AAAA" }), "secret"),
            (json!({ "kty": "EC", "crv": "secp256k1", "x": x, "y": x }), "not known"),
            (json!({ "kty": "EC", "crv": "P-256", "x": x, "y": x }), "not on its curve"),
            (json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": x }), "as long as"),
            (rsa(&[0xff; 128], "AQAB"), "2048"),
            (rsa(&[0xff; 1025], "AQAB"), "8192"),
            (rsa(&[], "AQAB"), "2048"),
            (rsa(&[0xff; 256], "AQ"), "safe"),
            (rsa(&[0xff; 256], "Ag"), "safe"),
            (rsa(&[0xff; 256], ""), "safe"),
            (rsa(&[0xfe; 256], "AQAB"), "safe"),
            (json!(7), "no object"),
        ] {
            let error = keys(&json!([key])).unwrap_err();
            assert!(error.contains(why), "{key}: {error}");
            let beside = keys(&json!([key, good])).unwrap();
            assert_eq!((beside.len(), beside.left_out.len()), (1, 1), "{key}");
        }
        assert!(keys(&json!([with("use", json!("sig")), with("key_ops", json!(["verify"]))])).is_ok());
    }

    #[test]
    fn a_set_has_bounds_and_keys() {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        assert_eq!(keys(&json!(vec![good.clone(); MOST])).map(|keys| keys.len()), Ok(MOST));
        assert!(keys(&json!(vec![good; MOST + 1])).unwrap_err().contains("more than"));
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(Keys::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
