//! The keys of one issuer, fetched by one task for all requests, workers and documents that want the same.
//!
//! Lives on the control runtime, and from one document to the next where nothing of it has changed. The number of its generation rises with
//! each change of the set, so that proofs that rest on keys before are forgotten.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use pylon_net::timer::timeout_at;
use pylon_observe::insight::SupplyReading;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::key::Keys;
use super::renewal::Renewal;
use super::source::{Source, Target, Told};
use crate::policy::Service;

/// How long one fetch may take.
const FETCHING: Duration = Duration::from_secs(10);

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeySet {
    held: Arc<Held>,
    task: Mutex<Option<AbortHandle>>,
}

/// What the task writes and the workers read.
struct Held {
    source: Source,
    state: Mutex<State>,
    /// Rises with each change.
    generation: AtomicU64,
    /// How many answers there have been, good or bad.
    answers: watch::Sender<u64>,
    wanted: Notify,
    /// What the issuer told of itself last.
    told: ArcSwapOption<Map<String, Value>>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("source", &self.source.shown()).finish_non_exhaustive()
    }
}

struct State {
    renewal: Renewal,
    keys: Option<Arc<Keys>>,
}

/// What may be done about a key that is not there.
#[derive(Debug)]
pub(crate) enum Demand {
    /// Wait for more answers than there have been.
    Wait(u64),
    /// It is not among the keys that the issuer has.
    Absent,
    /// Nobody knows: the issuer does not tell.
    Unknown(String),
}

impl KeySet {
    /// `keys` are those at hand, if there are any yet.
    pub(crate) fn new(source: Source, keys: Option<Keys>, valid_for: Duration, cool_down: Duration) -> Self {
        let mut renewal = Renewal::new(valid_for, cool_down, now());
        if keys.is_some() {
            renewal.came(Duration::ZERO, now(), 0.0);
        }
        let state = State { renewal, keys: keys.map(Arc::new) };
        let held = Held {
            source,
            state: Mutex::new(state),
            generation: AtomicU64::new(1),
            answers: watch::Sender::new(0),
            wanted: Notify::new(),
            told: ArcSwapOption::empty(),
        };
        Self { held: Arc::new(held), task: Mutex::default() }
    }

    /// Rises with each change.
    pub(crate) fn generation(&self) -> u64 {
        self.held.generation.load(Acquire)
    }

    /// The keys at hand, if they may serve.
    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        let state = self.held.state.lock();
        state.keys.clone().filter(|_| state.renewal.serves(now()))
    }

    /// What the issuer told of itself last; none where it has told nothing yet.
    pub(crate) fn told(&self) -> Option<Arc<Map<String, Value>>> {
        self.held.told.load_full()
    }

    /// What is at a URL that the issuer tells under this name.
    pub(crate) fn target(&self, url: &str, name: &str) -> Result<Target, String> {
        self.held.source.target(url, name)
    }

    /// Where it is asked, for people.
    pub(crate) fn shown(&self) -> String {
        self.held.source.shown()
    }

    /// A key is wanted that is not there.
    pub(crate) fn demand(&self) -> Demand {
        let mut state = self.held.state.lock();
        let (now, was_asking) = (now(), state.renewal.is_asking());
        let served = state.renewal.serves(now);
        // Where the last answer brought none and there are none, the next is under way by its own time.
        let waits = if served || was_asking { state.renewal.demand(now) } else { false };
        if waits {
            let seen = *self.held.answers.borrow();
            drop(state);
            if !was_asking {
                self.held.wanted.notify_one();
            }
            return Demand::Wait(seen);
        }
        match state.renewal.error() {
            Some(error) => Demand::Unknown(format!("no keys from `{}`: {error}", self.held.source.shown())),
            None => Demand::Absent,
        }
    }

    /// Waits until there have been more than `seen` answers. Not beyond `deadline`: then it says false.
    pub(crate) async fn answered(&self, seen: u64, deadline: Instant) -> bool {
        let mut answers = self.held.answers.subscribe();
        matches!(timeout_at(Some(deadline), answers.wait_for(|count| *count > seen)).await, Ok(Ok(_)))
    }
}

impl Service for KeySet {
    fn start(&self, control: &Handle) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(control.spawn(look_after(Arc::clone(&self.held))).abort_handle());
        }
    }

    fn settle(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            // An error means that it is gone, and with it the question.
            let _gone = self.held.answers.subscribe().wait_for(|answers| *answers > 0).await.is_err();
        })
    }

    fn look(&self, now: Instant) -> Option<SupplyReading> {
        let state = self.held.state.lock();
        let renewal = &state.renewal;
        Some(SupplyReading {
            kind: "jwks",
            from: self.held.source.shown(),
            up: renewal.error().is_none() && renewal.got().is_some(),
            items: Some(state.keys.as_ref().map_or(0, |keys| keys.len() as u64)),
            age: renewal.got().map(|got| now.saturating_duration_since(got)),
            next: Some(renewal.next().saturating_duration_since(now)),
            failures: renewal.failures(),
            error: renewal.error().map(str::to_owned),
        })
    }
}

impl Drop for KeySet {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

async fn look_after(held: Arc<Held>) {
    let mut told = Told::default();
    loop {
        let next = held.state.lock().renewal.next();
        if next > now() {
            // Either way the state says whether it is time.
            let _either = timeout_at(Some(next), held.wanted.notified()).await;
            if held.state.lock().renewal.next() > now() {
                continue;
            }
        }
        held.state.lock().renewal.begin();
        let answer = held.source.fetch(&mut told, now() + FETCHING).await;
        if let Some(members) = told.members() {
            held.told.store(Some(members));
        }
        held.take_in(answer);
    }
}

impl Held {
    fn take_in(&self, answer: Result<(Keys, Duration), String>) {
        let from = self.source.shown();
        let mut state = self.state.lock();
        match answer {
            Ok((keys, fresh)) => {
                if state.renewal.error().is_some() {
                    tracing::info!(from, "there are keys again");
                }
                state.renewal.came(fresh, now(), fastrand::f64());
                if state.keys.as_ref().is_none_or(|before| **before != keys) {
                    for why in &keys.left_out {
                        tracing::warn!(from, why, "a key is left out");
                    }
                    tracing::info!(from, keys = keys.len(), "new keys are in force");
                    state.keys = Some(Arc::new(keys));
                    self.generation.fetch_add(1, Release);
                }
            }
            Err(error) => {
                if state.renewal.error().is_none() {
                    tracing::warn!(from, error, "there are no new keys; those at hand go on for their time");
                }
                state.renewal.failed(error, now(), fastrand::f64());
                if state.keys.is_some() && !state.renewal.serves(now()) {
                    tracing::warn!(from, "the keys at hand are too old to serve");
                    state.keys = None;
                    self.generation.fetch_add(1, Release);
                }
            }
        }
        // Under the lock, so that whoever counts answers there misses none.
        self.answers.send_modify(|answers| *answers = answers.wrapping_add(1));
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
