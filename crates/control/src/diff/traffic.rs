//! Replays an access log against two documents, by the functions that serve: which requests another route, policy or
//! upstream would answer.
//!
//! Lines are read one at a time, and what is kept is bounded, so that a log may be of any size. Both documents see the same
//! request, so what the log does not tell (fields that it does not list, the scheme) is missing on both sides alike.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::sync::Arc;

use pylon_config::document::RouteSpec;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::names::UpstreamName;
use pylon_policy::registry::CATALOGUE;
use pylon_proxy::action::split::StickySpec;
use pylon_proxy::explain::{Met, meet};
use serde::Serialize;
use serde_json::Value;

use super::logged::{Line, Read};
use super::parts;
use crate::prepare::Prepared;

/// The longest line that is read, in bytes: far more than the gateway writes.
const LINE: usize = 1024 * 1024;

/// The most kinds of change that are told apart; what is over is only counted.
const MOST: usize = 10_000;

/// What a change means for the requests of a log.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Traffic {
    /// Requests that were looked at.
    pub requests: u64,
    /// Those among them that would be answered otherwise.
    pub changed: u64,
    /// Lines that could not be read, or that the log has cut.
    pub unreadable: u64,
    /// Lines about no request that was read: connections that are carried byte by byte, heads that were refused.
    pub without_request: u64,
    /// Requests that met another route than the old document gives them by what the log tells.
    pub unlike_log: u64,
    /// The requests that change, by what changes, the most frequent first.
    pub groups: Vec<Group>,
    /// Requests that change in so many more ways that these are not told.
    pub untold: u64,
}

/// Requests for which the same changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// How many.
    pub requests: u64,
    /// What changes.
    pub changes: Vec<Aspect>,
    /// The policies that change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<&'static str>,
    /// What they met.
    pub old: Meeting,
    /// What they would meet.
    pub new: Meeting,
    /// The first of them.
    pub example: Example,
}

/// What may change for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Another route takes it.
    Route,
    /// It meets other policies, or the same with other settings.
    Policies,
    /// Another upstream gets it, or one that is set otherwise.
    Upstream,
    /// The upstream gets another path or host.
    Rewrite,
    /// The route itself answers something else.
    Answer,
    /// It is refused before any policy, or no longer, or for another reason.
    Refusal,
}

/// What a request meets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// The id of the route.
    pub route: String,
    /// What the route does, in words.
    pub action: String,
    /// The upstream, where the route has one and does not draw lots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<&'static str>,
}

/// A request of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// When.
    pub time: String,
    /// From whom.
    pub client: String,
    /// With which method.
    pub method: String,
    /// To which host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// For what, as the log tells it.
    pub path: String,
}

/// Reads a log to its end.
pub fn replay(old: &Prepared, new: &Prepared, mut log: impl BufRead) -> io::Result<Traffic> {
    let mut replay =
        Replay { old: World::of(old), new: World::of(new), groups: HashMap::new(), traffic: Traffic::default() };
    let mut line = Vec::new();
    while next_line(&mut log, &mut line)? {
        replay.line(&line);
    }
    Ok(replay.finish())
}

/// The next line into `line`, or false at the end. What is too long comes as an empty line, which is not readable.
fn next_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let (mut any, mut over) = (false, false);
    loop {
        let chunk = log.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let piece = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        over |= line.len() + piece.len() > LINE;
        if !over {
            line.extend_from_slice(piece);
        }
        let used = piece.len() + usize::from(end.is_some());
        log.consume(used);
        if end.is_some() {
            break;
        }
    }
    if over {
        line.clear();
    }
    Ok(any)
}

/// One document, prepared for comparison.
struct World<'p> {
    prepared: &'p Prepared,
    /// By route; the last is that of requests without one.
    faces: Vec<Face>,
    upstreams: HashMap<&'p str, Value>,
}

