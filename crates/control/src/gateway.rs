//! A running gateway: bound, serving, and brought to its end without losing an exchange.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pylon_core::units::Percent;
use pylon_net::drain::Drain;
use pylon_net::inherit::Inheritance;
use pylon_net::listen::Address;
use pylon_observe::Observer;
use pylon_observe::clock::{rfc3339, unix_now};
use pylon_observe::upgrades::Outcome;
use pylon_proxy::world::World;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::admin;
use crate::bounds::Bounds;
use crate::certificates;
use crate::explain::Told;
use crate::fixed::Fixed;
use crate::handover::{Charge, HandOverError, Heir, Launch, Successor};
use crate::history::keeper::{Keeper, Past};
use crate::listeners::Ports;
use crate::manager::Manager;
use crate::prepare::Prepared;
use crate::pulse::Pulse;
use crate::reload::{self, Reloader, Reloading, Report};
use crate::sockets::{self, Sockets};
use crate::upgrade::{self, Asked};
use crate::watch::{Seen, follow};
mod crew;

use crew::Crew;

/// How often buffers of the access log are handed over.
const TICK: Duration = Duration::from_millis(250);

/// Why the gateway did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key})")]
    Bind {
        /// The address.
        address: Address,
        /// The key of the document: `listeners[0].address`.
        key: String,
        /// What the system says.
        source: io::Error,
    },
    /// The manager of services has handed over a socket that the document knows nothing of.
    #[error("{0} was handed over by the manager of services, and the document does not listen there")]
    Unclaimed(Address),
    /// The access log cannot be opened.
    #[error("cannot log (telemetry.access_log)")]
    AccessLog(#[from] pylon_observe::access_log::OpenError),
    /// A thread or runtime cannot be made.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Gateway {
    /// The addresses that accepted at the start, in the order of the document, with the ports that were taken.
    pub listeners: Vec<Address>,
    /// Who asks for an upgrade.
    upgrades: Option<mpsc::Receiver<Asked>>,
    pulses: Vec<Arc<Pulse>>,
    /// Where the admin API listens.
    pub admin: Option<SocketAddr>,
    /// Log, metrics and the last exchanges.
    pub observer: Arc<Observer>,
    state: Arc<State>,
    /// The document's place, and what was read there last.
    document: Option<(PathBuf, Arc<Seen>)>,
    /// Who looks after the document.
    watching: Option<AbortHandle>,
    stop: watch::Sender<bool>,
    workers: Vec<std::thread::JoinHandle<()>>,
    control: Runtime,
}

/// What the admin API looks at.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) world: Arc<World>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) drains: Vec<Arc<Drain>>,
    pub(crate) bounds: Bounds,
    pub(crate) ports: Arc<Ports>,
    pub(crate) ready: AtomicBool,
    /// The name of this process in `Via`.
    pub(crate) pseudonym: String,
    pub(crate) facts: watch::Sender<Arc<Facts>>,
    /// What is known, for explanations, of a document that is tried beside the one in force.
    pub(crate) tried: Mutex<Option<Arc<Told>>>,
    /// What became of the last reload.
    pub(crate) last: watch::Sender<Arc<Report>>,
    /// What became of the last upgrade, if there was one.
    pub(crate) upgraded: Mutex<Option<upgrade::Report>>,
    pub(crate) reloader: Reloader,
    pub(crate) history: Keeper,
}

impl State {
    /// Notes what became of an upgrade.
    fn upgraded(&self, outcome: Outcome, why: Option<String>) {
        self.observer.metrics().upgrades.count(outcome);
        *self.upgraded.lock() = Some(upgrade::Report { outcome, at: rfc3339(unix_now()), why });
    }
}

/// What is known of the document in force.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) routes: Vec<admin::RouteView>,
    pub(crate) token: Option<pylon_core::secret::Secret>,
    pub(crate) since: Instant,
    /// For explanations.
    pub(crate) told: Arc<Told>,
}

impl Facts {
    /// Of a document that comes into force at `now`; `token` is what callers of the admin API must show.
    pub(crate) fn of(prepared: &Prepared, token: Option<pylon_core::secret::Secret>, now: Instant) -> Self {
        Self { routes: admin::route_views(prepared), token, since: now, told: Arc::new(Told::of(prepared)) }
    }
}

