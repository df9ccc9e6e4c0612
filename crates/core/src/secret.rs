//! Secrets: written as a reference (`env:NAME`, `file:PATH`), read once, never printed.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::spec::SpecError;

/// Marks plain secrets, so that two can be told apart by this process, and by nobody else.
static MARKS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Reads a secret from where it is kept. The error is told from the secret's own place.
pub type Reveal = fn(&SecretSpec) -> Result<Secret, SpecError>;

/// A secret as written in a document. Its text never shows: neither in `Debug` nor when it is serialised.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSpec {
    /// In an environment variable of this name.
    Env(String),
    /// In a file at this path; a newline at its end is not part of the secret.
    File(String),
    /// In plain text, which `pylon` refuses unless `--allow-plain-secrets` is given.
    Plain(Secret),
}

impl SecretSpec {
    /// Reads the written form.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some(("env", name)) => Self::Env(name.into()),
            Some(("file", path)) => Self::File(path.into()),
            _ => Self::Plain(Secret::new(text)),
        }
    }
}

impl fmt::Debug for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Plain(_) => f.write_str("(a plain secret)"),
        }
    }
}

impl Serialize for SecretSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // What is compared by its serialised form must notice that one plain secret became another.
            Self::Plain(secret) => {
                let mark = MARKS.hash_one(secret.expose());
                serializer.collect_str(&format_args!("(a plain secret, #{mark:016x})"))
            }
            Self::Env(_) | Self::File(_) => serializer.collect_str(&format_args!("{self:?}")),
        }
    }
}

impl<'de> Deserialize<'de> for SecretSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::parse(&text))
    }
}

impl JsonSchema for SecretSpec {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A secret: `env:NAME` or `file:PATH`", "examples": ["env:ADMIN_TOKEN"] })
    }
}

/// A secret in memory. It compares in time that does not depend on where two secrets differ.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Keeps `bytes` as a secret.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(bytes.as_ref().into())
    }

    /// The bytes themselves: for the place that proves or sends the secret, and nowhere else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `offered` is this secret, in time that depends on the offered length alone.
    pub fn matches(&self, offered: &[u8]) -> bool {
        let mut difference = self.0.len() ^ offered.len();
        for (i, byte) in offered.iter().enumerate() {
            let own = self.0.get(i % self.0.len().max(1)).copied().unwrap_or(0);
            difference |= usize::from(own ^ byte);
        }
        std::hint::black_box(difference) == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let spec = SecretSpec::parse("hunter2");
        assert!(!format!("{spec:?}").contains("hunter2"));
        let written = serde_json::to_string(&spec).unwrap();
        assert!(!written.contains("hunter2"));
        assert_eq!(written, serde_json::to_string(&SecretSpec::parse("hunter2")).unwrap());
        assert_ne!(written, serde_json::to_string(&SecretSpec::parse("hunter3")).unwrap(), "a change is noticed");
        assert_eq!(format!("{:?}", SecretSpec::parse("env:TOKEN")), "env:TOKEN");
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("open sesame");
        assert!(secret.matches(b"open sesame"));
        for wrong in [&b""[..], b"open", b"open sesamf", b"open sesameopen sesame"] {
            assert!(!secret.matches(wrong));
        }
        assert!(!Secret::new("").matches(b"x") && Secret::new("").matches(b""));
    }
}
