//! One data-plane worker: a thread with a runtime, a timer wheel, its listening sockets and its sweep.

use std::sync::Arc;
use std::time::Duration;

use pylon_net::accept::accept;
use pylon_net::caps::Caps;
use pylon_net::door::Door;
use pylon_net::drain::Drain;
use pylon_net::listen::Listener;
use pylon_net::terms::Desk;
use pylon_net::timer::{self, Alarm};
use pylon_observe::metrics::Metrics;
use pylon_observe::outcomes::Evicted;
use pylon_proxy::engine::Engine;
use pylon_proxy::world::World;
use tokio::sync::{mpsc, oneshot, watch};

use crate::pulse::Pulse;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// A worker's own socket of a listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: Listener,
    pub(crate) door: Arc<Door>,
    pub(crate) desk: Arc<Desk>,
}

/// What the control plane asks of a worker that runs.
#[derive(Debug)]
pub(crate) enum Order {
    /// Serve the document in force, accept by these sockets, too, and answer that it is so.
    Renew(Vec<Listening>, oneshot::Sender<()>),
}

/// How many orders may wait for a worker.
pub(crate) const ORDERS: usize = 16;

/// What a worker is started with.
pub(crate) struct Worker {
    pub(crate) id: usize,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) world: Arc<World>,
    pub(crate) drain: Arc<Drain>,
    pub(crate) caps: Arc<Caps>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) pulse: Arc<Pulse>,
    /// Turns true when the worker is to end.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Worker {
    /// Starts the thread. It ends when it is told to stop.
    pub(crate) fn start(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let alarm = {
            let _watched = runtime.enter();
            Alarm::new()?
        };
        std::thread::Builder::new().name(format!("worker-{}", self.id)).spawn(move || {
            pylon_core::worker::enter(self.id);
            runtime.block_on(self.run(alarm));
        })
    }

    async fn run(mut self, alarm: Alarm) {
        tokio::spawn(timer::run(alarm));
        tokio::spawn(sweep(Arc::clone(&self.world)));
        tokio::spawn(shed(Arc::clone(&self.drain), Arc::clone(&self.caps), Arc::clone(&self.metrics)));
        let floor = Floor { engine: self.engine, drain: self.drain, metrics: self.metrics };
        self.listeners.into_iter().for_each(|listening| floor.listen(listening));
        let pulse = self.pulse;
        tokio::spawn(async move { pulse.beat().await });
        tokio::spawn(floor.obey(self.orders));
        // An error means that the gateway is gone, which is a reason to stop as well.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

/// What a worker serves with.
struct Floor {
    engine: Arc<Engine>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
}

impl Floor {
    /// Accepts by a socket until its door is shut.
    fn listen(&self, listening: Listening) {
        let Listening { socket, door, desk } = listening;
        let (engine, drain, metrics) = (Arc::clone(&self.engine), Arc::clone(&self.drain), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            if let Err(error) = accept(socket, door, desk, engine, drain, metrics).await {
                tracing::error!(%error, "a listener ended");
            }
        });
    }

    /// Does what the control plane asks for.
    async fn obey(self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Renew(listeners, done) => {
                    self.engine.renew();
                    for listening in listeners {
                        self.listen(listening);
                    }
                    let _ = done.send(());
                }
            }
        }
    }
}

/// Closes idle connections of clients while memory is short.
async fn shed(drain: Arc<Drain>, caps: Arc<Caps>, metrics: Arc<Metrics>) {
    loop {
        timer::sleep(SWEEP).await;
        if caps.is_shedding() {
            metrics.evicted(Evicted::Memory, drain.clear());
        }
    }
}

/// Lets go of upstream connections that are too old, idle for too long, or closed by the other side.
async fn sweep(world: Arc<World>) {
    loop {
        timer::sleep(SWEEP).await;
        let now = tokio::time::Instant::now().into_std();
        for snapshot in world.stage().all() {
            for upstream in snapshot.upstreams.values() {
                upstream.sweep(now);
            }
        }
    }
}
