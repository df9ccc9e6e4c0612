//! The consumers of a document: whom it knows by name, in which groups they are, and by which credentials they are known.
//!
//! Credentials are kept as hashes alone. An API key is 256 bits of chance, so that one round of SHA-256 tells nothing of it; a
//! password is not, and has a hash that is slow on purpose.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use argon2::Params;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::digest::{SHA256, digest};
use pylon_core::caller::{Caller, Consumer};
use pylon_core::names::ConsumerName;
use pylon_core::secret::Reveal;
use pylon_core::short::{FromScalar, OneOrMany, Several, Short};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::signatures::{SigningKey, SigningKeySpec, SigningKeys};
use self::tokens::{Tokens, TokensSpec};
use crate::written;

pub mod signatures;
pub mod tokens;

/// One consumer: an application, a partner, a team.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerSpec {
    /// The groups that it is in, for `require: { any_group: … }`. Default: none.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["partners", "mobile"])]
    pub groups: OneOrMany<String>,
    /// The plan that it has, for limits. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"gold")]
    pub plan: Option<String>,
    /// What else is known of it, as words by name; `headers` of an identity policy can tell it to services. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("team", "shop")]))]
    pub metadata: BTreeMap<String, String>,
    /// Its API keys, one or a list: hashes as `pylon keys create` prints them. Default: none.
    #[serde(default, skip_serializing_if = "Several::is_empty")]
    #[schemars(example = vec!["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])]
    pub keys: Several<Short<KeySpec>>,
    /// The names and passwords that it has, one or a list. Default: none.
    #[serde(default, skip_serializing_if = "Several::is_empty")]
    #[schemars(example = serde_json::json!({ "user": "ann", "password": "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$…" }))]
    pub basic: Several<LoginSpec>,
    /// The tokens that are its own, for the policy `jwt`: by issuer, and by subject or client. Default: none.
    #[serde(default, skip_serializing_if = "Several::is_empty")]
    #[schemars(example = vec![BTreeMap::from([("issuer", "https://id.example.com"), ("client", "shop-backend")])])]
    pub tokens: Several<TokensSpec>,
    /// The keys by which it signs requests, for the policy `signature`, one or a list. Default: none.
    #[serde(default, skip_serializing_if = "Several::is_empty")]
    #[schemars(example = vec![BTreeMap::from([("keyid", "billing-2026"), ("algorithm", "ed25519"), ("key", "file:keys/billing.pem")])])]
    pub signatures: Several<SigningKeySpec>,
    /// The certificates that it shows, one or a list: a URI, DNS name or mail address that stands in them, or `sha256:` and the digits
    /// of a fingerprint. Default: none.
    #[serde(default, skip_serializing_if = "written::is_empty")]
    #[schemars(example = vec!["spiffe://example.org/billing", "billing.internal"])]
    pub certificates: OneOrMany<String>,
}

/// A name with a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginSpec {
    /// The name; it holds no colon (RFC 7617 §2). Required.
    #[schemars(example = &"ann")]
    pub user: String,
    /// The hash of the password, by Argon2 in the PHC form, as `pylon keys password` prints it. Required.
    #[schemars(example = &"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$…")]
    pub password: String,
}

/// One API key. Short: its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// The hash of the key: `sha256:` and 64 hexadecimal digits. Required.
    #[schemars(example = &"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
    /// A name for the key, by which log and people tell it from others. Default: the first digits of its hash.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"k_9f86d081")]
    pub id: Option<String>,
    /// When it ends: a date (its first moment, UTC) or a moment by RFC 3339. Default: never.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"2027-01-01")]
    pub expires: Option<String>,
}

impl FromScalar for KeySpec {
    const EXPECTING: &'static str = "the hash of a key, as `pylon keys create` prints it";

    fn from_scalar(text: &str) -> Result<Self, String> {
        Ok(Self { hash: text.into(), id: None, expires: None })
    }
}

