//! What is seen of an upstream when somebody looks. Nobody counts it: it is asked for with each scrape, so that it is always right.

use std::fmt;
use std::sync::Weak;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::priority::Priority;
use serde::{Serialize, Serializer};

/// The states of endpoints by the values of the label `state`, in the order in which the first that holds counts.
pub(crate) const STATES: [&str; 4] = ["available", "unhealthy", "ejected", "breaker_open"];

/// An upstream at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Insight {
    /// Its endpoints.
    pub endpoints: EndpointStates,
    /// Where they come from.
    pub sources: Vec<SourceReading>,
    /// How crowded it is, where it has a limit of concurrency.
    pub crowd: Option<Crowd>,
    /// The token that it is sent, where the gateway gets one.
    pub token: Option<TokenReading>,
}

/// The endpoints of an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointStates {
    /// Those that may be chosen, then those that are `unhealthy`, `ejected` and behind an open breaker.
    pub counts: [u64; STATES.len()],
    /// Whether so few are left that health and ejections are ignored.
    pub panics: bool,
}

/// One source of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceReading {
    /// What it is: `dns`, `consul`, `host name`.
    pub source: &'static str,
    /// What is looked for.
    pub name: String,
    /// How many endpoints it names, or addresses of a host name.
    pub endpoints: u64,
    /// How long ago they were last confirmed; none where they never were.
    pub age: Option<Duration>,
    /// How many attempts have failed.
    pub failures: u64,
}

/// How crowded an upstream is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// How many requests may be under way.
    pub limit: u64,
    /// How many are.
    pub under_way: u64,
    /// How many wait for their turn.
    pub waiting: u64,
    /// How many were refused, the least class first.
    pub shed: [u64; Priority::ALL.len()],
}

/// A token that the gateway gets for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenReading {
    /// How many have come.
    pub obtained: u64,
    /// How often none came.
    pub failed: u64,
    /// How long ago the one at hand was asked for; none where there is none that may be sent.
    pub age: Option<Duration>,
}

/// Something that policies rest on and that is fetched, watched or asked: keys, stores, servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SupplyReading {
    /// What it is: `jwks`, `introspection`, `key_file`, `shared_keys`, `redis`.
    pub kind: &'static str,
    /// Where it is: host and path, or a file; never a query.
    pub from: String,
    /// Whether it could be had when it was last wanted.
    pub up: bool,
    /// How much of it is at hand, such as keys; none where it is nothing that is counted.
    pub items: Option<u64>,
    /// How long ago it was last confirmed, or last answered, in seconds; none where it never was, or where it is at hand all the time.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Option<Duration>,
    /// How soon it is wanted again, in seconds; none where that is nothing that is planned.
    #[serde(rename = "next_seconds", serialize_with = "seconds")]
    pub next: Option<Duration>,
    /// How often it could not be had.
    pub failures: u64,
    /// Why it could not be had when it was last wanted.
    pub error: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde asks for it in this form")]
fn seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs()).serialize(serializer)
}

/// What looks at all of it that a document needs.
pub type Supplies = dyn Fn(Instant) -> Vec<SupplyReading> + Send + Sync;

/// The look at what the document in force needs.
#[derive(Default)]
pub(crate) struct SupplyLook(Mutex<Option<Box<Supplies>>>);

impl SupplyLook {
    pub(crate) fn set(&self, look: Box<Supplies>) {
        *self.0.lock() = Some(look);
    }

    /// In the order of their kinds and places, each once: where several ask at one place, one that has failed.
    pub(crate) fn look(&self, now: Instant) -> Vec<SupplyReading> {
        let mut all = self.0.lock().as_ref().map(|look| look(now)).unwrap_or_default();
        all.sort_unstable_by(|a, b| (a.kind, &a.from, a.up).cmp(&(b.kind, &b.from, b.up)));
        all.dedup_by(|a, b| (a.kind, &a.from) == (b.kind, &b.from));
        all
    }
}

impl fmt::Debug for SupplyLook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SupplyLook")
    }
}

/// The link to a store that gateways share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreReading {
    /// What it is: `redis`.
    pub name: &'static str,
    /// Host and port.
    pub address: String,
    /// Whether it can be used.
    pub up: bool,
    /// How many calls there were.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Why it cannot be used.
    pub error: Option<String>,
}

/// Whoever can be looked into.
pub trait Inside: fmt::Debug + Send + Sync {
    /// What there is to be seen.
    fn look(&self, now: Instant) -> Insight;
}

/// Who can be looked into: more than one while a document takes the place of another, or is tried beside it.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<Vec<Weak<dyn Inside>>>);

impl Looks {
    pub(crate) fn open_to(&self, inside: Weak<dyn Inside>) {
        let mut all = self.0.lock();
        all.retain(|one| one.strong_count() > 0 && !std::ptr::addr_eq(one.as_ptr(), inside.as_ptr()));
        all.push(inside);
    }

    /// What the last that came into force, and lives, shows.
    pub(crate) fn look(&self, now: Instant) -> Option<Insight> {
        let last = self.0.lock().iter().rev().find_map(Weak::upgrade);
        last.map(|inside| inside.look(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::monotonic;

    #[derive(Debug)]
    struct Has(u64);

    impl Inside for Has {
        fn look(&self, _: Instant) -> Insight {
            let endpoints = EndpointStates { counts: [self.0, 0, 0, 0], panics: false };
            Insight { endpoints, ..Insight::default() }
        }
    }

    #[test]
    fn the_last_that_came_into_force_and_lives_is_looked_into_and_those_that_are_gone_are_let_go() {
        let looks = Looks::default();
        let available = || looks.look(monotonic()).map(|seen| seen.endpoints.counts[0]);
        let open_to = |has: &Arc<Has>| {
            let weak: Weak<Has> = Arc::downgrade(has);
            looks.open_to(weak);
        };
        let (first, second) = (Arc::new(Has(1)), Arc::new(Has(2)));
        open_to(&first);
        open_to(&second);
        assert_eq!(available(), Some(2));
        open_to(&first);
        assert_eq!((available(), looks.0.lock().len()), (Some(1), 2), "it has come into force again");
        drop(first);
        assert_eq!(available(), Some(2), "a candidate was taken back");
        drop(second);
        open_to(&Arc::new(Has(3)));
        assert_eq!((available(), looks.0.lock().len()), (None, 1));
    }
}
