//! A running gateway: bound, serving, and brought to its end without losing an exchange.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pylon_config::plan::Plan;
use pylon_net::caps::Caps;
use pylon_net::drain::Drain;
use pylon_net::files;
use pylon_net::inherit::Inheritance;
use pylon_net::listen::Address;
use pylon_observe::Observer;
use pylon_proxy::engine::Engine;
use pylon_proxy::world::World;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::admin;
use crate::certificates;
use crate::explain::Told;
use crate::fixed::Fixed;
use crate::handover::{HandOverError, Launch, Successor};
use crate::history::keeper::{Keeper, Past};
use crate::manager::Manager;
use crate::memory;
use crate::prepare::Prepared;
use crate::pulse::Pulse;
use crate::reload::{self, Reloader, Reloading, Report};
use crate::sockets::{self, Sockets};
use crate::upgrade::Asked;
use crate::watch::{Seen, follow};
use crate::worker::{Listening, ORDERS, Worker};

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
    /// The addresses that accept, in the order of the document, with the ports that were taken.
    pub listeners: Vec<Address>,
    /// Those of the listeners first, in the order of the document.
    sockets: Vec<Sockets>,
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
    pub(crate) caps: Arc<Caps>,
    pub(crate) ready: AtomicBool,
    /// The name of this process in `Via`.
    pub(crate) pseudonym: String,
    pub(crate) facts: watch::Sender<Arc<Facts>>,
    /// What became of the last reload.
    pub(crate) last: watch::Sender<Arc<Report>>,
    pub(crate) reloader: Reloader,
    pub(crate) history: Keeper,
}

/// What is known of the document in force.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) routes: Vec<admin::RouteView>,
    pub(crate) token: Option<pylon_core::secret::Secret>,
    pub(crate) since: Instant,
    /// For explanations.
    pub(crate) told: Told,
}

impl Facts {
    /// Of a document that comes into force at `now`; `token` is what callers of the admin API must show.
    pub(crate) fn of(prepared: &Prepared, token: Option<pylon_core::secret::Secret>, now: Instant) -> Self {
        Self { routes: admin::route_views(prepared), token, since: now, told: Told::of(prepared) }
    }
}

impl Gateway {
    /// Binds everything, then serves. On any error nothing serves. No history is kept.
    pub fn start(prepared: Prepared) -> Result<Self, StartError> {
        Self::start_with(prepared, Past::default(), &mut Inheritance::default(), None)
    }

    /// The same with a history, in which what serves is recorded, where sockets may have been handed over, and where upgrades
    /// are asked for at `upgrade`.
    pub fn start_with(
        prepared: Prepared,
        past: Past,
        inheritance: &mut Inheritance,
        upgrade: Option<&Path>,
    ) -> Result<Self, StartError> {
        let plan = &prepared.plan;
        let sockets = sockets::open_all(plan, inheritance, upgrade)?;
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let now = tokio::time::Instant::now().into_std();
        let files = files::raise();
        let observer = Observer::open(&plan.telemetry, Arc::clone(&prepared.lasting.metrics), now)?;
        let observer = Arc::new(observer);
        let caps = Arc::new(caps(plan, files));
        Self::serve(prepared, past, sockets, control, observer, caps)
    }

