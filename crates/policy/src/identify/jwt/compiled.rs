//! From what is written of tokens to what runs, or to all that is wrong with it.

use std::sync::Arc;

use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::units::Span;
use pylon_net::tls::spec::UpstreamTlsSpec;

use super::Group;
use super::claims::Rules;
use super::issuer::{Issuer, Keeping};
use super::key::{Keys, shortest_secret};
use super::service::KeySet;
use super::source::Source;
use super::spec::{AlgorithmSpec, JwtSpec};
use crate::identity::Identity;
use crate::policy::{Compiling, Service};
use crate::proofs::Proofs;

/// All issuers, those together that are looked for and told of alike.
pub(super) fn group(specs: &[JwtSpec], cx: &Compiling<'_>) -> Result<Box<[Group]>, Vec<SpecError>> {
    let (mut groups, mut errors) = (Vec::<(&JwtSpec, Identity, Vec<Issuer>)>::new(), Vec::new());
    for (index, spec) in specs.iter().enumerate() {
        let base = if specs.len() == 1 { FieldPath::root() } else { FieldPath::root().index(index) };
        let mut found = Vec::new();
        if specs.iter().take(index).any(|other| other.issuer == spec.issuer) {
            let error = SpecError::new(FieldPath::root().key("issuer"), "this issuer is written before");
            found.push(error.help("name all audiences in one place: `audience: [a, b]`"));
        }
        let issuer = issuer(spec, cx).map_err(|more| found.extend(more));
        let identity = spec.common().identity(Proofs::default(), &mut found);
        if let (Ok(issuer), Some(identity)) = (issuer, identity) {
            let alike = |other: &JwtSpec| {
                other.from == spec.from && other.headers == spec.headers && other.forward == spec.forward
            };
            match groups.iter_mut().find(|(other, ..)| alike(other)) {
                Some((.., issuers)) => issuers.push(issuer),
                None => groups.push((spec, identity, vec![issuer])),
            }
        }
        errors.extend(found.into_iter().map(|error| error.below(&base)));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let group = |(_, identity, issuers): (_, _, Vec<_>)| Group {
        identity,
        issuers: issuers.into(),
        consumers: Arc::clone(&cx.around.consumers),
    };
    Ok(groups.into_iter().map(group).collect())
}

fn issuer(spec: &JwtSpec, cx: &Compiling<'_>) -> Result<Issuer, Vec<SpecError>> {
    let mut errors = Vec::new();
    let at = |key: &str| FieldPath::root().key(key);
    if spec.issuer.is_empty() {
        errors.push(SpecError::new(at("issuer"), "an issuer has a name"));
    }
    let audiences: Box<[Box<str>]> = spec.audience.iter().map(|one| one.as_str().into()).collect();
    let anybody = audiences.iter().any(|one| **one == *"*");
    if audiences.is_empty() || audiences.iter().any(|one| one.is_empty()) || anybody && audiences.len() > 1 {
        let error = SpecError::new(at("audience"), "this says nobody for whom tokens could be");
        errors.push(error.help("write what stands in `aud` of your tokens; `\"*\"` alone takes tokens for anybody"));
    }
    within(spec.leeway, 0, 300, &at("leeway"), "at most `5m`", &mut errors);
    within(spec.keys_valid_for, 60, 30 * 86_400, &at("keys_valid_for"), "from `1m` to `30d`", &mut errors);
    within(spec.cool_down, 1, 3600, &at("cool_down"), "from `1s` to `1h`", &mut errors);
    if spec.typ.as_ref().is_some_and(String::is_empty) {
        errors.push(SpecError::new(at("typ"), "this is empty"));
    }
    let common = spec.common().rules(&mut errors);
    check_algorithms(spec, &mut errors);
    let keys = if errors.is_empty() { Some(keys(spec, cx)) } else { None };
    match keys {
        Some(Ok(keys)) => {
            let rules = Rules {
                issuer: spec.issuer.as_str().into(),
                audiences: (!anybody).then_some(audiences),
                leeway: spec.leeway.duration().as_secs(),
                typ: spec.typ.as_deref().map(Into::into),
                ..common
            };
            Ok(Issuer { rules, keys, algorithms: spec.algorithms.0.as_slice().into() })
        }
        Some(Err(found)) => Err(found),
        None => Err(errors),
    }
}

fn keys(spec: &JwtSpec, cx: &Compiling<'_>) -> Result<Keeping, Vec<SpecError>> {
    let at = |key: &str| FieldPath::root().key(key);
    let Some(secret) = &spec.secret else {
        let times = (spec.keys_valid_for, spec.cool_down);
        let set = fetched(&spec.issuer, spec.jwks.as_deref(), spec.tls.as_ref(), times, cx)?;
        return Ok(Keeping::Fetched(set));
    };
    for (key, written) in [("jwks", spec.jwks.is_some()), ("tls", spec.tls.is_some())] {
        if written {
            let error = SpecError::new(at(key), format!("`{key}` means nothing beside `secret`"));
            return Err(vec![error.help("take one of them out: a secret is not fetched")]);
        }
    }
    let secret = (cx.around.secrets)(secret).map_err(|error| vec![error.below(&at("secret"))])?;
    let names = spec.algorithms.iter().copied().chain([AlgorithmSpec::Hs256]);
    let wanted = names.take(spec.algorithms.len().max(1)).filter_map(shortest_secret).max().unwrap_or(32);
    if secret.expose().len() < wanted {
        let error = SpecError::new(at("secret"), format!("this secret has fewer than {wanted} bytes (RFC 7518 §3.2)"));
        return Err(vec![error.help("let chance make one: `openssl rand -base64 48`")]);
    }
    Ok(Keeping::Secret(Keys::secret(secret.expose())))
}

/// The keys of an issuer, which are fetched: for how long they serve, and how soon they are asked for again. There is one set for
/// all routes and documents that would ask alike.
pub(crate) fn fetched(
    issuer: &str,
    jwks: Option<&str>,
    tls: Option<&UpstreamTlsSpec>,
    (valid, cool): (Span, Span),
    cx: &Compiling<'_>,
) -> Result<Arc<KeySet>, Vec<SpecError>> {
    let (source, at_hand) = Source::new(issuer, jwks, tls, &cx.around.resolver)?;
    let tls = serde_json::to_string(&tls).unwrap_or_default();
    let jwks = jwks.map_or_else(|| format!("of {issuer}"), |jwks| format!("at {jwks}"));
    let name = format!("keys {jwks} {tls} {valid} {cool} {}", cx.around.resolver.identity());
    let set = cx.carry.keep(name, || KeySet::new(source, at_hand, valid.duration(), cool.duration()));
    cx.around.services.add(Arc::clone(&set) as Arc<dyn Service>);
    Ok(set)
}

/// Secrets and key pairs never stand beside each other: what one may do would be open to the other (RFC 8725 §2.1).
fn check_algorithms(spec: &JwtSpec, errors: &mut Vec<SpecError>) {
    for (index, algorithm) in spec.algorithms.iter().enumerate() {
        let of_secret = shortest_secret(*algorithm).is_some();
        if of_secret != spec.secret.is_some() {
            let (problem, help) = if of_secret {
                ("this algorithm needs a secret, and none is written", "write `secret: env:NAME`")
            } else {
                ("this algorithm has no secret, and one is written", "write `HS256`, `HS384` or `HS512`")
            };
            errors.push(SpecError::new(FieldPath::root().key("algorithms").index(index), problem).help(help));
        }
    }
}

pub(crate) fn within(span: Span, least: u64, most: u64, at: &FieldPath, help: &str, errors: &mut Vec<SpecError>) {
    let seconds = span.duration().as_secs();
    if seconds < least || span.duration() > std::time::Duration::from_secs(most) {
        errors.push(
            SpecError::new(at.clone(), format!("`{span}` is out of bounds")).help(format!("write a time {help}")),
        );
    }
}