/// The SHA-256 of an API key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key as a client shows it.
    pub fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, key).as_ref());
        Self(hash)
    }

    /// Reads the written form.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        let nibble = |byte: u8| (byte as char).to_digit(16);
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (nibble(*high)? << 4 | nibble(*low)?) as u8;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One API key, as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// By what people tell it from others.
    pub id: Box<str>,
    /// When it ends, in seconds since 1970.
    pub until: Option<u64>,
}

/// A name with the hash of its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// The hash, in the PHC form.
    pub hash: Arc<str>,
}

/// All consumers of a document.
#[derive(Debug, Default)]
pub struct Consumers {
    logins: HashMap<Box<str>, Login>,
    certificates: HashMap<Box<str>, Arc<Consumer>>,
    all: BTreeMap<ConsumerName, Arc<Consumer>>,
    keys: HashMap<KeyHash, Key>,
    tokens: Tokens,
    signatures: SigningKeys,
    /// Whether what was written could not be read, which has been told.
    broken: bool,
}

impl Consumers {
    /// Stands in for those that are wrong, so that nobody is told of what only follows from that.
    pub fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    /// Reads them; errors begin at the name of a consumer.
    pub fn compile(specs: &[(String, ConsumerSpec)], secrets: Reveal) -> Result<Self, Vec<SpecError>> {
        let (mut consumers, mut errors) = (Self::default(), Vec::new());
        for (name, spec) in specs {
            let boxed = |words: &[String]| words.iter().map(|word| word.as_str().into()).collect();
            let consumer = Arc::new(Consumer {
                name: name.as_str().into(),
                groups: boxed(&spec.groups),
                plan: spec.plan.as_deref().map(Into::into),
                metadata: spec.metadata.clone(),
            });
            for (i, key) in spec.keys.0.iter().enumerate() {
                let at = FieldPath::root().key(name).key("keys").index(i);
                consumers.key(key, &consumer, &at).unwrap_or_else(|error| errors.push(error));
            }
            for (i, name_of) in spec.certificates.iter().enumerate() {
                let at = FieldPath::root().key(name).key("certificates").index(i);
                consumers.certificate(name_of, &consumer, &at).unwrap_or_else(|error| errors.push(error));
            }
            for (i, login) in spec.basic.0.iter().enumerate() {
                let at = FieldPath::root().key(name).key("basic").index(i);
                consumers.login(login, &consumer, &at).unwrap_or_else(|error| errors.push(error));
            }
            for (i, tokens) in spec.tokens.0.iter().enumerate() {
                let at = FieldPath::root().key(name).key("tokens").index(i);
                consumers.tokens.add(tokens, &consumer).unwrap_or_else(|error| errors.push(error.below(&at)));
            }
            for (i, key) in spec.signatures.0.iter().enumerate() {
                let at = FieldPath::root().key(name).key("signatures").index(i);
                signatures::add(&mut consumers.signatures, key, &consumer, secrets)
                    .unwrap_or_else(|error| errors.push(error.below(&at)));
            }
            consumers.all.insert(consumer.name.clone(), consumer);
        }
        if errors.is_empty() { Ok(consumers) } else { Err(errors) }
    }

