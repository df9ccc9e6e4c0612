//! How much may be under way at an upstream: a limit for all workers, written or found out, and a short queue before it.
//!
//! A permit is taken once for each exchange, before an endpoint is chosen, and held until the last byte of the answer or until
//! the client is gone; attempts after the first need no other. A WebSocket gives it back at the switch: it would hold it
//! for hours, and idles most of the time.

use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::names::UpstreamName;
use pylon_core::priority::Priority;
use pylon_core::spec::{FieldPath, SpecError};
use pylon_core::worker;
use pylon_net::timer::{sleep, timeout_at};
use pylon_observe::insight::Crowd;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use self::gradient::Window;
use self::limiter::{Limiter, Settings, Turn};
use self::line::Ticket;
use self::permit::{Gate, Permit, caller};
use crate::error::Shed;
use crate::spec::{Speaks, UpstreamSpec};
use crate::upstream::Building;
use crate::view::ConcurrencyView;

mod gradient;
mod limiter;
mod line;
pub(crate) mod permit;
mod shares;
pub mod spec;
mod word;

#[cfg(test)]
mod simulation;

/// How often the limit is found out anew.
const TICK: Duration = Duration::from_millis(100);

/// The limit of an upstream as one document says it.
#[derive(Debug)]
pub(crate) struct Limited {
    settings: Settings,
    concurrency: Arc<Concurrency>,
}

/// What holds of the limit for the process, with what each worker has of it. It outlives documents: what is under way stays
/// so, and what was found out is still true.
#[derive(Debug)]
struct Concurrency {
    limiter: Arc<Limiter>,
    gates: Box<[Arc<Gate>]>,
    /// Finds out the limit, where it is not written.
    task: Mutex<Option<AbortHandle>>,
    /// Whose keys nobody outside knows, so that nobody can choose to share a bucket with somebody else.
    hasher: RandomState,
}

/// Somebody who has to wait.
pub(crate) type Waiting = Pin<Box<dyn Future<Output = Result<Permit, Shed>> + Send>>;

impl Limited {
    /// Of the upstream of this name, where there is a limit. Paths of errors begin at the upstream.
    pub(crate) fn compile(
        name: &UpstreamName,
        spec: &UpstreamSpec,
        cx: &Building<'_>,
    ) -> Result<Option<Self>, Vec<SpecError>> {
        let Some(written) = &spec.concurrency else { return Ok(None) };
        let at = FieldPath::root().key("concurrency");
        if spec.speaks() == Some(Speaks::Bytes) {
            let error = SpecError::new(at, "connections to `tcp://` endpoints have no requests to count");
            return Err(vec![error.help("leave `concurrency` out; `pool.max_connections` bounds connections")]);
        }
        let settings =
            written.compile().map_err(|errors| errors.into_iter().map(|error| error.below(&at)).collect::<Vec<_>>())?;
        let key = format!("concurrency of {name}");
        let concurrency = cx.carry.own().keep(key, || Concurrency::new(&settings));
        Ok(Some(Self { settings, concurrency }))
    }

    /// The document is in force: its limit holds from now on.
    pub(crate) fn start(&self, handle: &Handle) {
        self.concurrency.limiter.set(&self.settings, now());
        let mut task = self.concurrency.task.lock();
        if self.settings.bounds.is_none() {
            task.take().into_iter().for_each(|task| task.abort());
        } else if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(handle.spawn(find_out(Arc::downgrade(&self.concurrency))).abort_handle());
        }
    }

    /// A permit at once, or the way to one. None on a thread that is no part of this, which does not happen.
    pub(crate) fn admit(
        &self,
        class: Priority,
        client: IpAddr,
        now: Instant,
        deadline: Instant,
    ) -> Option<Result<Permit, Waiting>> {
        let Concurrency { limiter, gates, hasher, .. } = &*self.concurrency;
        let last = gates.len().saturating_sub(1);
        let gate = gates.get(worker::current().map_or(last, |id| id.min(last)))?;
        if limiter.enter(class, now) {
            return Some(Ok(Permit::new(gate)));
        }
        let caller = hasher.hash_one(caller(client));
        Some(Err(Box::pin(wait(Arc::clone(gate), class, caller, now, deadline))))
    }

    /// How crowded it is, for the metrics.
    pub(crate) fn crowd(&self) -> Crowd {
        let limiter = &self.concurrency.limiter;
        let (waiting, shed) = limiter.by_class();
        let (limit, under_way) = (limiter.limit().into(), limiter.under_way().into());
        Crowd { limit, under_way, waiting: waiting.into_iter().sum::<usize>() as u64, shed }
    }

    /// What the admin API shows.
    pub(crate) fn view(&self) -> ConcurrencyView {
        let limiter = &self.concurrency.limiter;
        let (waiting, shed) = limiter.by_class();
        ConcurrencyView {
            limit: limiter.limit(),
            caps: Priority::NAMES.into_iter().zip(Priority::ALL.map(|class| limiter.cap(class))).collect(),
            adaptive: limiter.is_adaptive(),
            idle_latency_ms: limiter.baseline().map(|seconds| (seconds * 1e5).round() / 1e2),
            in_flight: limiter.under_way(),
            queued: Priority::NAMES.into_iter().zip(waiting).collect(),
            shed: Priority::NAMES.into_iter().zip(shed).collect(),
        }
    }
}

impl Concurrency {
    fn new(settings: &Settings) -> Self {
        let limiter = Arc::new(Limiter::new(settings, now()));
        let gates = (0..=worker::count()).map(|_| Arc::new(Gate::new(Arc::clone(&limiter)))).collect();
        Self { limiter, gates, task: Mutex::default(), hasher: RandomState::new() }
    }

    /// What all workers have heard since the last time.
    fn heard(&self) -> Window {
        let mut window = Window::default();
        for gate in &self.gates {
            let heard = gate.take();
            window.samples.extend(heard.samples);
            window.peak = window.peak.max(heard.peak);
            window.drops = window.drops.saturating_add(heard.drops);
        }
        window
    }
}

impl Drop for Concurrency {
    fn drop(&mut self) {
        self.task.get_mut().take().into_iter().for_each(|task| task.abort());
    }
}

/// Finds out the limit for as long as anybody holds it.
async fn find_out(concurrency: Weak<Concurrency>) {
    loop {
        sleep(TICK).await;
        let Some(concurrency) = concurrency.upgrade() else { return };
        let mut window = concurrency.heard();
        concurrency.limiter.tick(now(), &mut window);
    }
}

/// Waits for a turn. Whoever drops this waits no longer.
async fn wait(gate: Arc<Gate>, class: Priority, caller: u64, now: Instant, deadline: Instant) -> Result<Permit, Shed> {
    let (ticket, until, told) = match gate.limiter.queue(&gate, class, caller, now, Some(deadline)) {
        Turn::Now(permit) => return Ok(permit),
        Turn::Shed(why) => return Err(why),
        Turn::Wait(ticket, until, told) => (ticket, until, told),
    };
    let mut place = Place { gate: &gate, class, ticket: Some(ticket), late: false };
    match timeout_at(Some(until), told).await {
        Ok(Ok(verdict)) => {
            place.ticket = None;
            verdict
        }
        Ok(Err(_)) | Err(_) => {
            place.late = true;
            Err(Shed::Late)
        }
    }
}

/// A place in the queue; left when dropped.
struct Place<'a> {
    gate: &'a Gate,
    class: Priority,
    /// None once the turn has come.
    ticket: Option<Ticket>,
    late: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.gate.limiter.give_up(self.class, ticket, self.late);
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
