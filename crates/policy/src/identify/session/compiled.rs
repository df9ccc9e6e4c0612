//! From what is written of logins to what runs, or to all that is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use http::header::AUTHORIZATION;
use http::{HeaderName, Uri};
use parking_lot::Mutex;
use pylon_core::fields::{self, Alike};
use pylon_core::kept;
use pylon_core::secret::Secret;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;

use super::Tokens;
use super::cookies::Names;
use super::doors::Doors;
use super::party::{Client, Memory, Party};
use super::return_to::safe;
use super::revoked::LONGEST;
use super::ring::{Ring, SHORTEST};
use super::shelf::Shelf;
use super::spec::{SessionSpec, StoreSpec, TokenSpec};
use super::ticket::Times;
use crate::identify::jwt::claims::Rules;
use crate::identify::jwt::compiled::{fetched, within};
use crate::identify::jwt::issuer::{Issuer, Keeping};
use crate::identify::jwt::spec::AlgorithmSpec;
use crate::policy::{Compiling, Service};

/// For how long the keys of an issuer serve while it gives no others.
const KEYS_VALID: Span = Span::from_secs(24 * 3600);
/// How soon they are fetched again for a token with an unknown one.
const COOL_DOWN: Span = Span::from_secs(30);
/// What a login says to the issuer by itself, and what would change what it means.
const OWN_PARAMS: &[&str] = &[
    "response_type",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "response_mode",
    "max_age",
    "request",
    "request_uri",
];

/// The gateway as a client of the issuer, with its places: one for all routes and documents that write the same.
pub(super) fn doors(spec: &SessionSpec, cx: &Compiling<'_>) -> Result<Arc<Doors>, Vec<SpecError>> {
    let mut errors = Vec::new();
    let ring = ring(spec, cx).map_err(|found| errors.extend(found)).ok();
    check_client(spec, cx, &mut errors);
    check_places(spec, &mut errors);
    let times = times(spec, &mut errors);
    check_words(spec, &mut errors);
    let shelf = shelf(spec, cx, &mut errors);
    let set = fetched(&spec.issuer, None, spec.tls.as_ref(), (KEYS_VALID, COOL_DOWN), cx);
    let set = set.map_err(|found| errors.extend(found)).ok();
    let (Some(ring), Some(set), true) = (ring, set, errors.is_empty()) else { return Err(errors) };
    let memory = memory(spec, cx, shelf.is_none());
    // Secrets are told apart by the names that the ring makes of them: a file may hold another one by now.
    let written = serde_json::to_string(spec).unwrap_or_default();
    let store = cx.around.store.as_ref().map(Arc::as_ptr);
    let name = format!("session {written} {ring:?} {} {store:?}", cx.around.resolver.identity());
    let doors = cx.carry.keep(name, || {
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        let rules = Rules {
            issuer: spec.issuer.as_str().into(),
            audiences: Some([spec.client_id.as_str().into()].into()),
            leeway: spec.leeway.duration().as_secs(),
            required: Box::default(),
            subject: spec.subject_claim.as_str().into(),
            scopes: None,
            groups: boxed(&spec.groups_claim),
            typ: None,
        };
        let keys = Keeping::Fetched(Arc::clone(&set));
        let client = Client {
            id: spec.client_id.as_str().into(),
            secret: spec.client_secret.clone(),
            auth: spec.auth,
            reveal: cx.around.secrets,
        };
        Doors::new(Party {
            issuer: Issuer { rules, keys, algorithms: spec.algorithms.0.as_slice().into() },
            set,
            client,
            scopes: scopes(spec).into(),
            params: spec.params.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            ring,
            names: Names::new(&spec.cookie),
            path: spec.path.as_str().into(),
            origin: boxed(&spec.origin),
            after_logout: boxed(&spec.after_logout),
            times,
            userinfo: spec.userinfo,
            sends: spec.tokens.values().any(|token| *token == TokenSpec::AccessToken),
            memory,
            shelf,
            targets: Mutex::new(HashMap::new()),
            control: OnceLock::new(),
        })
    });
    cx.around.services.add(Arc::clone(&doors.party) as Arc<dyn Service>);
    Ok(doors)
}

