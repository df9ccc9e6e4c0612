//! The state that a request would meet now: of the gateway, of the upstream that it would be sent to and its endpoints.
//!
//! While a document is tried beside the one in force, it is explained by the one of the two that its client meets, and by the
//! other where that one answers otherwise.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pylon_core::priority::Priority;
use pylon_core::units::Percent;
use pylon_proxy::action::Action;
use pylon_proxy::explain::Met;
use pylon_proxy::snapshot::Snapshot;
use pylon_proxy::world::Stage;
use pylon_upstream::upstream::Upstream;
use pylon_upstream::view::{ChoiceView, ConcurrencyView, EndpointView, UpstreamView};
use serde::Serialize;

use super::{Explained, Question, of};
use crate::gateway::State;
use crate::history::keeper::InForce;

/// An explanation of a gateway that runs.
#[derive(Debug, Serialize)]
pub(crate) struct Live {
    /// By the document that the client meets.
    #[serde(flatten)]
    answer: Answer,
    /// What is known of the document in force: of the stable one, where there are two.
    #[serde(flatten)]
    in_force: InForce,
    /// What holds for all requests.
    gateway: GatewayState,
    /// Of two documents in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<Rollout>,
    /// All of it in words.
    text: String,
}

/// What becomes of the request by one document.
#[derive(Debug, Serialize)]
struct Answer {
    /// The hash of the document.
    document: String,
    /// The id of the route.
    route: String,
    /// How much it matters to an upstream that is overloaded.
    priority: Priority,
    /// Why it would be refused before any policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<&'static str>,
    /// The upstreams that it may be sent to: one, unless a split draws lots.
    upstreams: Vec<UpstreamView>,
    /// Where it would go there, where it would be sent to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<ChoiceView>,
    /// Candidates, route and policies in words.
    #[serde(skip)]
    words: String,
}

/// What there is to know of two documents in force.
#[derive(Debug, Serialize)]
struct Rollout {
    /// How many of the clients meet the candidate.
    share: Percent,
    stable: String,
    candidate: String,
    /// Which one this client meets.
    meets: Side,
    /// What the other one answers, where it does not answer the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Stable,
    Candidate,
}

#[derive(Debug, Serialize)]
struct GatewayState {
    ready: bool,
    /// Whether requests are turned away because memory is short.
    shedding: bool,
    connections: usize,
    connections_at_most: usize,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unexplained {
    /// The question is none.
    #[error("{0}")]
    NoQuestion(String),
    /// What is known of the document does not belong to the one in force.
    #[error("another document is coming into force at this moment: ask again")]
    Changing,
}

/// Explains by what is in force.
pub(crate) fn live(state: &State, question: &Question) -> Result<Live, Unexplained> {
    let stage = state.world.stage();
    let (stable, explained) = answer(stage.stable(), state, question)?;
    let (answer, rollout) = match &stage {
        Stage::Steady(_) => (stable, None),
        Stage::Rolling { candidate, share, .. } => {
            let (tried, _) = answer(candidate, state, question)?;
            // By the word of the stable one, as it is when requests come.
            let meets_it = Arc::ptr_eq(stage.met_by(explained.met.exchange.client), candidate);
            let (hash, hash_of_tried) = (stable.document.clone(), tried.document.clone());
            let (meets, met, other) =
                if meets_it { (Side::Candidate, tried, stable) } else { (Side::Stable, stable, tried) };
            let other = (met.words != other.words).then_some(other);
            (met, Some(Rollout { share: *share, stable: hash, candidate: hash_of_tried, meets, other }))
        }
    };
    let gateway = GatewayState {
        ready: state.ready.load(Ordering::Relaxed),
        shedding: state.bounds.caps.is_shedding(),
        connections: state.bounds.caps.open(),
        connections_at_most: state.bounds.caps.most(),
    };
    let mut live = Live { answer, in_force: state.history.in_force(), gateway, rollout, text: String::new() };
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = live.in_words(&mut text);
    live.text = text;
    Ok(live)
}

/// By one of the documents in force.
fn answer(snapshot: &Snapshot, state: &State, question: &Question) -> Result<(Answer, Explained), Unexplained> {
    let of_stable = Arc::clone(&state.facts.borrow().told);
    let of_tried = state.tried.lock().clone();
    let told = [Some(of_stable), of_tried].into_iter().flatten().find(|told| told.hash == snapshot.hash);
    let told = told.ok_or(Unexplained::Changing)?;
    let (words, explained) = of(snapshot, &told, question).map_err(Unexplained::NoQuestion)?;
    let met = &explained.met;
    let route = met.route.and_then(|index| snapshot.routes.get(index)).unwrap_or(&snapshot.nowhere);
    let asked = upstreams(snapshot, &explained);
    let answer = Answer {
        document: snapshot.hash.clone(),
        route: route.id.to_string(),
        priority: met.exchange.priority,
        refusal: met.refusal.as_ref().map(|no| no.reason.code),
        choice: choice(&asked, met),
        upstreams: asked.into_iter().map(Upstream::view).collect(),
        words,
    };
    Ok((answer, explained))
}

impl Live {
    fn in_words(&self, out: &mut String) -> fmt::Result {
        out.push_str(&self.answer.words);
        self.documents(out)?;
        let GatewayState { ready, shedding, connections, connections_at_most } = &self.gateway;
        writeln!(out, "gateway       {}", if *ready { "ready" } else { "draining: no new connection is accepted" })?;
        writeln!(out, "connections   {connections} of {connections_at_most}")?;
        if *shedding {
            writeln!(out, "memory        short: requests are turned away with 503")?;
        }
        self.answer.state(out)?;
        let Some(Rollout { meets, other, .. }) = &self.rollout else { return Ok(()) };
        let (whose, clients) = match meets {
            Side::Candidate => ("stable document", "the other clients meet"),
            Side::Stable => ("candidate", "its share of the clients meets"),
        };
        match other {
            None => writeln!(out, "\nthe {whose}, which {clients}, answers the same"),
            Some(other) => {
                write!(out, "\nby the {whose}, which {clients}:\n\n{}", other.words)?;
                other.state(out)
            }
        }
    }

