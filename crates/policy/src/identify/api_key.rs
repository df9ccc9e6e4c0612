//! Knows consumers by API keys.
//!
//! ```yaml
//! api_key: x-api-key
//! ```
//! ```yaml
//! api_key:
//!   header: x-api-key              # or `authorization`, with `scheme: ApiKey`
//!   query: key                     # where clients can send no header
//!   headers: { x-consumer: consumer, x-plan: plan }
//! ```
//!
//! A key belongs to one of the document's `consumers`, which holds its hash and not the key; more keys of theirs may stand in the file that
//! `stores: { keys: keys.json }` names, which is watched, or in a Redis that gateways share: `stores: { keys: redis, redis: … }`. `pylon keys create`
//! makes a key. A key that nobody has, or whose time is over, is answered with 401, also on routes that serve callers
//! without a key: a client that shows a key means to be known. Where Redis does not answer, a key that is not at hand is answered with 503.
//!
//! The key itself goes no further than the gateway, neither to services nor into the log, unless `forward: true` is written. What `headers`
//! names is told to services in headers of those names; what a client sends under these names, in whatever spelling, is taken away
//! first, from headers and trailers, whether or not there is a key.
//!
//! Keys in the query end up in histories and in logs of others: prefer a header.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use pylon_core::Request;
use pylon_core::caller::Caller;
use pylon_core::exchange::Exchange;
use pylon_core::kept;
use pylon_core::short::{FromScalar, Short};
use pylon_core::spec::{FieldPath, SpecError};
use pylon_observe::clock::unix_now;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::consumers::{Consumers, Key, KeyHash};
use crate::identity::{Identity, Look, Place, Proof, Telling, place_named};
use crate::keys::KeyStore;
use crate::policy::{Compiling, Policy, Step};
use crate::proofs::{self, Proofs};
use crate::written;

/// Where API keys stand. Short: the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySpec {
    /// The header that holds the key. Default: none; one of `header`, `query` and `cookie` is required.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"x-api-key")]
    pub header: Option<String>,
    /// The word before the key in that header: only for `authorization`, which other schemes share. Default: `ApiKey` there.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"ApiKey")]
    pub scheme: Option<String>,
    /// The parameter of the query that holds the key. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"key")]
    pub query: Option<String>,
    /// The cookie that holds the key. Default: none.
    #[serde(default, deserialize_with = "written::value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", example = &"api_key")]
    pub cookie: Option<String>,
    /// What services are told of the caller: facts by header. Default: nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(example = BTreeMap::from([("x-consumer", "consumer"), ("x-plan", "plan")]))]
    pub headers: BTreeMap<String, String>,
    /// Whether services see the key. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub forward: bool,
}

impl FromScalar for ApiKeySpec {
    const EXPECTING: &'static str = "the name of a header such as `x-api-key`";

    fn from_scalar(text: &str) -> Result<Self, String> {
        let (scheme, query, cookie, headers) = (None, None, None, BTreeMap::new());
        Ok(Self { header: Some(text.into()), scheme, query, cookie, headers, forward: false })
    }
}

/// The policy at work.
#[derive(Debug)]
pub struct ApiKey {
    identity: Identity,
    consumers: Arc<Consumers>,
    store: Option<KeyStore>,
}

impl Policy for ApiKey {
    type Spec = Short<ApiKeySpec>;
    type Memo = ();

    const PROVES_CONSUMERS: bool = true;

    fn compile(spec: &Self::Spec, cx: &Compiling<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Vec::new();
        let places = places(spec, &mut errors);
        let telling = Telling::compile(&spec.headers);
        let telling = telling.map_err(|found| {
            errors.extend(found.into_iter().map(|error| error.below(&FieldPath::root().key("headers"))));
        });
        let consumers = Arc::clone(&cx.around.consumers);
        let store = cx.around.keys.clone();
        if consumers.has_no_key() && store.is_none() {
            let error = SpecError::new(FieldPath::root(), "no consumer has an API key, so nobody could call");
            let help = "add `consumers: { app: { keys: [sha256:…] } }`, or `stores: { keys: keys.json }`";
            errors.push(error.help(format!("{help}; `pylon keys create` makes a key")));
        }
        let (Ok(telling), true) = (telling, errors.is_empty()) else { return Err(errors) };
        let challenge = challenge(&places);
        let identity = Identity { places, telling, forward: spec.forward, challenge, proofs: Proofs::default() };
        Ok(Self { identity, consumers, store })
    }