    fn serve(
        prepared: Prepared,
        past: Past,
        sockets: Vec<Sockets>,
        control: Runtime,
        observer: Arc<Observer>,
        caps: Arc<Caps>,
    ) -> Result<Self, StartError> {
        let now = tokio::time::Instant::now().into_std();
        let fixed = Fixed::new(&prepared);
        let token = prepared.plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let facts = watch::Sender::new(Arc::new(Facts::of(&prepared, token, now)));
        let last = watch::Sender::new(Arc::new(Report::of_start(&prepared, &past.because)));
        prepared.lasting.metrics.snapshot_in_force(&prepared.compiled.snapshot.hash, now);
        control.block_on(reload::start_upstreams(&prepared));
        let seen = Arc::new(Seen::of(&prepared, &past.because));
        let document = prepared.origin.path.clone().map(|path| (path, Arc::clone(&seen)));
        let admin = sockets::admin(&sockets);
        let history = control.block_on(Keeper::start(past, &prepared, admin));
        let Prepared { plan, compiled, lasting, origin, .. } = prepared;
        let metrics = &lasting.metrics;
        let world = Arc::new(World::new(compiled.snapshot));
        let (stop, stopped) = watch::channel(false);
        let (mut drains, mut workers, mut orders) = (Vec::new(), Vec::new(), Vec::new());
        let pulses: Vec<_> = (0..plan.workers).map(|_| Arc::<Pulse>::default()).collect();
        for (id, pulse) in pulses.iter().enumerate() {
            let listeners = share_out(&sockets, &plan, id).map_err(StartError::Thread)?;
            let drain = Arc::new(Drain::new(Arc::clone(&caps)));
            drains.push(Arc::clone(&drain));
            let engine = Arc::new(Engine::new(Arc::clone(&world), Arc::clone(&observer), Arc::clone(&caps)));
            let (order, ordered) = mpsc::channel(ORDERS);
            orders.push(order);
            let worker = Worker {
                id,
                listeners,
                engine,
                world: Arc::clone(&world),
                limits: plan.limits,
                drain,
                caps: Arc::clone(&caps),
                metrics: Arc::clone(metrics),
                orders: ordered,
                pulse: Arc::clone(pulse),
                stop: stopped.clone(),
            };
            workers.push(worker.start().map_err(StartError::Thread)?);
        }
        metrics.connections_at_most(caps.most());
        memory::follow(control.handle(), plan.limits_spec.memory, &caps, metrics);
        let ready = AtomicBool::new(true);
        let (reloader, asked) = Reloader::new();
        let pseudonym = lasting.pseudonym.clone();
        let state = Arc::new(State { world, observer, drains, caps, ready, pseudonym, facts, last, reloader, history });
        let reloading = Reloading { state: Arc::clone(&state), lasting, origin, seen, fixed, orders };
        reloading.start(control.handle(), asked);
        let upgrades = sockets::serve_others(&sockets, control.handle(), &state).map_err(StartError::Thread)?;
        let observer = Arc::clone(&state.observer);
        control.spawn(tick(Arc::clone(&observer)));
        certificates::follow(control.handle(), &plan.listeners, observer.metrics());
        let listeners = sockets.iter().filter(|it| it.are_for_traffic()).map(|it| it.address.clone()).collect();
        Ok(Self { listeners, sockets, upgrades, pulses, admin, observer, state, document, stop, workers, control })
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

    /// Reloads the document whenever its files change.
    pub fn watch_document(&self) {
        if let Some((path, seen)) = &self.document {
            follow(self.control(), path.clone(), Arc::clone(seen), self.reloader().clone());
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

    /// Starts the process that is to follow this one, and gives it all sockets. This one serves on meanwhile.
    pub fn succeed(&self, launch: Launch) -> impl Future<Output = Result<Successor, HandOverError>> + use<> {
        let offers: io::Result<Vec<_>> = self.sockets.iter().map(Sockets::offer).collect();
        async move {
            let offers = offers?;
            let started = tokio::task::spawn_blocking(move || Successor::start(&launch, &offers));
            started.await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
        }
    }

    /// Leaves the place of this process to another one that serves by now: nobody new is accepted here. Where that fails,
    /// this one serves on.
    pub fn hand_over(&mut self, mut successor: Successor) -> Result<(), HandOverError> {
        successor.take_charge()?;
        for (index, sockets) in self.sockets.iter_mut().enumerate() {
            if successor.taken.contains(&index) { sockets.leave() } else { sockets.close() }
        }
        self.leave();
        Ok(())
    }

    /// The process before this one has left its place.
    pub fn in_charge(&mut self) {
        self.sockets.iter_mut().for_each(Sockets::in_charge);
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
        self.sockets.iter_mut().filter(|sockets| sockets.are_for_traffic()).for_each(Sockets::close);
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

/// How many connections of clients there may be, where so many files may be open.
fn caps(plan: &Plan, files: Option<u64>) -> Caps {
    let limits = &plan.limits_spec;
    let most = limits.connections.map_or_else(|| files::connections(files), NonZeroUsize::get);
    Caps::new(most, limits.connections_per_address.map(NonZeroUsize::get), plan.proxies.clone())
}

/// The sockets that worker `id` is to serve, each with what is spoken there.
fn share_out(sockets: &[Sockets], plan: &Plan, id: usize) -> io::Result<Vec<Listening>> {
    let mut own = Vec::new();
    for (sockets, listener) in sockets.iter().zip(&plan.listeners) {
        for socket in sockets.of_worker(id, plan.workers)? {
            own.push(Listening { socket, door: Arc::clone(&sockets.door), front: listener.front.clone() });
        }
    }
    Ok(own)
}

/// The pulse of the control plane.
async fn tick(observer: Arc<Observer>) {
    loop {
        tokio::time::sleep(TICK).await;
        observer.tick(tokio::time::Instant::now().into_std());
    }
}
