//! Requests at a steady rate, each of which must be answered well, and how long each took, phase by phase.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::client::Raw;
use crate::wait::{now, pause, until};

/// What is asked, by how many and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of whom.
    pub address: SocketAddr,
    /// How many clients there are; the first makes a connection for each request, the others keep theirs.
    pub clients: u32,
    /// How many requests a second they make together.
    pub rate: u32,
    /// For what.
    pub path: &'static str,
    /// What the answer has to be, beside 200.
    pub text: &'static str,
}

/// Clients that ask until they are told to end.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<(usize, Duration)>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    phase: AtomicUsize,
    answers: AtomicUsize,
    goodbyes: AtomicUsize,
}

/// How long the requests of each phase took, from when they were due.
#[derive(Debug)]
pub struct Times(Vec<(usize, Duration)>);

impl Load {
    /// Starts the clients and waits until there are answers.
    pub fn start(plan: &Plan) -> Self {
        let shared = Arc::<Shared>::default();
        let clients = (0..plan.clients).map(|number| {
            let (plan, shared) = (plan.clone(), Arc::clone(&shared));
            std::thread::spawn(move || client(number, &plan, &shared))
        });
        let load = Self { clients: clients.collect(), shared };
        until(Duration::from_secs(10), "there is load", || load.answers() > plan.clients as usize);
        load
    }

    /// Begins a phase: requests that are made from now on count towards it.
    pub fn phase(&self, number: usize) {
        self.shared.phase.store(number, SeqCst);
    }

    /// How many requests were answered.
    pub fn answers(&self) -> usize {
        self.shared.answers.load(SeqCst)
    }

    /// How many clients were told that their connection ends, and made another.
    pub fn goodbyes(&self) -> usize {
        self.shared.goodbyes.load(SeqCst)
    }

    /// Ends the clients.
    ///
    /// # Panics
    /// If one of them had no answer, or not the right one.
    pub fn end(self) -> Times {
        self.shared.stop.store(true, SeqCst);
        let all = self.clients.into_iter().map(|client| client.join().expect("a client lost a request"));
        Times(all.collect::<Vec<_>>().concat())
    }
}

impl Times {
    /// Below which so many of a thousand requests of a phase stayed.
    ///
    /// # Panics
    /// If the phase had no requests.
    pub fn of_phase(&self, phase: usize, per_mille: usize) -> Duration {
        let mut times: Vec<_> = self.0.iter().filter(|(number, _)| *number == phase).map(|(_, took)| *took).collect();
        times.sort_unstable();
        assert!(!times.is_empty(), "phase {phase} had no requests");
        times[(times.len() * per_mille / 1000).min(times.len() - 1)]
    }

    /// The median of that over these phases, so that one disturbance of the machine does not decide.
    pub fn median(&self, phases: impl Iterator<Item = usize>, per_mille: usize) -> Duration {
        let mut each: Vec<_> = phases.map(|phase| self.of_phase(phase, per_mille)).collect();
        each.sort_unstable();
        each[each.len() / 2]
    }
}

fn client(number: u32, plan: &Plan, shared: &Shared) -> Vec<(usize, Duration)> {
    let every = Duration::from_secs(1) * plan.clients / plan.rate;
    let mut due = now() + every * number / plan.clients;
    let mut times = Vec::new();
    let mut kept = None;
    while !shared.stop.load(SeqCst) {
        pause(due.saturating_duration_since(now()));
        let phase = shared.phase.load(SeqCst);
        let mut raw: Raw = kept.take().unwrap_or_else(|| Raw::connect(plan.address));
        let answer = raw.get(plan.path);
        assert_eq!((answer.status(), answer.text().as_str()), (200, plan.text));
        // From when it was due: a request that had to wait for the one before has waited for the gateway, too.
        times.push((phase, due.elapsed()));
        shared.answers.fetch_add(1, SeqCst);
        if answer.field("connection").is_some() {
            shared.goodbyes.fetch_add(1, SeqCst);
        } else if number > 0 {
            kept = Some(raw);
        }
        due += every;
    }
    times
}
