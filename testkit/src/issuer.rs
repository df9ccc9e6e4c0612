//! An issuer of tokens: real keys of every kind, the tokens that they sign, and the service where their public halves are fetched.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as by, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::message::Message;
use crate::upstream::Upstream;
use crate::wait;

/// A key, with the name of the algorithm that it signs by.
#[derive(Debug)]
pub struct Signer {
    alg: String,
    kid: String,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
    Secret(Vec<u8>),
}

impl Signer {
    /// A new key for `alg`, such as `RS256`, named `kid`.
    ///
    /// # Panics
    /// If there is no such algorithm, or none with a key pair.
    pub fn new(alg: &str, kid: &str) -> Self {
        let key = match alg {
            "ES256" | "ES384" | "ES512" => {
                let ec = EcdsaKeyPair::generate(ec(alg)).unwrap();
                Key::Ec(Box::new(ec))
            }
            "EdDSA" => Key::Ed(Box::new(Ed25519KeyPair::generate().unwrap())),
            _ => {
                let _is_rsa = rsa(alg);
                Key::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
            }
        };
        Self { alg: alg.into(), kid: kid.into(), key }
    }

    /// A secret that signs by `alg`, such as `HS256`.
    pub fn secret(alg: &str, secret: &[u8]) -> Self {
        Self { alg: alg.into(), kid: String::new(), key: Key::Secret(secret.into()) }
    }

    /// The public half, as it stands in a set of keys.
    ///
    /// # Panics
    /// If it is a secret.
    pub fn jwk(&self) -> Value {
        let (alg, kid) = (&self.alg, &self.kid);
        match &self.key {
            Key::Rsa(pair) => {
                let (n, e) = rsa_parts(pair.public_key().as_ref());
                json!({ "kty": "RSA", "use": "sig", "alg": alg, "kid": kid, "n": encode(&n), "e": encode(&e) })
            }
            Key::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match alg.as_str() {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "crv": curve, "alg": alg, "kid": kid, "x": encode(x), "y": encode(y) })
            }
            Key::Ed(pair) => {
                let x = encode(pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "alg": alg, "kid": kid, "x": x })
            }
            Key::Secret(_) => panic!("a secret has no public half"),
        }
    }

    /// The public half in PEM.
    ///
    /// # Panics
    /// If it is a secret.
    pub fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.key {
            Key::Rsa(pair) => pair.public_key().as_der().unwrap(),
            Key::Ec(pair) => pair.public_key().as_der().unwrap(),
            Key::Ed(pair) => pair.public_key().as_der().unwrap(),
            Key::Secret(_) => panic!("a secret has no public half"),
        };
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "kid": self.kid, "typ": "JWT" }), claims)
    }

    /// A token with this header and these claims.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.signed(&format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes())))
    }

    /// This text, which may be no proper one, with a dot and its signature.
    pub fn signed(&self, text: &str) -> String {
        format!("{text}.{}", encode(&self.sign(text.as_bytes())))
    }

    /// The signature of these bytes.
    ///
    /// # Panics
    /// If the key cannot sign.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(rsa(&self.alg), &random, bytes, &mut signature).unwrap();
                signature
            }
            Key::Ec(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Key::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
            Key::Secret(secret) => {
                let by = match self.alg.as_str() {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(by, secret), bytes).as_ref().to_vec()
            }
        }
    }
}

/// Bytes in base64url.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The wall clock, in seconds since 1970.
///
/// # Panics
/// If the clock stands before that.
#[expect(clippy::disallowed_methods, reason = "tokens count by the wall clock")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn ec(alg: &str) -> &'static EcdsaSigningAlgorithm {
    match alg {
        "ES256" => &by::ECDSA_P256_SHA256_FIXED_SIGNING,
        "ES384" => &by::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => &by::ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

fn rsa(alg: &str) -> &'static dyn RsaEncoding {
    match alg {
        "RS256" => &by::RSA_PKCS1_SHA256,
        "RS384" => &by::RSA_PKCS1_SHA384,
        "RS512" => &by::RSA_PKCS1_SHA512,
        "PS256" => &by::RSA_PSS_SHA256,
        "PS384" => &by::RSA_PSS_SHA384,
        "PS512" => &by::RSA_PSS_SHA512,
        other => panic!("{other} is no algorithm with a key pair"),
    }
}