    fn key(&mut self, spec: &KeySpec, consumer: &Arc<Consumer>, at: &FieldPath) -> Result<(), SpecError> {
        let hash = KeyHash::parse(&spec.hash).ok_or_else(|| {
            // Not shown: it may well be a key.
            let problem = "this is not the hash of a key, and a key must not stand here in plain text";
            let error = SpecError::new(at.clone().key("hash"), problem);
            error.help("let `pylon keys create` make a key: it prints `sha256:` and 64 digits to stand here")
        })?;
        let until = spec.expires.as_deref().map(moment).transpose().map_err(|problem| {
            SpecError::new(at.clone().key("expires"), problem).help("write `2027-01-01` or `2027-01-01T12:00:00Z`")
        })?;
        let id = spec.id.clone().unwrap_or_else(|| short(&hash));
        let key = Key { consumer: Arc::clone(consumer), id: id.into(), until };
        match self.keys.insert(hash, key) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("`{}` has the same key", other.consumer.name);
                Err(SpecError::new(at.clone(), problem).help("a key belongs to one consumer: take one of them out"))
            }
        }
    }

    fn login(&mut self, spec: &LoginSpec, consumer: &Arc<Consumer>, at: &FieldPath) -> Result<(), SpecError> {
        if spec.user.is_empty() || spec.user.contains(|c: char| c == ':' || c.is_control()) {
            return Err(SpecError::new(at.clone().key("user"), format!("`{}` is no name for a user", spec.user)));
        }
        if let Err(problem) = check_hash(&spec.password) {
            let error = SpecError::new(at.clone().key("password"), problem);
            return Err(error.help("let `pylon keys password` make the hash: it begins with `$argon2id$`"));
        }
        let login = Login { consumer: Arc::clone(consumer), hash: spec.password.as_str().into() };
        match self.logins.insert(spec.user.as_str().into(), login) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("`{}` has the name `{}`, too", other.consumer.name, spec.user);
                Err(SpecError::new(at.clone().key("user"), problem).help("a name belongs to one consumer"))
            }
        }
    }

    fn certificate(&mut self, text: &str, consumer: &Arc<Consumer>, at: &FieldPath) -> Result<(), SpecError> {
        if text.is_empty() || (text.starts_with("sha256:") && KeyHash::parse(text).is_none()) {
            let error = SpecError::new(at.clone(), format!("`{text}` names no certificate"));
            return Err(error.help("write a name that stands in it, or `sha256:` and the 64 digits of its fingerprint"));
        }
        // Hosts and fingerprints are compared in lower case; of the others, letters that differ in case are others.
        let exact = text.contains("://") || text.contains('@');
        let name = if exact { text.to_owned() } else { text.to_ascii_lowercase() };
        match self.certificates.insert(name.into(), Arc::clone(consumer)) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("`{}` has this certificate, too", other.name);
                Err(SpecError::new(at.clone(), problem).help("a certificate belongs to one consumer"))
            }
        }
    }

    /// The consumer whose certificate holds this name, or has this fingerprint.
    pub fn certificate_by(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.certificates.get(name)
    }

    /// The login with this name.
    pub fn login_by(&self, user: &str) -> Option<&Login> {
        self.logins.get(user)
    }

    /// The key that requests name so.
    pub fn signing_key(&self, keyid: &str) -> Option<&SigningKey> {
        self.signatures.get(keyid)
    }

    /// Whether nobody has a key to sign by.
    pub fn has_no_signing_key(&self) -> bool {
        self.signatures.is_empty() && !self.broken
    }

    /// Whether nobody has a password.
    pub fn has_no_login(&self) -> bool {
        self.logins.is_empty() && !self.broken
    }

    /// The consumer of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.all.get(&ConsumerName::from(name))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &ConsumerName> {
        self.all.keys()
    }

    /// All groups in which somebody is.
    pub fn groups(&self) -> BTreeSet<&str> {
        self.all.values().flat_map(|consumer| consumer.groups.iter().map(|group| &**group)).collect()
    }

    /// Whether what was written could not be read, so that nothing can be said of who is missing.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The key that has this hash.
    pub fn key_by(&self, hash: &KeyHash) -> Option<&Key> {
        self.keys.get(hash)
    }

    /// Makes the caller of a token of `issuer` the consumer to whom it belongs, if it belongs to one.
    pub(crate) fn of_token(&self, issuer: &str, caller: &mut Caller) {
        if let Some(consumer) = self.tokens.find(issuer, caller) {
            let groups = caller.groups.iter().chain(&consumer.groups).cloned().collect();
            (caller.consumer, caller.groups) = (Some(Arc::clone(consumer)), groups);
        }
    }

    /// Whether nobody has an API key.
    pub fn has_no_key(&self) -> bool {
        self.keys.is_empty() && !self.broken
    }
}