/// Which tokens services are sent, by header.
pub(super) fn tokens(spec: &SessionSpec) -> Result<Tokens, Vec<SpecError>> {
    let (mut sent, mut errors) = (Vec::new(), Vec::new());
    let told: Vec<HeaderName> = spec.headers.keys().filter_map(|name| name.parse().ok()).collect();
    for (header, token) in &spec.tokens {
        let at = || FieldPath::root().key("tokens").key(header);
        match fields::parse(header) {
            Ok(name) if told.contains(&name) => {
                let error = SpecError::new(at(), "this header tells a fact of the caller already (`headers`)");
                errors.push(error.help("choose another name for one of the two"));
            }
            Ok(name) => sent.push((kept::name(&name), *token, name == AUTHORIZATION)),
            Err(bad) => errors.push(SpecError::new(at(), bad.problem).help(bad.help)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let forged = Alike::new(sent.iter().map(|(name, ..)| name));
    Ok(Tokens { forged: Arc::new(forged), sent: sent.into() })
}

fn ring(spec: &SessionSpec, cx: &Compiling<'_>) -> Result<Ring, Vec<SpecError>> {
    let at = |index: usize| match spec.keys.len() {
        1 => FieldPath::root().key("keys"),
        _ => FieldPath::root().key("keys").index(index),
    };
    let (mut secrets, mut errors) = (Vec::<Secret>::new(), Vec::new());
    for (index, key) in spec.keys.iter().enumerate() {
        match (cx.around.secrets)(key) {
            Ok(secret) if secret.expose().len() < SHORTEST => {
                let error = SpecError::new(at(index), format!("this secret has fewer than {SHORTEST} bytes"));
                errors.push(error.help("let chance make one: `openssl rand -base64 48`"));
            }
            Ok(secret) => secrets.push(secret),
            Err(error) => errors.push(error.below(&at(index))),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ring::new(&secrets).ok_or_else(|| {
        let error = SpecError::new(FieldPath::root().key("keys"), "no secret is written to seal sessions with");
        vec![error.help("write `keys: env:SESSION_KEY`")]
    })
}

/// What this process knows of sessions beside their cookies; of logouts, too, where it is `alone` with them.
fn memory(spec: &SessionSpec, cx: &Compiling<'_>, alone: bool) -> Arc<Memory> {
    let memory = cx.carry.keep(format!("sessions of {} at {}", spec.client_id, spec.issuer), Memory::default);
    if alone {
        memory.look_here();
    }
    memory
}

/// What gateways share of sessions, where that is written.
fn shelf(spec: &SessionSpec, cx: &Compiling<'_>, errors: &mut Vec<SpecError>) -> Option<Shelf> {
    let at = |key: &str| FieldPath::root().key(key);
    let (key, holds) = match (spec.store, spec.logouts) {
        (None, None) => return None,
        (Some(StoreSpec::Redis), None) => ("store", true),
        (None, Some(StoreSpec::Redis)) => ("logouts", false),
        (Some(StoreSpec::Redis), Some(StoreSpec::Redis)) => {
            let error = SpecError::new(at("logouts"), "`logouts` means nothing beside `store`");
            errors.push(error.help("take it out: a logout takes the session out of the store, for all gateways"));
            return None;
        }
    };
    match &cx.around.store {
        Some(store) => Some(Shelf::new(store, &spec.issuer, &spec.client_id, holds)),
        // What is wrong with the store itself has been told.
        None if cx.around.consumers.is_broken() => None,
        None => {
            let error = SpecError::new(at(key), "this is to stand in Redis, and no Redis is written");
            errors.push(error.help("add `stores: { redis: redis://host:6379 }` to the document"));
            None
        }
    }
}

fn check_client(spec: &SessionSpec, cx: &Compiling<'_>, errors: &mut Vec<SpecError>) {
    let at = |key: &str| FieldPath::root().key(key);
    if spec.client_id.is_empty() {
        errors.push(SpecError::new(at("client_id"), "this client has no name"));
    }
    // It is read again for each use; that it can be read at all is looked at here.
    match spec.client_secret.as_ref().map(|secret| (cx.around.secrets)(secret)) {
        Some(Err(error)) => errors.push(error.below(&at("client_secret"))),
        Some(Ok(secret)) if secret.expose().is_empty() => {
            let error = SpecError::new(at("client_secret"), "this secret is empty");
            errors.push(error.help("take the key out if the client is public"));
        }
        _ => {}
    }
    for (index, algorithm) in spec.algorithms.iter().enumerate() {
        if matches!(algorithm, AlgorithmSpec::Hs256 | AlgorithmSpec::Hs384 | AlgorithmSpec::Hs512) {
            let error = SpecError::new(at("algorithms").index(index), "tokens of a login are never signed by a secret");
            errors.push(error.help("have the issuer sign them by a key pair, such as RS256 or ES256"));
        }
    }
}

fn check_places(spec: &SessionSpec, errors: &mut Vec<SpecError>) {
    let at = |key: &str| FieldPath::root().key(key);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let dots = |path: &str| path.split('/').any(|part| part == "." || part == "..");
    let path = &spec.path;
    if safe(path).is_none() || path.ends_with('/') || !path.bytes().all(plain) || dots(path) {
        let error = SpecError::new(at("path"), format!("`{path}` cannot be the path of the gateway's own places"));
        errors.push(error.help("write it as `/auth`: letters, digits, `-`, `.`, `_` and `~`, without `/` at the end"));
    }
    if let Some(origin) = &spec.origin
        && !is_origin(origin)
    {
        let error = SpecError::new(at("origin"), format!("`{origin}` is no origin"));
        errors
            .push(error.help("write it as browsers do: `https://shop.example.com`, with a port only if it is not 443"));
    }
    if let Some(after) = spec.after_logout.as_deref()
        && safe(after).is_none()
    {
        let error = SpecError::new(at("after_logout"), format!("`{after}` is not a path of this site"));
        errors.push(error.help("write it as `/goodbye`"));
    }
    let name = &spec.cookie;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) || name.starts_with("__") {
        let error = SpecError::new(at("cookie"), format!("`{name}` cannot be the name of a cookie"));
        errors
            .push(error.help("use up to 100 letters, digits, `-` and `_`; `__Host-` is added where browsers take it"));
    }
}

fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("https" | "http"));
    let host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    scheme
        && host
        && text
            == format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |it| it.as_str()))
}

