//! Puts another document in force while the gateway runs: load, check, compile, prepare, swap whole; or the one before stays,
//! and the reason is told in the log, in metrics and by the admin API.
//!
//! There is one reload at a time. Whoever asks while one is under way is answered by one that comes after it, for the
//! files may have changed since they were read: however many ask meanwhile, there is one more.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pylon_config::compile::Compiled;
use pylon_config::diagnostic::{Diagnostic, render_all};
use pylon_config::load::Source;
use pylon_observe::clock::{rfc3339, unix_now};
use pylon_observe::reloads::Outcome;
use pylon_policy::policy::Service;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::certificates;
use crate::fixed::Fixed;
use crate::gateway::{Facts, State};
use crate::history::Draft;
use crate::history::keeper::Rollback;
use crate::history::start::Because;
use crate::listeners::Change;
use crate::prepare::{self, Lasting, Origin, Prepared};
use crate::watch::Seen;
use crate::worker::{Listening, Order};

/// How many may wait for a reload before others wait to ask.
const WAITING: usize = 64;
/// How long a reload waits for the first answers of name servers about new names, at most.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a worker may take to answer that it serves the new document.
const WORKER: Duration = Duration::from_secs(1);
/// How often older snapshots are looked through.
const CLEAR: Duration = Duration::from_millis(250);

mod parting;

use parting::{end_streams, keep_ways};

/// Why there is no other document any more.
const ENDING: &str = "this process is ending, or another one serves in its place";

/// Who asks for another document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The start of the process.
    Start,
    /// SIGHUP.
    Signal,
    /// A change of the document's files.
    File,
    /// The admin API.
    Admin,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Why there is to be another document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Who asks.
    pub who: Who,
    /// In their words, if they have any.
    pub why: Option<String>,
}

/// What became of the last reload, or of the start.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether the document was put in force.
    pub outcome: Outcome,
    /// When (RFC 3339).
    pub at: String,
    /// By whom, the first of them where several asked.
    pub cause: Cause,
    /// The hash of the document in force, be it this one or the one before.
    pub hash: String,
    /// Since when that one is in force (RFC 3339).
    pub since: String,
    /// Keys of the document in force that only a restart applies.
    pub restart: Vec<&'static str>,
    /// What is wrong with a document that was refused, or the warnings about the one in force.
    pub diagnostics: Vec<Diagnostic>,
    /// The same as text, as `pylon check` prints it.
    pub text: String,
}

impl Report {
    /// Of the document that the process starts with; refused where a revision stands in for it.
    pub(crate) fn of_start(prepared: &Prepared, because: &Because) -> Self {
        let at = rfc3339(unix_now());
        let (outcome, diagnostics) = match because {
            Because::LastGood(_, wrong) => (Outcome::Refused, wrong),
            Because::Document | Because::RolledBack(_) => (Outcome::Applied, &prepared.compiled.warnings),
        };
        Self {
            outcome,
            since: at.clone(),
            at,
            cause: Cause { who: Who::Start, why: None },
            hash: prepared.compiled.snapshot.hash.clone(),
            restart: Vec::new(),
            diagnostics: diagnostics.clone(),
            text: render_all(diagnostics, false),
        }
    }
}

/// Asks for reloads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloader {
    asks: mpsc::Sender<Ask>,
}

/// What a [`Reloader`] has asked for.
#[derive(Debug)]
pub(crate) struct Ask {
    cause: Cause,
    what: What,
    answer: Option<oneshot::Sender<Arc<Report>>>,
}

/// What is to be put in force.
#[derive(Debug)]
enum What {
    /// What the files hold.
    Files,
    /// A revision.
    Revision(Box<Rollback>),
}

impl Reloader {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(WAITING);
        (Self { asks }, asked)
    }

    /// Puts the document in force that its files hold now. Answers when it serves, or when it has been refused; none when
    /// the gateway is at its end.
    pub async fn reload(&self, cause: Cause) -> Option<Arc<Report>> {
        self.and_wait(cause, What::Files).await
    }

    /// Puts a revision in force, until the files change.
    pub(crate) async fn roll_back(&self, rollback: Rollback, cause: Cause) -> Option<Arc<Report>> {
        self.and_wait(cause, What::Revision(Box::new(rollback))).await
    }

    async fn and_wait(&self, cause: Cause, what: What) -> Option<Arc<Report>> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(Ask { cause, what, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
    }

    /// The same without waiting for what becomes of it.
    pub fn ask(&self, cause: Cause) {
        // Where there is no room, others wait who will be answered by a reload that has not begun: it serves this one, too.
        let _ = self.asks.try_send(Ask { cause, what: What::Files, answer: None });
    }
}

