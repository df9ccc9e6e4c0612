//! Chooses an endpoint. Pure: loads, latencies, time and randomness are arguments.
//!
//! Each worker has a balancer of its own, so that no word is shared: over many requests the shares are exact per worker
//! and therefore over all. Only the tables of [`table::Table`] are made once and read by all. Endpoints that an exchange has
//! tried already come last. A pick allocates nothing.

pub mod ewma;
mod hash;
mod least;
mod lot;
mod maglev;
pub mod orca;
pub mod prequal;
pub mod ramp;
mod ring;
pub mod spec;
pub mod table;
pub mod tiers;
mod turn;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::hash::hash;
use self::lot::lot;
use self::prequal::{Pool, Probe};
use self::table::Table;
use self::turn::Turn;

/// How endpoints are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// In turn, by weight (smooth: an endpoint of weight 5 is not chosen five times in a row).
    #[default]
    RoundRobin,
    /// Of two drawn by lot, the one with fewer exchanges under way for its weight.
    LeastRequest,
    /// By lot, by weight.
    Random,
    /// Of two drawn by lot, the one that is expected to be done sooner: by its latency and what is under way there.
    Ewma,
    /// By a key of the request, on a ring.
    RingHash,
    /// By a key of the request, in a table of even shares.
    Maglev,
    /// The best of those that were probed lately, by what is under way there and how fast they are.
    Prequal,
}

impl Method {
    /// All of them, each with its name in a document.
    pub const ALL: [(&'static str, Self); 7] = [
        ("round_robin", Self::RoundRobin),
        ("least_request", Self::LeastRequest),
        ("random", Self::Random),
        ("ewma", Self::Ewma),
        ("ring_hash", Self::RingHash),
        ("maglev", Self::Maglev),
        ("prequal", Self::Prequal),
    ];

    /// The name in a document.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// Whether a key of the request decides.
    pub fn is_keyed(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What a balancer asks of endpoints, by index.
pub trait Endpoints {
    /// Whether it is not to be chosen.
    fn is_barred(&self, index: usize) -> bool;
    /// Whether this exchange has been there already.
    fn was_tried(&self, index: usize) -> bool;
    /// How many exchanges are under way there.
    fn load(&self, index: usize) -> u32;
    /// Its latency as it is estimated now, in seconds; 0 where nothing is known.
    fn latency(&self, index: usize) -> f64;
}

/// The state of one worker's choice.
#[derive(Debug)]
pub struct Balancer {
    method: Method,
    weights: Weights,
    turn: Turn,
    table: Option<Arc<Table>>,
    probed: Pool,
}

/// The shares of endpoints in proportion to each other, each at least 1.
#[derive(Debug, Default)]
struct Weights {
    all: Vec<u32>,
    /// Whether all are equal, which makes a choice cheap.
    equal: bool,
}

impl Weights {
    fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut new = Self::default();
        new.set(weights);
        new
    }

    fn set(&mut self, weights: impl IntoIterator<Item = u32>) {
        self.all.clear();
        self.all.extend(weights.into_iter().map(|weight| weight.max(1)));
        self.equal = self.all.windows(2).all(|pair| pair.first() == pair.last());
    }

    fn of(&self, index: usize) -> u32 {
        self.all.get(index).copied().unwrap_or(1)
    }
}

impl Balancer {
    /// A balancer over endpoints of these weights (0 counts as 1). `offset` lets each worker begin elsewhere.
    pub fn new(method: Method, weights: impl IntoIterator<Item = u32>, offset: usize) -> Self {
        let weights = Weights::new(weights);
        let turn = Turn::new(&weights, offset);
        let probed = if method == Method::Prequal { Pool::new() } else { Pool::default() };
        Self { method, weights, turn, table: None, probed }
    }

    /// With the table that a keyed method looks up; without one, a keyed method draws lots.
    #[must_use]
    pub fn with_table(self, table: Option<Arc<Table>>) -> Self {
        Self { table, ..self }
    }

    /// Takes other weights for the same endpoints, in the same order.
    pub fn reweigh(&mut self, weights: impl IntoIterator<Item = u32>) {
        self.weights.set(weights);
        self.turn.adapt(&self.weights);
    }

    /// An endpoint has answered a probe.
    pub fn learn(&mut self, probe: Probe) {
        self.probed.learn(probe);
    }

    /// Lets go of answers to probes that are too old at `now`, in nanoseconds.
    pub fn age(&mut self, now: u64) {
        self.probed.age(now);
    }

    /// The weights as they are now.
    pub fn weights(&self) -> &[u32] {
        &self.weights.all
    }

    /// How many endpoints there are to choose from.
    pub fn len(&self) -> usize {
        self.weights.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.weights.all.is_empty()
    }

    /// The index of the endpoint to use; none where there are none that are not barred. Those that were tried come last.
    /// `key` is of the request, for methods that look it up; `random` draws a number.
    pub fn pick(&mut self, endpoints: &impl Endpoints, key: u64, mut random: impl FnMut() -> u64) -> Option<usize> {
        match self.weights.all.len() {
            0 => None,
            1 => (!endpoints.is_barred(0)).then_some(0),
            len => {
                let fresh = (0..len).any(|index| !endpoints.is_barred(index) && !endpoints.was_tried(index));
                if !fresh && (0..len).all(|index| endpoints.is_barred(index)) {
                    return None;
                }
                let skip = |index: usize| endpoints.is_barred(index) || fresh && endpoints.was_tried(index);
                match (self.method, &self.table) {
                    (Method::RoundRobin, _) => self.turn.next(&self.weights, skip),
                    (Method::LeastRequest, _) => least::pick(&self.weights, skip, endpoints, &mut random),
                    (Method::Ewma, _) => ewma::pick(&self.weights, skip, endpoints, &mut random),
                    (Method::RingHash | Method::Maglev, Some(table)) => table.find(key, skip),
                    (Method::Prequal, _) => self.probed.pick(skip).or_else(|| lot(&self.weights, skip, &mut random)),
                    (Method::Random | Method::RingHash | Method::Maglev, _) => lot(&self.weights, skip, &mut random),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