    /// Which documents are in force, and which one the client meets.
    fn documents(&self, out: &mut String) -> fmt::Result {
        let InForce { revision, in_place_of } = &self.in_force;
        match &self.rollout {
            None => write!(out, "\nin force now: document {}", self.answer.document)?,
            Some(Rollout { share, stable, candidate, .. }) => write!(
                out,
                "\nin force now: two documents: {share} of the clients meet the candidate {candidate}, the others {stable}"
            )?,
        }
        if let Some(revision) = revision {
            write!(out, ", revision {revision}")?;
        }
        if let Some(other) = in_place_of {
            write!(out, ", in place of {other}")?;
        }
        writeln!(out)?;
        match self.rollout.as_ref().map(|rollout| rollout.meets) {
            None => Ok(()),
            Some(Side::Candidate) => writeln!(out, "this client   meets the candidate"),
            Some(Side::Stable) => writeln!(out, "this client   meets the stable document"),
        }
    }
}

impl Answer {
    /// The state of the upstreams.
    fn state(&self, out: &mut String) -> fmt::Result {
        for view in &self.upstreams {
            writeln!(out, "\nupstream {}, as it is now", view.name)?;
            if let Some(crowd) = &view.concurrency {
                crowded(out, crowd, self.priority)?;
            }
            for source in &view.sources {
                let Some(error) = &source.error else { continue };
                let stale = if source.stale { ", what an earlier attempt found is used" } else { "" };
                writeln!(out, "  {} {}: {error}{stale}", source.source, source.name)?;
            }
            if let Some(token) = view.outbound.as_ref().and_then(|outbound| outbound.token.as_ref()) {
                let from = &token.from;
                match token.good_for_seconds {
                    Some(seconds) => writeln!(out, "  the token from {from} is good for {seconds} s")?,
                    None => writeln!(out, "  there is no token from {from}: the request would be refused with 503")?,
                }
                if let Some(error) = &token.error {
                    writeln!(out, "  {from} gave no other one: {error}")?;
                }
            }
            if view.endpoints.is_empty() {
                writeln!(out, "  no endpoint: the request would be refused with 503")?;
            }
            for one in &view.breakers {
                let of = one.route.as_deref().map_or_else(|| "upstream".to_owned(), |route| format!("route {route}"));
                writeln!(out, "  breaker of the {of}: {}", one.in_words())?;
            }
            if view.panic {
                writeln!(out, "  too few endpoints are left: health and ejections are ignored")?;
            }
            if let Some(ChoiceView { endpoint, why }) = self.choice.as_ref().filter(|_| !view.endpoints.is_empty()) {
                match endpoint {
                    Some(endpoint) => writeln!(out, "  the request would go to {endpoint}: {why}")?,
                    None => writeln!(out, "  where the request would go is not settled: {why}")?,
                }
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
                if let Some(breaker) = &one.breaker {
                    writeln!(out, "    breaker: {}", breaker.in_words())?;
                }
                barred(out, one, view.panic)?;
            }
        }
        Ok(())
    }
}

/// The limit of concurrency, and what it means for a request of this class.
fn crowded(out: &mut String, crowd: &ConcurrencyView, class: Priority) -> fmt::Result {
    let ConcurrencyView { limit, caps, adaptive, idle_latency_ms, in_flight, queued, shed } = crowd;
    write!(out, "  at most {limit} requests")?;
    match (adaptive, idle_latency_ms) {
        (true, Some(latency)) => write!(out, ", found out by {latency} ms of an idle service")?,
        (true, None) => write!(out, ", to be found out")?,
        (false, _) => {}
    }
    let total: u64 = shed.values().sum();
    write!(out, "; {in_flight} under way, {} wait, {total} were shed", queued.values().sum::<usize>())?;
    let cap = caps.get(class.as_str()).unwrap_or(limit);
    writeln!(out, "; this one is `{class}`, and goes on while fewer than {cap} are under way")
}

/// Why an endpoint gets no requests, or would not but for the panic.
fn barred(out: &mut String, one: &EndpointView, panic: bool) -> fmt::Result {
    // A breaker says more of itself.
    for bar in one.barred.iter().filter(|bar| **bar != "breaker_open") {
        let health = one.health.as_ref().filter(|_| *bar == "unhealthy");
        let error = health.and_then(|health| health.last_error.as_deref());
        let ejection = one.ejection.as_ref().filter(|_| *bar == "ejected");
        let ejection = ejection.and_then(|ejection| Some((ejection.because?.words(), ejection.for_seconds?)));
        let why = match (error, ejection) {
            (Some(error), _) => format!(": {error}"),
            (None, Some((because, seconds))) => format!(" for {because}, for {seconds} s"),
            (None, None) => String::new(),
        };
        let ignored = if panic { ", which is ignored" } else { ", so it gets no requests" };
        writeln!(out, "    {}{why}{ignored}", bar.replace('_', " "))?;
    }
    Ok(())
}

/// Where the request would go, where one upstream alone would be asked.
fn choice(asked: &[&Upstream], met: &Met) -> Option<ChoiceView> {
    match asked {
        [only] => Some(only.choice(met.request.headers(), &met.exchange)),
        _ => None,
    }
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