/// What is compared of a route.
struct Face {
    policies: Vec<(&'static str, Value, bool)>,
    /// Action, and what decides among the upstreams of a split.
    action: Value,
    /// Whether the log tells all by which a split chooses.
    by_client: bool,
}

impl Face {
    /// The upstreams that the route may call.
    fn calls(&self) -> Vec<String> {
        match (self.action.get("forward"), self.action.get("split")) {
            (Some(Value::String(name)), _) => vec![name.clone()],
            (_, Some(Value::Object(shares))) => shares.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

impl<'p> World<'p> {
    fn of(prepared: &'p Prepared) -> Self {
        // Behind the routes of the document stand those of policies, and the last.
        let specs = prepared.document.routes.iter().map(Some).chain(std::iter::repeat(None));
        let faces = prepared.compiled.origins.iter().zip(specs).map(|(origin, spec)| {
            let policies = CATALOGUE.iter().filter_map(|entry| {
                let (spec, _) = origin.policies.iter().find(|(spec, _)| spec.key() == entry.key)?;
                Some((entry.key, parts::json(spec), origin.shadow.iter().any(|key| key == entry.key)))
            });
            Face {
                policies: policies.collect(),
                action: spec.map(action).unwrap_or_default(),
                by_client: spec.is_none_or(|spec| spec.sticky == StickySpec::default()),
            }
        });
        let upstreams =
            prepared.document.upstreams.iter().map(|(name, spec)| (name.as_str(), parts::json(spec))).collect();
        Self { prepared, faces: faces.collect(), upstreams }
    }

    fn meet(&self, line: &Line<'_>) -> Option<Result<Met, ()>> {
        let (request, peer) = match line.request() {
            Read::Request(request, peer) => (*request, peer),
            Read::NoRequest => return None,
            Read::Unclear => return Some(Err(())),
        };
        let now = tokio::time::Instant::now().into_std();
        let connection = if line.client == "unix" {
            Connection::by_unix_socket(Scheme::Http, now)
        } else {
            Connection::new(peer, peer, Scheme::Http, now)
        };
        Some(Ok(meet(&self.prepared.compiled.snapshot, request, Arc::new(connection))))
    }

    fn face(&self, met: &Met) -> Option<&Face> {
        self.faces.get(met.route.unwrap_or(self.faces.len().saturating_sub(1)))
    }

    fn upstream(&self, met: &Met) -> Option<UpstreamName> {
        let settled = self.face(met)?.by_client && met.refusal.is_none();
        settled.then(|| met.upstream(&self.prepared.compiled.snapshot))?.map(|upstream| upstream.name().clone())
    }

    fn route(&self, met: &Met) -> &str {
        let snapshot = &self.prepared.compiled.snapshot;
        met.route.and_then(|index| snapshot.routes.get(index)).unwrap_or(&snapshot.nowhere).id.as_str()
    }

    fn meeting(&self, met: &Met, upstream: Option<&UpstreamName>) -> Meeting {
        let origins = &self.prepared.compiled.origins;
        let origin = met.route.map_or_else(|| origins.last(), |index| origins.get(index));
        Meeting {
            route: self.route(met).to_owned(),
            action: origin.map(|origin| origin.action.clone()).unwrap_or_default(),
            upstream: upstream.map(ToString::to_string),
            refusal: met.refusal.as_ref().map(|no| no.reason.code),
        }
    }
}

fn action(spec: &RouteSpec) -> Value {
    let mut map = parts::action(&spec.action);
    map.insert("sticky".to_owned(), parts::json(&spec.sticky));
    map.insert("websocket".to_owned(), parts::json(&spec.websocket));
    Value::Object(map)
}

/// Requests with the same key differ in the same way.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    routes: (Option<usize>, Option<usize>),
    refusals: (Option<&'static str>, Option<&'static str>),
    upstreams: (Option<UpstreamName>, Option<UpstreamName>),
    rewrite: bool,
}

struct Replay<'p> {
    old: World<'p>,
    new: World<'p>,
    /// Nothing behind a key for which nothing changes.
    groups: HashMap<Key, Option<Group>>,
    traffic: Traffic,
}

impl Replay<'_> {
    fn line(&mut self, text: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(text) else {
            self.traffic.unreadable += 1;
            return;
        };
        let (before, after) = match (self.old.meet(&line), self.new.meet(&line)) {
            (Some(Ok(before)), Some(Ok(after))) => (before, after),
            (None, _) | (_, None) => {
                self.traffic.without_request += 1;
                return;
            }
            _ => {
                self.traffic.unreadable += 1;
                return;
            }
        };
        self.traffic.requests += 1;
        if line.route.as_ref().is_some_and(|route| **route != *self.old.route(&before)) {
            self.traffic.unlike_log += 1;
        }
        let code = |met: &Met| met.refusal.as_ref().map(|no| no.reason.code);
        let sent = |met: &Met| (met.exchange.upstream_path.clone(), met.exchange.upstream_host.clone());
        let key = Key {
            routes: (before.route, after.route),
            refusals: (code(&before), code(&after)),
            upstreams: (self.old.upstream(&before), self.new.upstream(&after)),
            rewrite: sent(&before) != sent(&after),
        };
        if self.groups.len() >= MOST && !self.groups.contains_key(&key) {
            if !self.compare(&key, &before, &after).0.is_empty() {
                self.traffic.changed += 1;
                self.traffic.untold += 1;
            }
            return;
        }
        if !self.groups.contains_key(&key) {
            let group = self.group(&key, &line, &before, &after);
            self.groups.insert(key, group);
        } else if let Some(Some(group)) = self.groups.get_mut(&key) {
            group.requests += 1;
        }
    }