/// How a gateway is to run beside what its document says.
#[derive(Debug)]
pub struct Manner<'a> {
    /// The history, in which what serves is recorded.
    pub past: Past,
    /// Where upgrades are asked for.
    pub upgrade: Option<&'a Path>,
    /// How long the connections of a listener may take to end that a later document does not have.
    pub grace: Duration,
}

impl Default for Manner<'_> {
    fn default() -> Self {
        Self { past: Past::default(), upgrade: None, grace: Duration::from_secs(20) }
    }
}

impl Gateway {
    /// Binds everything, then serves. On any error nothing serves. No history is kept.
    pub fn start(prepared: Prepared) -> Result<Self, StartError> {
        Self::start_with(prepared, &mut Inheritance::default(), Manner::default())
    }

    /// The same where sockets may have been handed over.
    pub fn start_with(
        prepared: Prepared,
        inheritance: &mut Inheritance,
        manner: Manner<'_>,
    ) -> Result<Self, StartError> {
        let plan = &prepared.plan;
        let ports = Arc::new(Ports::open(&prepared, inheritance, manner.upgrade, manner.grace)?);
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let now = tokio::time::Instant::now().into_std();
        let observer = Observer::open(&plan.telemetry, Arc::clone(&prepared.lasting.metrics), now)?;
        Self::serve(prepared, manner.past, ports, control, Arc::new(observer))
    }

    fn serve(
        prepared: Prepared,
        past: Past,
        ports: Arc<Ports>,
        control: Runtime,
        observer: Arc<Observer>,
    ) -> Result<Self, StartError> {
        let now = tokio::time::Instant::now().into_std();
        let fixed = Fixed::new(&prepared);
        let token = prepared.plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let facts = watch::Sender::new(Arc::new(Facts::of(&prepared, token, now)));
        let last = watch::Sender::new(Arc::new(Report::of_start(&prepared, &past.because)));
        prepared.lasting.metrics.snapshot_in_force(&prepared.compiled.snapshot.hash, now);
        control.block_on(reload::start_parts(&prepared));
        let seen = Arc::new(Seen::of(&prepared, &past.because));
        let document = prepared.origin.path.clone().map(|path| (path, Arc::clone(&seen)));
        let admin = ports.with_others(sockets::admin);
        let history = control.block_on(Keeper::start(past, &prepared, admin));
        let Prepared { plan, compiled, lasting, origin, .. } = prepared;
        let world = Arc::new(World::new(compiled.snapshot));
        let bounds = Bounds::new(&plan, control.handle(), &lasting.metrics);
        let (stop, stopped) = watch::channel(false);
        let crew = Crew::start(&ports, &world, &observer, &bounds, &stopped).map_err(StartError::Thread)?;
        let Crew { drains, threads, orders, pulses } = crew;
        let ready = AtomicBool::new(true);
        let (reloader, asked) = Reloader::new();
        let pseudonym = lasting.pseudonym.clone();
        let state = Arc::new(State {
            world,
            observer,
            drains,
            bounds,
            ports,
            ready,
            pseudonym,
            facts,
            tried: Mutex::default(),
            last,
            upgraded: Mutex::default(),
            reloader,
            history,
        });
        let reloading = Reloading { state: Arc::clone(&state), lasting, origin, seen, fixed, orders };
        reloading.start(control.handle(), asked);
        let serve_others = |others: &[Sockets]| sockets::serve_others(others, control.handle(), &state);
        let upgrades = state.ports.with_others(serve_others).map_err(StartError::Thread)?;
        let observer = Arc::clone(&state.observer);
        control.spawn(tick(Arc::clone(&observer)));
        certificates::follow(control.handle(), state.ports.certificates(), observer.metrics());
        let listeners = state.ports.addresses();
        let (watching, workers) = (None, threads);
        Ok(Self { listeners, upgrades, pulses, admin, observer, state, document, watching, stop, workers, control })
    }

    /// The snapshot in force.
    pub fn world(&self) -> &Arc<World> {
        &self.state.world
    }

    /// Where tasks of the control plane run.
    pub fn control(&self) -> &tokio::runtime::Handle {
        self.control.handle()
    }

    /// Who puts another document in force.
    pub fn reloader(&self) -> &Reloader {
        &self.state.reloader
    }

    /// Lets a share of the clients meet another document beside the one in force, which is to be compiled with a fork of its
    /// [carry](pylon_core::carry::Carry::fork). Listeners, limits and the admin API stay those of the one in force. The next
    /// reload gives it up.
    pub async fn try_out(&self, prepared: Prepared, share: Percent) {
        let _alone = self.state.ports.changing.lock().await;
        reload::start_parts(&prepared).await;
        *self.state.tried.lock() = Some(Arc::new(Told::of(&prepared)));
        self.state.world.roll(prepared.compiled.snapshot, share);
    }