/// Modulus and exponent of a key in the form of RFC 8017 §A.1.1.
fn rsa_parts(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, rest) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), &der[2..]),
            long => {
                let (digits, rest) = der[2..].split_at(usize::from(long & 0x7f));
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
        };
        rest.split_at(length)
    }
    let number = |bytes: &[u8]| bytes.iter().skip_while(|byte| **byte == 0).copied().collect();
    let (both, _) = element(der);
    let (n, rest) = element(both);
    (number(n), number(element(rest).0))
}

/// An issuer, with a service that tells of its keys.
#[derive(Debug)]
pub struct Issuer {
    service: Option<Upstream>,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    signers: Mutex<Vec<Arc<Signer>>>,
    fetches: AtomicUsize,
    frozen: AtomicBool,
    /// Answers in place of the keys.
    instead: Mutex<Option<Answer>>,
}

impl Issuer {
    /// An issuer with one key for `alg`.
    pub fn start(alg: &str) -> Self {
        let shared = Arc::new(Shared::default());
        shared.signers.lock().unwrap().push(Arc::new(Signer::new(alg, "first")));
        let service = serve("127.0.0.1:0".parse().unwrap(), &shared);
        Self { address: service.address(), service: Some(service), shared }
    }

    /// Its name, which is also where it tells of itself.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where its keys are.
    pub fn jwks(&self) -> String {
        format!("{}/keys", self.url())
    }

    /// The key that it signs with now.
    ///
    /// # Panics
    /// Never: there is one.
    pub fn signer(&self) -> Arc<Signer> {
        Arc::clone(self.shared.signers.lock().unwrap().last().unwrap())
    }

    /// A token of this subject for `api`, good for ten minutes.
    pub fn token(&self, subject: &str) -> String {
        self.signer().token(&self.claims(subject))
    }

    /// What stands in such a token.
    pub fn claims(&self, subject: &str) -> Value {
        let now = unix_now();
        json!({ "iss": self.url(), "sub": subject, "aud": "api", "iat": now, "exp": now + 600 })
    }

    /// Signs with this key from now on, and tells of no other.
    ///
    /// # Panics
    /// If a thread of the service has panicked.
    pub fn rotate(&self, signer: Signer) {
        *self.shared.signers.lock().unwrap() = vec![Arc::new(signer)];
    }

    /// How often its keys were fetched.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(SeqCst)
    }

    /// Takes connections and answers nothing, until it is thawed.
    pub fn freeze(&self, frozen: bool) {
        self.shared.frozen.store(frozen, SeqCst);
    }

    /// Answers so when it is asked for its keys.
    ///
    /// # Panics
    /// If a thread of the service has panicked.
    pub fn answer_instead(&self, answer: Option<Answer>) {
        *self.shared.instead.lock().unwrap() = answer;
    }

    /// Is gone: nobody listens there.
    pub fn die(&mut self) {
        self.service = None;
        wait::until(Duration::from_secs(10), "the issuer's port is closed", || {
            std::net::TcpStream::connect(self.address).is_err()
        });
    }

    /// Is there again.
    pub fn revive(&mut self) {
        self.service = Some(serve(self.address, &self.shared));
    }
}

fn serve(address: SocketAddr, shared: &Arc<Shared>) -> Upstream {
    let shared = Arc::clone(shared);
    Upstream::script_at(address, move |peer| {
        let shared = Arc::clone(&shared);
        peer.serve(move |request| answer(&shared, request));
    })
}

fn answer(shared: &Shared, request: &Message) -> Answer {
    let of_keys = request.target().ends_with("/keys");
    if of_keys {
        shared.fetches.fetch_add(1, SeqCst);
    }
    if shared.frozen.load(SeqCst) {
        wait::until(Duration::from_secs(60), "the issuer is thawed", || !shared.frozen.load(SeqCst));
    }
    if !of_keys {
        let issuer = format!("http://{}", request.field("host").unwrap_or_default());
        return Answer::json(&json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }));
    }
    if let Some(instead) = &*shared.instead.lock().unwrap() {
        return instead.clone();
    }
    let keys: Vec<_> = shared.signers.lock().unwrap().iter().map(|signer| signer.jwk()).collect();
    Answer::json(&json!({ "keys": keys }))
}