    fn group(&self, key: &Key, line: &Line<'_>, before: &Met, after: &Met) -> Option<Group> {
        let (changes, policies) = self.compare(key, before, after);
        (!changes.is_empty()).then(|| Group {
            requests: 1,
            changes,
            policies,
            old: self.old.meeting(before, key.upstreams.0.as_ref()),
            new: self.new.meeting(after, key.upstreams.1.as_ref()),
            example: Example {
                time: line.time.clone().into_owned(),
                client: line.client.clone().into_owned(),
                method: line.method.clone().into_owned(),
                host: line.host.clone().map(Into::into),
                path: line.path.clone().into_owned(),
            },
        })
    }

    fn compare(&self, key: &Key, before: &Met, after: &Met) -> (Vec<Aspect>, Vec<&'static str>) {
        let (Some(one), Some(other)) = (self.old.face(before), self.new.face(after)) else { return Default::default() };
        let of = |face: &Face, key: &str| face.policies.iter().find(|(name, ..)| *name == key).cloned();
        let policies: Vec<_> =
            CATALOGUE.iter().map(|entry| entry.key).filter(|key| of(one, key) != of(other, key)).collect();
        let (from, to) = (&key.upstreams.0, &key.upstreams.1);
        let passes = key.refusals == (None, None);
        // Where the upstream is known on both sides it tells all: a share may grow without touching this client.
        let settled = from.is_some() && to.is_some();
        let calls = !one.calls().is_empty() || !other.calls().is_empty();
        let otherwise = passes && !settled && one.action != other.action;
        let reached = |world: &World<'_>, face: &Face, settled: &Option<UpstreamName>| match settled {
            Some(name) => vec![world.upstreams.get(name.as_str()).cloned()],
            None => face.calls().iter().map(|name| world.upstreams.get(name.as_str()).cloned()).collect(),
        };
        let upstream = from != to
            || (otherwise && calls)
            || (passes && reached(&self.old, one, from) != reached(&self.new, other, to));
        let found = [
            (Aspect::Refusal, key.refusals.0 != key.refusals.1),
            (Aspect::Route, self.old.route(before) != self.new.route(after)),
            (Aspect::Policies, !policies.is_empty()),
            (Aspect::Upstream, upstream),
            (Aspect::Rewrite, key.rewrite && passes && settled),
            (Aspect::Answer, otherwise && !calls),
        ];
        (found.into_iter().filter_map(|(aspect, holds)| holds.then_some(aspect)).collect(), policies)
    }

    fn finish(self) -> Traffic {
        let mut groups: Vec<_> = self.groups.into_values().flatten().collect();
        groups.sort_by(|a, b| {
            (b.requests, &a.example.time, &a.old.route).cmp(&(a.requests, &b.example.time, &b.old.route))
        });
        let told: u64 = groups.iter().map(|group| group.requests).sum();
        Traffic { changed: self.traffic.changed + told, groups, ..self.traffic }
    }
}
