//! Requests at a steady rate, whose failures are counted phase by phase: for services that are being broken.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::{Raw, request};
use crate::wait::{now, pause};

/// Clients that ask until they are told to end, whatever comes of it.
#[derive(Debug)]
pub struct Tally {
    stop: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<(usize, u16, Duration)>>>,
}

/// What came of the requests of one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many there were.
    pub requests: usize,
    /// How many had which status but 200; 0 stands for no answer at all.
    pub failures: BTreeMap<u16, usize>,
    /// The longest that one took.
    pub longest: Duration,
}

impl Outcome {
    /// How many of a million were answered with 200.
    pub fn per_million(&self) -> usize {
        let failed: usize = self.failures.values().sum();
        (self.requests - failed) * 1_000_000 / self.requests.max(1)
    }
}

impl Tally {
    /// Starts as many clients, which make so many requests a second together.
    pub fn start(address: SocketAddr, clients: u32, rate: u32, path: &'static str) -> Self {
        let (stop, phase) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let asked = Arc::<AtomicUsize>::default();
        let every = Duration::from_secs(1) * clients / rate;
        let clients = (0..clients).map(|number| {
            let (stop, phase, asked) = (Arc::clone(&stop), Arc::clone(&phase), Arc::clone(&asked));
            let mut due = now() + every * number / clients;
            std::thread::spawn(move || {
                let (mut seen, mut kept) = (Vec::new(), None);
                while !stop.load(SeqCst) {
                    pause(due.saturating_duration_since(now()));
                    let (of_phase, began) = (phase.load(SeqCst), now());
                    let status = ask(&mut kept, address, path);
                    seen.push((of_phase, status, began.elapsed()));
                    asked.fetch_add(1, SeqCst);
                    // Who was held up does not make up for it: that would be another load.
                    due = (due + every).max(now());
                }
                seen
            })
        });
        let clients = clients.collect();
        Self { stop, phase, asked, clients }
    }

    /// Begins a phase: requests that are made from now on count towards it.
    pub fn phase(&self, number: usize) {
        self.phase.store(number, SeqCst);
    }

    /// How many requests have come to an end.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// Ends the clients and tells what came of each phase, the first of which is 0.
    ///
    /// # Panics
    /// If a client did.
    pub fn end(self) -> Vec<Outcome> {
        self.stop.store(true, SeqCst);
        let mut phases = Vec::new();
        for client in self.clients {
            for (phase, status, took) in client.join().expect("a client goes on to the end") {
                if phases.len() <= phase {
                    phases.resize(phase + 1, Outcome::default());
                }
                let outcome = &mut phases[phase];
                outcome.requests += 1;
                outcome.longest = outcome.longest.max(took);
                if status != 200 {
                    *outcome.failures.entry(status).or_default() += 1;
                }
            }
        }
        phases
    }
}

/// The status of one answer; 0 where there is none. The connection is kept while it is good.
fn ask(kept: &mut Option<Raw>, address: SocketAddr, path: &str) -> u16 {
    let raw = match kept.take() {
        Some(raw) => Ok(raw),
        None => Raw::try_connect(address),
    };
    let Ok(mut raw) = raw else { return 0 };
    if raw.try_send(request("GET", path, &[], b"")).is_err() {
        return 0;
    }
    let Ok(answer) = raw.try_response("GET") else { return 0 };
    let status = answer.status();
    if answer.field("connection").is_none() {
        *kept = Some(raw);
    }
    status
}