/// Whether this is a hash of a password that can be checked, at costs that are neither nothing nor ruinous.
fn check_hash(text: &str) -> Result<(), &'static str> {
    let none = "this is not the hash of a password, and a password must not stand here in plain text";
    let hash = PasswordHash::new(text).map_err(|_| none)?;
    let params = Params::try_from(&hash).map_err(|_| none)?;
    if !matches!(hash.algorithm.as_str(), "argon2id" | "argon2i" | "argon2d") || hash.hash.is_none() {
        return Err(none);
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > 1 << 18 || work > 1 << 20 {
        return Err("this hash takes too much memory or time: at most 256 MiB, and 1 GiB over all passes");
    }
    Ok(())
}

/// The name of a key that has none.
fn short(hash: &KeyHash) -> String {
    let text = hash.to_string();
    format!("k_{}", text.get(7..15).unwrap_or_default())
}

/// A date or a moment, in seconds since 1970.
pub fn moment(text: &str) -> Result<u64, String> {
    let moment = match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment.as_second(),
        Err(_) => {
            let date: jiff::civil::Date =
                text.parse().map_err(|_| format!("`{text}` is neither a date nor a moment"))?;
            let midnight = date.to_datetime(jiff::civil::Time::midnight());
            jiff::tz::Offset::UTC.to_timestamp(midnight).map_err(|error| error.to_string())?.as_second()
        }
    };
    u64::try_from(moment).map_err(|_| format!("`{text}` was before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(json: &str) -> Result<Consumers, Vec<String>> {
        let specs: BTreeMap<String, ConsumerSpec> = serde_json::from_str(json).unwrap();
        let specs: Vec<_> = specs.into_iter().collect();
        Consumers::compile(&specs, crate::testing::plain_secrets)
            .map_err(|errors| errors.iter().map(|error| format!("{}: {}", error.at, error.problem)).collect())
    }

    #[test]
    fn a_key_is_found_by_its_hash_and_by_nothing_else() {
        let hash = KeyHash::of(b"secret");
        let consumers = compile(&format!(
            r#"{{ "app": {{ "groups": "a", "plan": "gold", "keys": ["{hash}", {{ "hash": "{}", "id": "old", "expires": "2020-01-01" }}] }} }}"#,
            KeyHash::of(b"other")
        ))
        .unwrap();
        let key = consumers.key_by(&hash).unwrap();
        assert_eq!((key.consumer.name.as_str(), &*key.id, key.until), ("app", &*short(&hash), None));
        assert_eq!(short(&hash).len(), 10);
        assert_eq!(consumers.key_by(&KeyHash::of(b"other")).unwrap().until, Some(1_577_836_800));
        assert_eq!(consumers.key_by(&KeyHash::of(b"")), None);
        assert_eq!(KeyHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(consumers.get("app").unwrap().plan.as_deref(), Some("gold"));
        assert!(consumers.get("ap").is_none() && consumers.names().count() == 1);
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_shown() {
        let errors =
            compile(r#"{ "a": { "keys": ["pk_secret", { "hash": "sha256:12", "expires": "soon" }] } }"#).unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("a.keys[0].hash: ") && !errors.concat().contains("pk_secret"), "{errors:?}");
        let hash = KeyHash::of(b"x");
        let twice = format!(r#"{{ "a": {{ "keys": "{hash}" }}, "b": {{ "keys": "{hash}" }} }}"#);
        assert_eq!(compile(&twice).unwrap_err(), ["b.keys[0]: `a` has the same key"]);
        let late = format!(r#"{{ "a": {{ "keys": {{ "hash": "{hash}", "expires": "tomorrow" }} }} }}"#);
        assert_eq!(compile(&late).unwrap_err(), ["a.keys[0].expires: `tomorrow` is neither a date nor a moment"]);
    }

    #[test]
    fn dates_and_moments_are_read() {
        assert_eq!(moment("1970-01-02"), Ok(86_400));
        assert_eq!(moment("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(moment("1969-12-31").is_err() && moment("").is_err());
    }
}
