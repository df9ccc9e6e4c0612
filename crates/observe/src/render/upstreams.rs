//! The families of upstreams: what their workers counted, and what is seen of them now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pylon_core::attempts::{Hedged, Retried};
use pylon_core::priority::Priority;

use super::{Named, answers, decimal, extend, head, labelled, labels};
use crate::breakers::BreakerScope;
use crate::catalogue::{self, Metric};
use crate::insight::{Crowd, Insight, STATES};
use crate::upstream::{CHECKS, EJECTIONS, UpstreamCounts, UpstreamSeries};

/// An upstream, with what there is to be seen of it.
struct Shown<'a> {
    name: &'a str,
    series: &'a UpstreamSeries,
    seen: Option<Insight>,
}

pub(super) fn render(out: &mut String, series: &[Arc<UpstreamSeries>], now: Instant) {
    let named = series.iter().map(|one| Named::new(one.upstream().as_str(), one.total())).collect();
    answers(out, &catalogue::UPSTREAM_REQUESTS, &catalogue::UPSTREAM_DURATION, named);
    let mut all: Vec<_> =
        series.iter().map(|one| Shown { name: one.upstream().as_str(), series: one, seen: one.look(now) }).collect();
    all.sort_unstable_by_key(|one| one.name);
    connections(out, &all);
    breakers(out, &all);
    crowds(out, &all);
    further(out, &all);
    endpoints(out, &all);
    sources(out, &all);
    tokens(out, &all);
}

