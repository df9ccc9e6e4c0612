//! A running gateway: bound, serving, and brought to its end without losing an exchange.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pylon_config::plan::Plan;
use pylon_net::caps::Caps;
use pylon_net::door::Door;
use pylon_net::drain::Drain;
use pylon_net::files;
use pylon_net::listen::{self, Address, Bound, SocketFile};
use pylon_observe::Observer;
use pylon_proxy::engine::Engine;
use pylon_proxy::world::World;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::certificates;
use crate::explain::Told;
use crate::fixed::Fixed;
use crate::history::keeper::{Keeper, Past};
use crate::memory;
use crate::prepare::Prepared;
use crate::reload::{self, Reloader, Reloading, Report};
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
    /// The files of Unix sockets.
    files: Vec<SocketFile>,
    /// Those of the listeners.
    doors: Vec<Arc<Door>>,
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
        Self::start_with(prepared, Past::default())
    }

    /// The same with a history, in which what serves is recorded.
    pub fn start_with(prepared: Prepared, past: Past) -> Result<Self, StartError> {
        let plan = &prepared.plan;
        let mut bound = Vec::new();
        for (index, listener) in plan.listeners.iter().enumerate() {
            let sockets = listen::bind(&listener.address, listener.mode, plan.workers);
            bound.push(sockets.map_err(|source| StartError::Bind {
                address: listener.address.clone(),
                key: format!("listeners[{index}].address"),
                source,
            })?);
        }
        let admin_socket = plan.admin.as_ref().map(|admin| {
            listen::bind_tcp(admin.address, 1).map_err(|source| StartError::Bind {
                address: Address::Tcp(admin.address),
                key: "admin.address".to_owned(),
                source,
            })
        });
        let admin_socket = admin_socket.transpose()?.and_then(|mut sockets| sockets.pop());
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
        Self::serve(prepared, past, (bound, admin_socket), control, observer, caps)
    }

    fn serve(
        prepared: Prepared,
        past: Past,
        (mut bound, admin_socket): (Vec<Bound>, Option<TcpListener>),
        control: Runtime,
        observer: Arc<Observer>,
        caps: Arc<Caps>,
    ) -> Result<Self, StartError> {
        let listeners = bound.iter().map(|bound| bound.address.clone()).collect();
        let files = bound.iter_mut().filter_map(|bound| bound.file.take()).collect();
        let admin = admin_socket.as_ref().map(TcpListener::local_addr).transpose().map_err(StartError::Thread)?;
        let now = tokio::time::Instant::now().into_std();
        let fixed = Fixed::new(&prepared);
        let token = prepared.plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let facts = watch::Sender::new(Arc::new(Facts::of(&prepared, token, now)));
        let last = watch::Sender::new(Arc::new(Report::of_start(&prepared, &past.because)));
        prepared.lasting.metrics.snapshot_in_force(&prepared.compiled.snapshot.hash, now);
        control.block_on(reload::start_upstreams(&prepared));
        let seen = Arc::new(Seen::of(&prepared, &past.because));
        let document = prepared.origin.path.clone().map(|path| (path, Arc::clone(&seen)));
        let history = control.block_on(Keeper::start(past, &prepared, admin));
        let Prepared { plan, compiled, lasting, origin, .. } = prepared;
        let metrics = &lasting.metrics;
        let world = Arc::new(World::new(compiled.snapshot));
        let (stop, stopped) = watch::channel(false);
        let (mut drains, mut workers, mut orders) = (Vec::new(), Vec::new(), Vec::new());
        let doors: Vec<_> = bound.iter().map(|_| Arc::<Door>::default()).collect();
        for (id, listeners) in share_out(bound, &doors, &plan).into_iter().enumerate() {
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
        if let Some(socket) = admin_socket {
            control.spawn(admin::serve(socket, Arc::clone(&state)));
        }
        let observer = Arc::clone(&state.observer);
        control.spawn(tick(Arc::clone(&observer)));
        certificates::follow(control.handle(), &plan.listeners, observer.metrics());
        Ok(Self { listeners, files, doors, admin, observer, state, document, stop, workers, control })
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
    pub fn watch(&self) {
        if let Some((path, seen)) = &self.document {
            follow(self.control(), path.clone(), Arc::clone(seen), self.reloader().clone());
        }
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

    /// Ends: no new connection but those that wait already, exchanges under way finish within `grace`, then everything is closed and the log is
    /// written out. Answers how many connections had to be cut.
    pub fn shut_down(mut self, grace: Duration) -> usize {
        self.leave();
        // Before the doors, so that nobody comes to a Unix socket any more.
        self.files.clear();
        for door in &self.doors {
            door.close();
        }
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

/// One socket of each listener for each worker.
fn share_out(bound: Vec<Bound>, doors: &[Arc<Door>], plan: &Plan) -> Vec<Vec<Listening>> {
    let mut of_workers: Vec<Vec<_>> = (0..plan.workers).map(|_| Vec::new()).collect();
    for ((bound, door), listener) in bound.into_iter().zip(doors).zip(&plan.listeners) {
        for (own, socket) in of_workers.iter_mut().zip(bound.sockets) {
            own.push(Listening { socket, door: Arc::clone(door), front: listener.front.clone() });
        }
    }
    of_workers
}

/// The pulse of the control plane.
async fn tick(observer: Arc<Observer>) {
    loop {
        tokio::time::sleep(TICK).await;
        observer.tick(tokio::time::Instant::now().into_std());
    }
}
