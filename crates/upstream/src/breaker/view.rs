//! What the admin API shows of a breaker.

use std::fmt::Write as _;
use std::time::Duration;

use pylon_observe::breakers::BreakerState;
use serde::Serialize;

use super::judge::{Why, Window};
use super::state::{Whose, shown};
use super::word::{Force, Word};

/// A breaker at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BreakerView {
    /// For what it is: `endpoint`, `upstream` or `route`.
    pub scope: &'static str,
    /// The route, where it is for the calls of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Whether it is so by order of the admin API.
    pub forced: bool,
    /// Why it came into this state; none where it has always been closed.
    pub why: Option<String>,
    /// How long it has been in it, in seconds.
    pub for_seconds: u64,
    /// When it is open: in how many milliseconds it lets a probe through; none where it is open by order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_in_ms: Option<u64>,
    /// Probes under way.
    pub probes: u8,
    /// Calls within the window, of those that are counted in its present state.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many of them were slow.
    pub slow: u64,
    /// How often it has opened.
    pub opened: u64,
}

impl BreakerView {
    pub(super) fn new(
        whose: &Whose,
        word: Word,
        (why, since): (Option<&Why>, Duration),
        window: Window,
        (opened, probe_in): (u64, Option<Duration>),
    ) -> Self {
        let state = shown(word);
        let is_route = whose.scope == super::spec::Scope::Route;
        let probe_in = probe_in.filter(|_| state == BreakerState::Open);
        Self {
            scope: whose.scope.as_str(),
            route: is_route.then(|| whose.name.to_string()),
            state: state.as_str(),
            forced: word.force() != Force::Auto,
            why: why.map(ToString::to_string),
            for_seconds: since.as_secs(),
            probe_in_ms: probe_in.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            probes: word.out(),
            calls: window.calls,
            failed: window.failed,
            slow: window.slow,
            opened,
        }
    }

    /// In words: `open for 3s, since 12 of 20 calls failed; a probe in 2s`.
    pub fn in_words(&self) -> String {
        let Self { state, for_seconds, calls, failed, slow, .. } = self;
        let mut words = match &self.why {
            Some(why) => format!("{} for {for_seconds}s: {why}", state.replace('_', " ")),
            None => state.replace('_', " "),
        };
        // Writing to a string does not fail.
        if let Some(millis) = self.probe_in_ms {
            let _ = write!(words, "; the next probe in {:.1}s", Duration::from_millis(millis).as_secs_f64());
        }
        if *state == "closed" && !self.forced {
            let _ = write!(words, "; of {calls} calls {failed} failed and {slow} were slow");
        }
        words
    }
}