fn connections(out: &mut String, all: &[Shown<'_>]) {
    let mut counts: Vec<_> = all.iter().map(|one| (one.name, one.series.counts())).collect();
    counts.retain(|(_, c)| c.connects + c.connect_failures + c.attempts > 0);
    let mut family = |metric, value: fn(&UpstreamCounts) -> u64| {
        head(out, metric);
        for (name, counts) in &counts {
            labelled(out, metric, &[name], value(counts));
        }
    };
    family(&catalogue::UPSTREAM_CONNECTS, |counts| counts.connects);
    family(&catalogue::UPSTREAM_CONNECT_FAILURES, |counts| counts.connect_failures);
    family(&catalogue::UPSTREAM_CONNECTIONS, |counts| counts.open);
}

/// Retries and hedges.
fn further(out: &mut String, all: &[Shown<'_>]) {
    let further: Vec<_> = all.iter().map(|one| (one.name, one.series.further())).collect();
    let retries = further.iter().map(|(name, further)| (*name, &further.retries[..]));
    by_outcome(out, &catalogue::UPSTREAM_RETRIES, &Retried::NAMES, retries);
    let hedges = further.iter().map(|(name, further)| (*name, &further.hedges[..]));
    by_outcome(out, &catalogue::UPSTREAM_HEDGES, &Hedged::NAMES, hedges);
}

/// What there is one of for each upstream and outcome, where there was any.
fn by_outcome<'a>(
    out: &mut String,
    metric: &Metric,
    outcomes: &[&str],
    upstreams: impl Iterator<Item = (&'a str, &'a [u64])>,
) {
    head(out, metric);
    for (upstream, counts) in upstreams.filter(|(_, counts)| counts.iter().any(|count| *count > 0)) {
        for (outcome, count) in outcomes.iter().zip(counts) {
            labelled(out, metric, &[upstream, outcome], *count);
        }
    }
}

/// Circuit breakers, where an upstream has any.
fn breakers(out: &mut String, all: &[Shown<'_>]) {
    let mut all: Vec<_> =
        all.iter().map(|one| (one.name, one.series.breakers.read(), one.series.held_back())).collect();
    all.retain(|(_, states, held_back)| !states.is_empty() || *held_back != [0; 3]);
    head(out, &catalogue::BREAKERS);
    for (name, states, _) in &all {
        for (scope, state, now, _) in states {
            labelled(out, &catalogue::BREAKERS, &[name, scope, state], (*now).max(0).unsigned_abs());
        }
    }
    head(out, &catalogue::BREAKER_CHANGES);
    for (name, states, _) in &all {
        for (scope, state, _, changes) in states {
            labelled(out, &catalogue::BREAKER_CHANGES, &[name, scope, state], *changes);
        }
    }
    head(out, &catalogue::BREAKER_HELD_BACK);
    for (name, _, held_back) in &all {
        for (scope, count) in BreakerScope::NAMES.iter().zip(held_back).filter(|(_, count)| **count > 0) {
            labelled(out, &catalogue::BREAKER_HELD_BACK, &[name, scope], *count);
        }
    }
}

/// Upstreams that have a limit of concurrency.
fn crowds(out: &mut String, all: &[Shown<'_>]) {
    let crowds: Vec<_> = all.iter().filter_map(|one| Some((one.name, one.seen.as_ref()?.crowd?))).collect();
    let mut family = |metric, value: fn(&Crowd) -> u64| {
        head(out, metric);
        for (name, crowd) in &crowds {
            labelled(out, metric, &[name], value(crowd));
        }
    };
    family(&catalogue::UPSTREAM_LIMIT, |crowd| crowd.limit);
    family(&catalogue::UPSTREAM_UNDER_WAY, |crowd| crowd.under_way);
    family(&catalogue::UPSTREAM_QUEUED, |crowd| crowd.waiting);
    head(out, &catalogue::UPSTREAM_SHED);
    for (name, crowd) in &crowds {
        for (class, count) in Priority::NAMES.iter().zip(crowd.shed) {
            labelled(out, &catalogue::UPSTREAM_SHED, &[name, class], count);
        }
    }
}

/// Endpoints by state, and what checks and comparisons came to.
fn endpoints(out: &mut String, all: &[Shown<'_>]) {
    let states: Vec<_> = all.iter().filter_map(|one| Some((one.name, one.seen.as_ref()?.endpoints))).collect();
    head(out, &catalogue::UPSTREAM_ENDPOINTS);
    for (name, found) in &states {
        for (state, count) in STATES.iter().zip(found.counts) {
            labelled(out, &catalogue::UPSTREAM_ENDPOINTS, &[name, state], count);
        }
    }
    head(out, &catalogue::UPSTREAM_PANIC);
    for (name, found) in &states {
        labelled(out, &catalogue::UPSTREAM_PANIC, &[name], found.panics.into());
    }
    let verdicts: Vec<_> = all.iter().map(|one| (one.name, one.series.verdicts())).collect();
    let checks = verdicts.iter().map(|(name, (checks, _))| (*name, &checks[..]));
    by_outcome(out, &catalogue::HEALTH_CHECKS, &CHECKS, checks);
    let ejections = verdicts.iter().map(|(name, (_, ejections))| (*name, &ejections[..]));
    by_outcome(out, &catalogue::EJECTIONS, &EJECTIONS, ejections);
}

/// Where endpoints come from.
fn sources(out: &mut String, all: &[Shown<'_>]) {
    let mut all: Vec<_> = all
        .iter()
        .flat_map(|one| one.seen.iter().flat_map(|seen| &seen.sources).map(|source| (one.name, source)))
        .collect();
    all.sort_unstable_by(|(a, x), (b, y)| (a, x.source, &x.name).cmp(&(b, y.source, &y.name)));
    head(out, &catalogue::DISCOVERY_ENDPOINTS);
    for (upstream, source) in &all {
        labelled(out, &catalogue::DISCOVERY_ENDPOINTS, &[upstream, source.source, &source.name], source.endpoints);
    }
    head(out, &catalogue::DISCOVERY_FAILURES);
    for (upstream, source) in &all {
        labelled(out, &catalogue::DISCOVERY_FAILURES, &[upstream, source.source, &source.name], source.failures);
    }
    head(out, &catalogue::DISCOVERY_AGE);
    for (upstream, source) in &all {
        if let Some(age) = source.age {
            aged(out, &catalogue::DISCOVERY_AGE, &[upstream, source.source, &source.name], age);
        }
    }
}

/// Tokens that the gateway gets for itself.
fn tokens(out: &mut String, all: &[Shown<'_>]) {
    let tokens: Vec<_> = all.iter().filter_map(|one| Some((one.name, one.seen.as_ref()?.token?))).collect();
    head(out, &catalogue::OUTBOUND_TOKENS);
    for (name, token) in &tokens {
        labelled(out, &catalogue::OUTBOUND_TOKENS, &[name, "obtained"], token.obtained);
        labelled(out, &catalogue::OUTBOUND_TOKENS, &[name, "failed"], token.failed);
    }
    head(out, &catalogue::OUTBOUND_TOKEN_AGE);
    for (name, token) in &tokens {
        if let Some(age) = token.age {
            aged(out, &catalogue::OUTBOUND_TOKEN_AGE, &[name], age);
        }
    }
}

/// A time in seconds.
pub(super) fn aged(out: &mut String, metric: &Metric, values: &[&str], age: Duration) {
    labels(out, metric, values);
    extend(out, &[" "]);
    decimal(out, u64::try_from(age.as_millis()).unwrap_or(u64::MAX), 3);
}
