//! Who is asking, once that is proved: identity policies find it out, and all that stands behind them reads it here.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::names::ConsumerName;

/// Who is asking, proved by a credential.
///
/// It is made once for a credential and shared by the requests that show it again; a worker has its own, so that counting
/// who holds it is nothing that other workers write too.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Caller {
    /// The key of the policy that proved it.
    pub by: &'static str,
    /// The name that the credential gives: the subject of a token, the user, the name of a certificate.
    pub subject: Box<str>,
    /// The consumer of the document, where the credential belongs to one.
    pub consumer: Option<Arc<Consumer>>,
    /// What the caller may do, as the issuer said (RFC 6749 §3.3).
    pub scopes: Box<[Box<str>]>,
    /// The groups that the caller is in: those of the consumer, and those that a token tells.
    pub groups: Box<[Box<str>]>,
    /// All else that the credential says: the claims of a token, the parts of a certificate.
    pub claims: Map<String, Value>,
    /// When the credential ends, in seconds since 1970; none where it has no end.
    pub until: Option<u64>,
    /// What services are told of the caller, as headers: made once for a credential.
    pub told: Box<[(HeaderName, HeaderValue)]>,
}

/// One of those whom the document names under `consumers`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Consumer {
    /// The name.
    pub name: ConsumerName,
    /// The groups that it is in.
    pub groups: Box<[Box<str>]>,
    /// The plan that it has, for limits.
    pub plan: Option<Box<str>>,
    /// What else is known of it.
    pub metadata: BTreeMap<String, String>,
}

impl Caller {
    /// The caller that a credential of `consumer` proves.
    pub fn consumer(by: &'static str, consumer: &Arc<Consumer>) -> Self {
        Self {
            by,
            subject: consumer.name.as_str().into(),
            groups: consumer.groups.clone(),
            consumer: Some(Arc::clone(consumer)),
            ..Self::default()
        }
    }

    /// Whether this scope was given.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|one| **one == *scope)
    }

    /// Whether the caller is in this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| **one == *group)
    }

    /// The claim at `path`: its name, or names with dots between them where one lies within another. A claim whose own name
    /// holds the dots comes first.
    pub fn claim(&self, path: &str) -> Option<&Value> {
        claim(&self.claims, path)
    }

    /// One fact as text, by the name under which documents speak of it: see [`Fact`].
    pub fn fact(&self, fact: &Fact) -> Option<String> {
        match fact {
            Fact::Subject => Some(self.subject.as_ref().into()),
            Fact::Consumer => self.consumer.as_ref().map(|consumer| consumer.name.to_string()),
            Fact::Plan => self.consumer.as_ref()?.plan.as_deref().map(Into::into),
            Fact::Groups => (!self.groups.is_empty()).then(|| self.groups.join(",")),
            Fact::Scopes => (!self.scopes.is_empty()).then(|| self.scopes.join(" ")),
            Fact::By => Some(self.by.into()),
            Fact::Metadata(key) => self.consumer.as_ref()?.metadata.get(key).cloned(),
            Fact::Claim(path) => self.claim(path).and_then(text),
        }
    }
}

/// The claim at `path` among `claims`.
pub fn claim<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(dot, _)| match claims.get(path.get(..dot)?)? {
        Value::Object(inner) => claim(inner, path.get(dot + 1..)?),
        _ => None,
    })
}

/// A claim as it stands in a header: words and numbers as they are, lists of them with commas, anything else as JSON.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object() && !item.is_null()) => {
            Some(items.iter().filter_map(text).collect::<Vec<_>>().join(","))
        }
        other => Some(other.to_string()),
    }
}

/// A fact of the caller, as documents name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// `subject`.
    Subject,
    /// `consumer`: its name.
    Consumer,
    /// `plan`: that of the consumer.
    Plan,
    /// `groups`, with commas between them.
    Groups,
    /// `scopes`, with blanks between them.
    Scopes,
    /// `by`: the policy that proved who it is.
    By,
    /// `metadata.NAME`: what else is known of the consumer.
    Metadata(String),
    /// `claims.NAME`: a claim of the credential.
    Claim(String),
}

impl Fact {
    /// What may be written.
    pub const WORDS: &'static str =
        "`subject`, `consumer`, `plan`, `groups`, `scopes`, `by`, `metadata.NAME` or `claims.NAME`";

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "subject" => Self::Subject,
            "consumer" => Self::Consumer,
            "plan" => Self::Plan,
            "groups" => Self::Groups,
            "scopes" => Self::Scopes,
            "by" => Self::By,
            _ => match text.split_once('.') {
                Some(("metadata", key)) if !key.is_empty() => Self::Metadata(key.into()),
                Some(("claims", path)) if !path.is_empty() => Self::Claim(path.into()),
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller() -> Caller {
        let consumer = Consumer {
            name: "app".into(),
            groups: ["a".into(), "b".into()].into(),
            plan: Some("gold".into()),
            metadata: [("team".to_owned(), "shop".to_owned())].into(),
        };
        let claims =
            json!({ "realm": { "roles": ["x", "y"], "level": 3 }, "realm.level": 4, "deep": [{ "a": 1 }], "no": null });
        let Value::Object(claims) = claims else { unreachable!() };
        Caller {
            claims,
            scopes: ["read".into(), "write".into()].into(),
            ..Caller::consumer("jwt", &Arc::new(consumer))
        }
    }

    #[test]
    fn facts_are_told_by_their_names() {
        let told = |name: &str| caller().fact(&Fact::parse(name).unwrap());
        for (name, value) in [
            ("subject", "app"),
            ("consumer", "app"),
            ("plan", "gold"),
            ("groups", "a,b"),
            ("scopes", "read write"),
            ("by", "jwt"),
            ("metadata.team", "shop"),
            ("claims.realm.roles", "x,y"),
            ("claims.realm.level", "4"),
            ("claims.deep", r#"[{"a":1}]"#),
        ] {
            assert_eq!(told(name).as_deref(), Some(value), "{name}");
        }
        for absent in ["metadata.none", "claims.none", "claims.no", "claims.realm.roles.x"] {
            assert_eq!(told(absent), None, "{absent}");
        }
        for odd in ["", "sub", "claims", "claims.", "metadata."] {
            assert_eq!(Fact::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_scope_or_a_group_is_had_as_a_whole_or_not_at_all() {
        let caller = caller();
        assert!(caller.has_scope("read") && !caller.has_scope("rea") && !caller.has_scope("read write"));
        assert!(caller.is_in("a") && !caller.is_in("A") && !caller.is_in(""));
    }
}