    fn on_request<'a>(&'a self, req: &'a mut Request, cx: &'a mut Exchange) -> Step<'a, ()> {
        // What the document says is compiled with this policy, so that it never changes under it; the store may.
        let generation = self.store.as_ref().map_or(0, KeyStore::generation);
        Step::Done(match self.identity.look(req, cx, generation) {
            Look::Settled(outcome) => outcome,
            Look::Shown(shown) => {
                let proof = self.prove(&shown.credential, cx.started);
                self.identity.settle(&shown, proof, req, cx)
            }
        })
    }

    fn challenge(&self) -> Option<HeaderValue> {
        Some(self.identity.challenge.clone())
    }
}

impl ApiKey {
    fn prove(&self, key: &[u8], now: Instant) -> Proof {
        let Key { consumer, id, until } = match self.key_by(&KeyHash::of(key)) {
            Ok(Some(key)) => key,
            Ok(None) => return Proof::Invalid("nobody has this API key".into()),
            Err(why) => return Proof::Unknown(why.into()),
        };
        let left = match until {
            None => proofs::LONGEST,
            Some(until) => match until.saturating_sub(unix_now().as_secs()) {
                0 => return Proof::Invalid(format!("the API key {id} of {} is over", consumer.name).into()),
                left => Duration::from_secs(left),
            },
        };
        let mut caller = Caller::consumer("api_key", &consumer);
        caller.until = until;
        caller.claims.insert("key".into(), (*id).into());
        Proof::Caller(caller, now + left.min(proofs::LONGEST))
    }

    /// The key of the document or of the store. One of the store whose consumer the document does not know is nobody's.
    fn key_by(&self, hash: &KeyHash) -> Result<Option<Key>, String> {
        if let Some(key) = self.consumers.key_by(hash) {
            return Ok(Some(key.clone()));
        }
        let Some(store) = &self.store else { return Ok(None) };
        let Some(kept) = store.key_by(hash)? else { return Ok(None) };
        let consumer = self.consumers.get(&kept.consumer).map(Arc::clone);
        Ok(consumer.map(|consumer| Key { consumer, id: kept.id, until: kept.until }))
    }
}

fn places(spec: &ApiKeySpec, errors: &mut Vec<SpecError>) -> Box<[Place]> {
    let at = |key: &str| FieldPath::root().key(key);
    let mut places = Vec::new();
    if let Some(header) = &spec.header {
        match HeaderName::try_from(header.as_str()) {
            Ok(name) => {
                let shared = name == AUTHORIZATION;
                if spec.scheme.is_some() && !shared {
                    let error = SpecError::new(at("scheme"), "`scheme` means nothing beside this header");
                    errors.push(error.help("only `authorization` is shared by schemes: leave `scheme` out"));
                }
                places.push(Place::Header(kept::name(&name), shared.then(|| scheme(spec.scheme.as_deref(), errors))));
            }
            Err(_) => errors.push(SpecError::new(at("header"), format!("`{header}` is not the name of a header"))),
        }
    } else if spec.scheme.is_some() {
        errors.push(SpecError::new(at("scheme"), "`scheme` means nothing without `header: authorization`"));
    }
    for (key, name, place) in [
        ("query", &spec.query, Place::Query as fn(Box<str>) -> Place),
        ("cookie", &spec.cookie, Place::Cookie as fn(Box<str>) -> Place),
    ] {
        places.extend(
            name.as_deref()
                .and_then(|name| place_named(name, place).map_err(|error| errors.push(error.below(&at(key)))).ok()),
        );
    }
    if spec.header.is_none() && places.is_empty() && errors.is_empty() {
        let error = SpecError::new(FieldPath::root(), "nothing says where the key stands");
        errors.push(error.help("write `api_key: x-api-key`, or one of `header`, `query` and `cookie`"));
    }
    places.into()
}

fn scheme(written: Option<&str>, errors: &mut Vec<SpecError>) -> Box<str> {
    let text = written.unwrap_or("ApiKey");
    let taken = ["bearer", "basic", "digest", "negotiate"].iter().any(|other| text.eq_ignore_ascii_case(other));
    if taken || text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        let error =
            SpecError::new(FieldPath::root().key("scheme"), format!("`{text}` cannot be the scheme of API keys"));
        errors.push(error.help("use letters, digits and `-`, and none that means something else, such as `Bearer`"));
    }
    text.into()
}

fn challenge(places: &[Place]) -> HeaderValue {
    let text = match places.first() {
        Some(Place::Header(name, None)) => format!("ApiKey header=\"{name}\""),
        Some(Place::Header(_, Some(scheme))) => scheme.to_string(),
        Some(Place::Query(name)) => format!("ApiKey query=\"{name}\""),
        Some(Place::Cookie(name)) => format!("ApiKey cookie=\"{name}\""),
        None => "ApiKey".to_owned(),
    };
    kept::value(&text).unwrap_or(HeaderValue::from_static("ApiKey"))
}

#[cfg(test)]
mod tests;
