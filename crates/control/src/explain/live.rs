//! The state that a request would meet now: of the gateway, of the upstream that it would be sent to and its endpoints.

use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

use pylon_proxy::action::Action;
use pylon_proxy::snapshot::Snapshot;
use pylon_upstream::upstream::Upstream;
use pylon_upstream::view::UpstreamView;
use serde::Serialize;

use super::{Explained, Question, of};
use crate::gateway::State;
use crate::history::keeper::InForce;

/// An explanation of a gateway that runs.
#[derive(Debug, Serialize)]
pub(crate) struct Live {
    /// The hash of the document in force.
    document: String,
    #[serde(flatten)]
    in_force: InForce,
    /// The id of the route.
    route: String,
    /// Why it would be refused before any policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    /// What holds for all requests.
    gateway: GatewayState,
    /// The upstreams that it may be sent to: one, unless a split draws lots.
    upstreams: Vec<UpstreamView>,
    /// All of it in words.
    text: String,
}

#[derive(Debug, Serialize)]
struct GatewayState {
    ready: bool,
    /// Whether requests are turned away because memory is short.
    shedding: bool,
    connections: usize,
    connections_at_most: usize,
}

/// Explains by the document in force, or says why the question is none.
pub(crate) fn live(state: &State, question: &Question) -> Result<Live, String> {
    let facts = state.facts.borrow().clone();
    let snapshot = state.world.current();
    let (mut text, explained) = of(&snapshot, &facts.told, question)?;
    let upstreams: Vec<_> = upstreams(&snapshot, &explained).into_iter().map(Upstream::view).collect();
    let gateway = GatewayState {
        ready: state.ready.load(Ordering::Relaxed),
        shedding: state.bounds.caps.is_shedding(),
        connections: state.bounds.caps.open(),
        connections_at_most: state.bounds.caps.most(),
    };
    let in_force = state.history.in_force();
    // Writing to a string does not fail.
    let _ = in_words(&mut text, &snapshot.hash, &in_force, &gateway, &upstreams);
    let met = &explained.met;
    let route = met.route.and_then(|index| snapshot.routes.get(index)).unwrap_or(&snapshot.nowhere);
    Ok(Live {
        document: snapshot.hash.clone(),
        in_force,
        route: route.id.to_string(),
        refusal: met.refusal.as_ref().map(|no| no.reason.code),
        gateway,
        upstreams,
        text,
    })
}

fn upstreams<'s>(snapshot: &'s Snapshot, explained: &Explained) -> Vec<&'s Upstream> {
    let met = &explained.met;
    if met.refusal.is_some() {
        return Vec::new();
    }
    if let Some(upstream) = met.upstream(snapshot) {
        return vec![upstream];
    }
    let route = met.route.and_then(|index| snapshot.routes.get(index)).unwrap_or(&snapshot.nowhere);
    match &route.action {
        Action::Split(split) => split.upstreams().map(|upstream| &**upstream).collect(),
        _ => Vec::new(),
    }
}

fn in_words(
    out: &mut String,
    hash: &str,
    in_force: &InForce,
    gateway: &GatewayState,
    upstreams: &[UpstreamView],
) -> fmt::Result {
    write!(out, "\nin force now: document {hash}")?;
    if let Some(revision) = in_force.revision {
        write!(out, ", revision {revision}")?;
    }
    if let Some(other) = in_force.in_place_of {
        write!(out, ", in place of {other}")?;
    }
    let GatewayState { ready, shedding, connections, connections_at_most } = gateway;
    writeln!(out, "\ngateway       {}", if *ready { "ready" } else { "draining: no new connection is accepted" })?;
    writeln!(out, "connections   {connections} of {connections_at_most}")?;
    if *shedding {
        writeln!(out, "memory        short: requests are turned away with 503")?;
    }
    for view in upstreams {
        writeln!(out, "\nupstream {}, as it is now", view.name)?;
        for name in view.names.iter().filter(|name| name.error.is_some()) {
            let error = name.error.as_deref().unwrap_or_default();
            let stale = if name.stale { ", the addresses of an earlier lookup are used" } else { "" };
            writeln!(out, "  {} is not resolved: {error}{stale}", name.name)?;
        }
        if view.endpoints.is_empty() {
            writeln!(out, "  no endpoint: the request would be refused with 503")?;
        }
        for one in &view.endpoints {
            writeln!(
                out,
                "  {}  weight {}, {} under way, {} idle connections, {} of {} dials failed",
                one.endpoint,
                one.weight,
                one.in_flight,
                one.idle,
                one.connect_failures,
                one.connects + one.connect_failures
            )?;
        }
    }
    Ok(())
}