/// The one that reloads.
#[derive(Debug)]
pub(crate) struct Reloading {
    pub(crate) state: Arc<State>,
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) origin: Origin,
    /// What was read last.
    pub(crate) seen: Arc<Seen>,
    pub(crate) fixed: Fixed,
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
}

impl Reloading {
    /// Serves those who ask, for as long as the runtime lives.
    pub(crate) fn start(mut self, control: &Handle, mut asked: mpsc::Receiver<Ask>) {
        control.spawn(clear(Arc::clone(&self.state)));
        control.spawn(async move {
            let mut next = None;
            loop {
                let first = match next.take() {
                    Some(ask) => ask,
                    None => match asked.recv().await {
                        Some(ask) => ask,
                        None => return,
                    },
                };
                let Ask { cause, what, answer } = first;
                let mut answers = vec![answer];
                while matches!(what, What::Files) && next.is_none() {
                    match asked.try_recv() {
                        Ok(Ask { what: What::Files, answer, .. }) => answers.push(answer),
                        // A revision is put in force for itself.
                        Ok(other) => next = Some(other),
                        Err(_) => break,
                    }
                }
                let report = Arc::new(self.reload(cause, what).await);
                self.state.last.send_replace(Arc::clone(&report));
                for answer in answers.into_iter().flatten() {
                    // Whoever does not wait any more needs no answer.
                    let _ = answer.send(Arc::clone(&report));
                }
            }
        });
    }

    async fn reload(&mut self, cause: Cause, what: What) -> Report {
        let ports = Arc::clone(&self.state.ports);
        let _alone = ports.changing.lock().await;
        if ports.are_closed() {
            return self.refuse(vec![Diagnostic::error(ENDING)], cause);
        }
        let (origin, seen, lasting) = (self.origin.clone(), Arc::clone(&self.seen), Arc::clone(&self.lasting));
        let (revision, draft) = match what {
            What::Files => (None, None),
            What::Revision(rollback) => (Some(rollback.revision), Some(rollback.draft)),
        };
        // Reads disks, and computes for as long as the document is large.
        let prepared = tokio::task::spawn_blocking(move || match revision {
            None => read(&origin, &seen, &lasting),
            Some(revision) => prepare::again(revision.source()?, &origin, &lasting),
        })
        .await;
        let wrong = match prepared {
            Ok(Ok(prepared)) => match ports.prepare(&prepared) {
                Ok(change) => return self.put_in_force(prepared, change, cause, draft).await,
                Err(wrong) => wrong,
            },
            Ok(Err(wrong)) => wrong,
            Err(error) => vec![Diagnostic::error(format!("the document could not be compiled: {error}"))],
        };
        self.refuse(wrong, cause)
    }

    /// Swaps. Nothing can fail from here on, unless the process has begun to end.
    async fn put_in_force(&self, prepared: Prepared, change: Change, cause: Cause, rollback: Option<Draft>) -> Report {
        let state = &self.state;
        let restart = self.fixed.differs(&prepared.document);
        start_parts(&prepared).await;
        // Before the routes: whoever meets those has met what the listeners demand.
        let Some(mut changed) = state.ports.put_in_force(change, &prepared) else {
            return self.refuse(vec![Diagnostic::error(ENDING)], cause);
        };
        state.bounds.set(&prepared.plan);
        let hash = prepared.compiled.snapshot.hash.clone();
        let (mut compiled, source) = self.tell(prepared);
        let routes = compiled.snapshot.routes.len();
        keep_ways(&mut compiled.snapshot, &state.world.current(), changed.gone());
        let before = state.world.stage();
        state.world.swap(compiled.snapshot);
        *state.tried.lock() = None;
        end_streams(&before, &state.world);
        drop(before);
        let metrics = &self.lasting.metrics;
        certificates::tell(&state.ports.certificates(), metrics);
        metrics.snapshot_in_force(&hash, tokio::time::Instant::now().into_std());
        self.renew_workers(std::mem::take(&mut changed.listening)).await;
        state.ports.close_gone(changed).await;
        let at = unix_now();
        metrics.reloads.applied(at, !restart.is_empty());
        metrics.reloads.in_memory(state.world.clear());
        let text = render_all(&compiled.warnings, false);
        tracing::info!(document = hash, routes, who = ?cause.who, why = cause.why, "another document is in force");
        if !text.is_empty() {
            tracing::warn!("about the document in force:\n{text}");
        }
        for key in &restart {
            tracing::warn!(key, "this key has changed, and only a restart applies it: until then the old value holds");
        }
        match rollback {
            Some(draft) => state.history.rolled_back(draft, &metrics.reloads).await,
            None => {
                let (who, why) = (cause.who.to_string(), cause.why.clone());
                state.history.applied(&source, who, why, &metrics.reloads).await;
            }
        }
        let at = rfc3339(at);
        let since = at.clone();
        Report { outcome: Outcome::Applied, at, cause, hash, since, restart, diagnostics: compiled.warnings, text }
    }

