//! A running gateway: bound, serving, and brought to its end without losing an exchange.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
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
use pylon_proxy::engine::{Engine, Told};
use pylon_proxy::world::World;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admin;
use crate::certificates;
use crate::memory;
use crate::prepare::Prepared;
use crate::worker::{Listening, Worker};

/// How long the start waits for the first answers of name servers, at most.
const SETTLE: Duration = Duration::from_millis(500);

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
    pub(crate) prepared: Facts,
}

/// What is known of the document in force.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) pseudonym: String,
    pub(crate) routes: Vec<admin::RouteView>,
    pub(crate) token: Option<pylon_core::secret::Secret>,
    pub(crate) since: Instant,
    /// Keeps the weak map alive for later documents.
    pub(crate) _carry: pylon_core::carry::Carry,
}

impl Gateway {
    /// Binds everything, then serves. On any error nothing serves.
    pub fn start(prepared: Prepared) -> Result<Self, StartError> {
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
        let observer = Observer::open(&plan.telemetry, Arc::clone(&prepared.metrics), now)?;
        let observer = Arc::new(observer);
        let caps = Arc::new(caps(plan, files));
        Self::serve(prepared, bound, admin_socket, control, observer, caps)
    }

    fn serve(
        prepared: Prepared,
        mut bound: Vec<Bound>,
        admin_socket: Option<TcpListener>,
        control: Runtime,
        observer: Arc<Observer>,
        caps: Arc<Caps>,
    ) -> Result<Self, StartError> {
        let listeners = bound.iter().map(|bound| bound.address.clone()).collect();
        let files = bound.iter_mut().filter_map(|bound| bound.file.take()).collect();
        let admin = admin_socket.as_ref().map(TcpListener::local_addr).transpose().map_err(StartError::Thread)?;
        let now = tokio::time::Instant::now().into_std();
        let routes = admin::route_views(&prepared);
        let Prepared { plan, compiled, carry, metrics, pseudonym, .. } = prepared;
        metrics.snapshot_in_force(&compiled.snapshot.hash, now);
        for upstream in compiled.snapshot.upstreams.values() {
            upstream.start(control.handle());
        }
        // Names that resolve quickly are known to the first request; those that do not hold up nobody else.
        let settled = tokio::time::Instant::now() + SETTLE;
        control.block_on(async {
            for upstream in compiled.snapshot.upstreams.values() {
                let _ = tokio::time::timeout_at(settled, upstream.settle()).await;
            }
        });
        let world = Arc::new(World::new(compiled.snapshot));
        let told =
            Told { request_headers: plan.limits_spec.request_headers, header_timeout: plan.limits_spec.header_timeout };
        let (stop, stopped) = watch::channel(false);
        let (mut drains, mut workers) = (Vec::new(), Vec::new());
        let doors: Vec<_> = bound.iter().map(|_| Arc::<Door>::default()).collect();
        for (id, listeners) in share_out(bound, &doors, &plan).into_iter().enumerate() {
            let drain = Arc::new(Drain::new(Arc::clone(&caps)));
            drains.push(Arc::clone(&drain));
            let engine = Arc::new(Engine::new(Arc::clone(&world), Arc::clone(&observer), told, Arc::clone(&caps)));
            let worker = Worker {
                id,
                listeners,
                engine,
                world: Arc::clone(&world),
                limits: plan.limits,
                drain,
                caps: Arc::clone(&caps),
                metrics: Arc::clone(&metrics),
                stop: stopped.clone(),
            };
            workers.push(worker.start().map_err(StartError::Thread)?);
        }
        let token = plan.admin.and_then(|admin| admin.token);
        let prepared = Facts { pseudonym, routes, token, since: now, _carry: carry };
        metrics.connections_at_most(caps.most());
        memory::follow(control.handle(), plan.limits_spec.memory, &caps, &metrics);
        let ready = AtomicBool::new(true);
        let state = Arc::new(State { world, observer: Arc::clone(&observer), drains, caps, ready, prepared });
        if let Some(socket) = admin_socket {
            control.spawn(admin::serve(socket, Arc::clone(&state)));
        }
        control.spawn(tick(Arc::clone(&observer)));
        certificates::follow(control.handle(), &plan.listeners, observer.metrics());
        Ok(Self { listeners, files, doors, admin, observer, state, stop, workers, control })
    }

    /// The snapshot in force.
    pub fn world(&self) -> &Arc<World> {
        &self.state.world
    }

    /// Where tasks of the control plane run.
    pub fn control(&self) -> &tokio::runtime::Handle {
        self.control.handle()
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
