//! Which tokens belong to a consumer: those of an issuer that name a subject or a client.

use std::collections::HashMap;
use std::sync::Arc;

use pylon_core::caller::{Caller, Consumer};
use pylon_core::spec::{FieldPath, SpecError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::written;

/// Tokens of one issuer that are a consumer's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokensSpec {
    /// The issuer, as the policy `jwt` names it. Required.
    #[schemars(example = &"https://id.example.com")]
    pub issuer: String,
    /// The subject of the tokens. Default: none; one of `subject` and `client` is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"248289761001")]
    pub subject: Option<String>,
    /// The client that they were issued to: their `client_id` or `azp`. Default: none; one of `subject` and `client` is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"shop-backend")]
    pub client: Option<String>,
}

/// Consumers by their tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<Box<str>, Named>);

/// Those of one issuer.
#[derive(Debug, Default)]
struct Named {
    subjects: HashMap<Box<str>, Arc<Consumer>>,
    clients: HashMap<Box<str>, Arc<Consumer>>,
}

impl Tokens {
    /// Takes in what is written of one consumer; errors begin at the item.
    pub(super) fn add(&mut self, spec: &TokensSpec, consumer: &Arc<Consumer>) -> Result<(), SpecError> {
        let named = self.0.entry(spec.issuer.as_str().into()).or_default();
        let (key, name, of_kind) = match (&spec.subject, &spec.client) {
            (Some(name), None) => ("subject", name, &mut named.subjects),
            (None, Some(name)) => ("client", name, &mut named.clients),
            _ => {
                let error = SpecError::new(FieldPath::root(), "this does not say which tokens are meant");
                return Err(error.help("write one of `subject` and `client`"));
            }
        };
        match of_kind.insert(name.as_str().into(), Arc::clone(consumer)) {
            None => Ok(()),
            Some(other) => {
                let problem = format!("these tokens belong to `{}`", other.name);
                Err(SpecError::new(FieldPath::root().key(key), problem).help("a token belongs to one consumer"))
            }
        }
    }

    /// The consumer to whom a token of `issuer` belongs that makes this caller. A subject says more than a client.
    pub(super) fn find(&self, issuer: &str, caller: &Caller) -> Option<&Arc<Consumer>> {
        let named = self.0.get(issuer)?;
        let client = || caller.claims.get("client_id").or_else(|| caller.claims.get("azp")).and_then(Value::as_str);
        named.subjects.get(&caller.subject).or_else(|| named.clients.get(client()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(text: &str) -> TokensSpec {
        serde_json::from_str(text).unwrap()
    }

    fn consumer(name: &str) -> Arc<Consumer> {
        Arc::new(Consumer { name: name.into(), ..Consumer::default() })
    }

    #[test]
    fn tokens_belong_to_whom_their_subject_or_client_names() {
        let mut tokens = Tokens::default();
        tokens.add(&spec(r#"{ "issuer": "id", "subject": "ann" }"#), &consumer("a")).unwrap();
        tokens.add(&spec(r#"{ "issuer": "id", "client": "shop" }"#), &consumer("b")).unwrap();
        let find = |issuer: &str, subject: &str, claims: Value| {
            let Value::Object(claims) = claims else { unreachable!() };
            let caller = Caller { subject: subject.into(), claims, ..Caller::default() };
            tokens.find(issuer, &caller).map(|found| found.name.to_string())
        };
        assert_eq!(find("id", "ann", json!({ "client_id": "shop" })).as_deref(), Some("a"));
        assert_eq!(find("id", "bob", json!({ "client_id": "shop" })).as_deref(), Some("b"));
        assert_eq!(find("id", "bob", json!({ "azp": "shop" })).as_deref(), Some("b"));
        assert_eq!(find("id", "bob", json!({ "azp": "ann" })), None);
        assert_eq!(find("other", "ann", json!({ "azp": "shop" })), None);
    }

    #[test]
    fn tokens_of_nobody_or_of_two_are_mistakes() {
        let mut tokens = Tokens::default();
        for odd in [r#"{ "issuer": "id" }"#, r#"{ "issuer": "id", "subject": "a", "client": "b" }"#] {
            assert!(tokens.add(&spec(odd), &consumer("a")).is_err(), "{odd}");
        }
        let one = spec(r#"{ "issuer": "id", "subject": "ann" }"#);
        assert!(tokens.add(&one, &consumer("a")).is_ok() && tokens.add(&one, &consumer("b")).is_err());
    }
}