    /// Reloads the document whenever its files change, for as long as no other process serves.
    pub fn watch_document(&mut self) {
        if let Some((path, seen)) = &self.document {
            let watching = follow(self.control(), path.clone(), Arc::clone(seen), self.reloader().clone());
            self.watching = Some(watching);
        }
    }

    /// Who asks for an upgrade; once.
    pub fn upgrades(&mut self) -> Option<mpsc::Receiver<Asked>> {
        self.upgrades.take()
    }

    /// Feeds the watchdog of the manager of services while all workers answer.
    pub fn watch(&self, manager: &Arc<Manager>) -> Option<JoinHandle<()>> {
        manager.watch(self.control.handle(), self.pulses.clone())
    }

    /// Starts the process that is to follow this one, and gives it all sockets. This one serves on meanwhile. Where this is
    /// given up, that process is ended.
    pub fn succeed(&self, launch: Launch) -> impl Future<Output = Result<Successor, HandOverError>> + use<> {
        let state = Arc::clone(&self.state);
        async move {
            let started = succeed(&state.ports, launch).await;
            started.inspect_err(|error| state.upgraded(Outcome::Failed, Some(error.to_string())))
        }
    }

    /// Leaves the place of this process to another one that serves by now: nobody new is accepted here, and the document is
    /// the other's to look after. Where that fails, this one serves on.
    pub fn hand_over(&mut self, successor: Successor) -> Result<(), HandOverError> {
        let taken = successor.take_charge();
        taken.inspect_err(|error| self.state.upgraded(Outcome::Failed, Some(error.to_string())))?;
        self.state.ports.hand_over(&successor.taken);
        if let Some(watching) = self.watching.take() {
            watching.abort();
        }
        self.leave();
        Ok(())
    }

    /// The process before this one has left its place, or has died.
    pub fn in_charge(&self, charge: Charge) {
        self.state.ports.in_charge();
        let outcome = match charge {
            Charge::Given => Outcome::Succeeded,
            Charge::Orphaned => Outcome::Orphaned,
        };
        self.state.upgraded(outcome, None);
    }

    /// How many exchanges have ended.
    pub fn served(&self) -> u64 {
        self.observer.metrics().served()
    }

    /// Says that no new traffic is wanted, on `/readyz` and by `Connection: close` with each answer of HTTP/1.1. Whoever
    /// comes nevertheless is served.
    pub fn leave(&self) {
        self.state.ready.store(false, Ordering::Relaxed);
        for drain in &self.state.drains {
            drain.leave();
        }
    }

    /// Ends: no new connection but those that wait already, exchanges under way finish within `grace`, then everything is
    /// closed and the log is written out. Answers how many connections had to be cut.
    pub fn shut_down(mut self, grace: Duration) -> usize {
        self.leave();
        // The admin API answers to the end.
        self.state.ports.close();
        for drain in &self.state.drains {
            drain.begin();
        }
        let until = tokio::time::Instant::now().into_std() + grace;
        let drains = self.state.drains.clone();
        let cut = self.control.block_on(async move {
            let mut cut = 0;
            for drain in &drains {
                cut += drain.finished(until).await;
            }
            cut
        });
        let _ = self.stop.send(true);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a worker had failed");
            }
        }
        self.observer.close(Duration::from_secs(2));
        self.control.shutdown_timeout(Duration::from_millis(500));
        cut
    }
}

/// Starts a process with all sockets. It is ended where nobody waits for it any more.
async fn succeed(ports: &Ports, launch: Launch) -> Result<Successor, HandOverError> {
    // A reload that changes listeners comes before or after.
    let unchanged = Arc::clone(&ports.changing).lock_owned().await;
    let offers = ports.offers()?;
    let heir = Heir::default();
    let wanted = heir.wanted();
    let started = tokio::task::spawn_blocking(move || Successor::start(&launch, &offers, heir)).await;
    let successor = started.unwrap_or_else(|error| Err(io::Error::other(error).into()))?;
    wanted.keep();
    Ok(successor.keep(unchanged))
}

/// The pulse of the control plane.
async fn tick(observer: Arc<Observer>) {
    loop {
        tokio::time::sleep(TICK).await;
        observer.tick(tokio::time::Instant::now().into_std());
    }
}
