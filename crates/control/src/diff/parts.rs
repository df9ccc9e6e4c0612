//! A document as comparable parts: each with what names it and its value as JSON, in which a plain secret is no text.

use std::collections::HashMap;

use pylon_config::document::{ActionSpec, Document, PolicyEntry, RouteSpec};
use pylon_proxy::action::split::StickySpec;
use pylon_proxy::removal::OnRemoval;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Change, Part};
use crate::prepare::Prepared;

/// One part of a document.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) part: Part,
    pub(super) id: String,
    pub(super) value: Value,
    /// What it is, in a few words.
    pub(super) words: String,
}

/// The parts of a document, in its order.
pub(super) fn of(prepared: &Prepared) -> Vec<Piece> {
    let document = &prepared.document;
    let mut pieces = Vec::new();
    for spec in &document.listeners {
        let id = spec.address.to_string();
        let words = if spec.tcp.is_some() {
            "for bytes"
        } else if spec.tls.is_some() {
            "for TLS"
        } else {
            "in cleartext"
        };
        pieces.push(Piece { part: Part::Listener, id, value: json(spec), words: words.to_owned() });
    }
    let settings = [
        ("limits", json(&document.limits)),
        ("workers", json(&document.workers)),
        ("admin", json(&document.admin)),
        ("telemetry", json(&document.telemetry)),
        ("trusted_proxies", json(&document.trusted_proxies)),
        ("paths", json(&document.paths)),
        ("discovery", json(&document.discovery)),
    ];
    let setting = |(key, value): (&str, Value)| {
        // A key without keys of its own is told as it stands.
        let value = if value.is_object() { value } else { Value::Object(Map::from_iter([(key.to_owned(), value)])) };
        Piece { part: Part::Setting, id: key.to_owned(), value, words: String::new() }
    };
    pieces.extend(settings.map(setting));
    pieces.push(Piece {
        part: Part::Defaults,
        id: "defaults".to_owned(),
        value: defaults(document),
        words: String::new(),
    });
    for (name, spec) in &document.upstreams {
        let endpoints = json(spec).get("endpoints").map(Value::to_string).unwrap_or_default();
        pieces.push(Piece { part: Part::Upstream, id: name.clone(), value: json(spec), words: endpoints });
    }
    let snapshot = &prepared.compiled.snapshot;
    let routes = snapshot.routes.iter().zip(snapshot.table.routes()).zip(&prepared.compiled.origins);
    for (((route, matching), origin), spec) in routes.zip(&document.routes) {
        let mut value = Map::from_iter([("match".to_owned(), Value::String(matching.to_string()))]);
        if let Value::Object(rest) = self::route(spec) {
            value.extend(rest);
        }
        pieces.push(Piece {
            part: Part::Route,
            id: route.id.to_string(),
            value: Value::Object(value),
            words: origin.action.clone(),
        });
    }
    pieces
}

fn defaults(document: &Document) -> Value {
    let defaults = &document.defaults;
    let mut map = policies(&defaults.policies);
    put(&mut map, "timeout", defaults.timeout.as_ref());
    put(&mut map, "retry", defaults.retry.as_ref());
    put(&mut map, "hedge", defaults.hedge.as_ref());
    put(&mut map, "fallback", defaults.fallback.as_ref());
    if !defaults.shadow.is_empty() {
        put(&mut map, "shadow", Some(&defaults.shadow));
    }
    Value::Object(map)
}

/// What a route says besides its match.
fn route(spec: &RouteSpec) -> Value {
    // Whole, so that a key which is new in a route is not left out here.
    let RouteSpec {
        index: _,
        name: _,
        matching: _,
        action: by,
        sticky,
        websocket,
        rewrite,
        timeout,
        breaker,
        retry,
        hedge,
        fallback,
        mirror,
        on_removal,
        policies: own,
        shadow,
    } = spec;
    let mut map = action(by);
    if *sticky != StickySpec::default() {
        put(&mut map, "sticky", Some(sticky));
    }
    put(&mut map, "websocket", websocket.as_ref());
    put(&mut map, "rewrite", rewrite.as_ref());
    put(&mut map, "timeout", timeout.as_ref());
    put(&mut map, "breaker", breaker.as_ref());
    put(&mut map, "retry", retry.as_ref());
    put(&mut map, "hedge", hedge.as_ref());
    put(&mut map, "fallback", fallback.as_ref());
    put(&mut map, "mirror", mirror.as_ref());
    if *on_removal != OnRemoval::default() {
        put(&mut map, "on_removal", Some(on_removal));
    }
    put(&mut map, "shadow", shadow.as_ref());
    map.extend(policies(own));
    Value::Object(map)
}

/// The action under its key.
pub(super) fn action(spec: &ActionSpec) -> Map<String, Value> {
    let (key, value) = match spec {
        ActionSpec::Forward(name) => ("forward", json(name)),
        ActionSpec::Split(split) => ("split", json(split)),
        ActionSpec::Redirect(redirect) => ("redirect", json(redirect)),
        ActionSpec::Respond(respond) => ("respond", json(respond)),
    };
    Map::from_iter([(key.to_owned(), value)])
}

fn policies(entries: &[PolicyEntry]) -> Map<String, Value> {
    entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.spec.as_ref().map_or_else(|| Value::String("off".into()), json)))
        .collect()
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<&impl Serialize>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), json(value));
    }
}

/// A spec as JSON: what no spec fails to become.
pub(super) fn json(spec: &impl Serialize) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

/// Notes at each default that changes how many routes meet it: those that stand in both documents and do not say
/// themselves what holds.
pub(super) fn count_routes(changes: &mut [Change], old: &Prepared, new: &Prepared) {
    let Some(defaults) = changes.iter_mut().find(|change| change.part == Part::Defaults) else { return };
    let before: HashMap<_, _> =
        old.compiled.snapshot.routes.iter().map(|route| &route.id).zip(&old.document.routes).collect();
    for change in &mut defaults.keys {
        let key = change.key.split('.').next().unwrap_or_default();
        let inherits = |spec: &RouteSpec| match key {
            "timeout" => spec.timeout.is_none(),
            "retry" => spec.retry.is_none(),
            "hedge" => spec.hedge.is_none(),
            "fallback" => spec.fallback.is_none(),
            "shadow" => spec.shadow.is_none(),
            _ => spec.policies.iter().all(|entry| entry.key != key),
        };
        let both = new.compiled.snapshot.routes.iter().zip(&new.document.routes);
        let count = both
            .filter(|(route, spec)| inherits(spec) && before.get(&route.id).is_some_and(|spec| inherits(spec)))
            .count();
        change.routes = Some(count);
    }
}

/// Whether routes that stand in both documents stand in another order.
pub(super) fn are_reordered(old: &Prepared, new: &Prepared) -> bool {
    let places: HashMap<_, _> =
        old.compiled.snapshot.routes.iter().enumerate().map(|(place, route)| (&route.id, place)).collect();
    let known = new.compiled.snapshot.routes.iter().filter_map(|route| places.get(&route.id));
    !known.is_sorted()
}