fn times(spec: &SessionSpec, errors: &mut Vec<SpecError>) -> Times {
    let at = |key: &str| FieldPath::root().key(key);
    within(spec.lifetime, 60, LONGEST, &at("lifetime"), "from `1m` to `30d`", errors);
    within(spec.leeway, 0, 300, &at("leeway"), "at most `5m`", errors);
    let times = Times { lifetime: spec.lifetime.duration().as_secs(), idle: spec.idle.duration().as_secs() };
    if times.idle < 10 || times.idle > times.lifetime {
        let error = SpecError::new(at("idle"), format!("`{}` is out of bounds", spec.idle));
        errors.push(error.help("write a time from `10s` to `lifetime`"));
    }
    times
}

fn check_words(spec: &SessionSpec, errors: &mut Vec<SpecError>) {
    let at = |key: &str| FieldPath::root().key(key);
    for (index, scope) in spec.scopes.iter().enumerate() {
        // RFC 6749 §3.3.
        if scope.is_empty() || !scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) {
            let error = SpecError::new(at("scopes").index(index), format!("`{scope}` is no scope"));
            errors.push(error.help("write one scope for each item of the list"));
        }
    }
    for name in spec.params.keys().filter(|name| OWN_PARAMS.contains(&name.as_str())) {
        let error =
            SpecError::new(at("params").key(name), "the gateway says this itself, or could not check what comes of it");
        errors.push(error.help("take it out"));
    }
    for (key, name) in [("subject_claim", Some(&spec.subject_claim)), ("groups_claim", spec.groups_claim.as_ref())] {
        if name.is_some_and(String::is_empty) {
            errors.push(SpecError::new(at(key), "this is empty"));
        }
    }
}

/// What is asked for: `openid` first, each once.
fn scopes(spec: &SessionSpec) -> String {
    let mut all = BTreeMap::new();
    for (place, scope) in std::iter::once("openid").chain(spec.scopes.iter().map(String::as_str)).enumerate() {
        all.entry(scope).or_insert(place);
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(_, place)| *place);
    all.into_iter().map(|(scope, _)| scope).collect::<Vec<_>>().join(" ")
}