    /// Lets the admin API know of a document that comes into force.
    fn tell(&self, prepared: Prepared) -> (Compiled, Source) {
        let token = self.fixed.token(&prepared);
        let now = tokio::time::Instant::now().into_std();
        self.state.facts.send_replace(Arc::new(Facts::of(&prepared, token, now)));
        (prepared.compiled, prepared.source)
    }

    fn refuse(&self, diagnostics: Vec<Diagnostic>, cause: Cause) -> Report {
        let before = self.state.last.borrow().clone();
        let text = render_all(&diagnostics, false);
        tracing::error!(
            in_force = before.hash,
            who = ?cause.who,
            why = cause.why,
            "the document is refused, and the one before stays in force:\n{text}"
        );
        self.lasting.metrics.reloads.refused();
        Report {
            outcome: Outcome::Refused,
            at: rfc3339(unix_now()),
            cause,
            hash: before.hash.clone(),
            since: before.since.clone(),
            restart: before.restart.clone(),
            diagnostics,
            text,
        }
    }

    /// Waits until each worker serves the document in force, also those that have no requests, and gives each its new sockets.
    async fn renew_workers(&self, listening: Vec<Vec<Listening>>) {
        let mut answers = Vec::new();
        for (orders, listening) in self.orders.iter().zip(listening) {
            let (done, answer) = oneshot::channel();
            // A worker that takes no orders now does so later.
            if let Err(TrySendError::Full(order)) = orders.try_send(Order::Renew(listening, done)) {
                let orders = orders.clone();
                tokio::spawn(async move { orders.send(order).await });
            }
            answers.push(answer);
        }
        for (worker, answer) in answers.into_iter().enumerate() {
            if !matches!(tokio::time::timeout(WORKER, answer).await, Ok(Ok(()))) {
                tracing::warn!(worker, "a worker does not answer whether it serves the document in force");
            }
        }
    }
}

/// Starts what upstreams and policies need, and waits for names and keys that are new, so that the first request finds them known.
pub(crate) async fn start_parts(prepared: &Prepared) {
    let (upstreams, services) = (&prepared.compiled.snapshot.upstreams, &prepared.compiled.snapshot.services);
    let control = Handle::current();
    let inside: Vec<Weak<dyn Service>> = services.iter().map(Arc::downgrade).collect();
    prepared.lasting.metrics.supplies_in_force(Box::new(move |now| {
        inside.iter().filter_map(Weak::upgrade).filter_map(|service| service.look(now)).collect()
    }));
    for service in services {
        service.start(&control);
    }
    for upstream in upstreams.values() {
        upstream.start(&control);
    }
    // Names that resolve quickly are known to the first request; those that do not hold up nobody else.
    let settled = tokio::time::Instant::now() + SETTLE;
    for upstream in upstreams.values() {
        let _ = tokio::time::timeout_at(settled, upstream.settle()).await;
    }
    for service in services {
        let _ = tokio::time::timeout_at(settled, service.settle()).await;
    }
}

fn read(origin: &Origin, seen: &Seen, lasting: &Arc<Lasting>) -> Result<Prepared, Vec<Diagnostic>> {
    let Some(path) = &origin.path else {
        return Err(vec![Diagnostic::error(
            "the document in force did not come from a file, so there is none to read",
        )]);
    };
    seen.note(path);
    prepare::again(Source::read(path)?, origin, lasting)
}

/// Takes older snapshots apart once the last request has left them.
async fn clear(state: Arc<State>) {
    loop {
        tokio::time::sleep(CLEAR).await;
        state.observer.metrics().reloads.in_memory(state.world.clear());
    }
}
