//! The workers of a gateway: one for each part of its sockets.

use std::io;
use std::sync::Arc;

use pylon_net::drain::Drain;
use pylon_observe::Observer;
use pylon_proxy::engine::Engine;
use pylon_proxy::world::World;
use tokio::sync::{mpsc, watch};

use crate::bounds::Bounds;
use crate::listeners::Ports;
use crate::pulse::Pulse;
use crate::worker::{ORDERS, Order, Worker};

/// The workers, and how they are spoken to.
pub(super) struct Crew {
    pub(super) drains: Vec<Arc<Drain>>,
    pub(super) threads: Vec<std::thread::JoinHandle<()>>,
    pub(super) orders: Vec<mpsc::Sender<Order>>,
    pub(super) pulses: Vec<Arc<Pulse>>,
}

impl Crew {
    /// Starts a worker for each part of the sockets.
    pub(super) fn start(
        ports: &Ports,
        world: &Arc<World>,
        observer: &Arc<Observer>,
        bounds: &Bounds,
        stop: &watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let mut crew = Self { drains: Vec::new(), threads: Vec::new(), orders: Vec::new(), pulses: Vec::new() };
        for (id, listeners) in ports.share_out()?.into_iter().enumerate() {
            let drain = Arc::new(Drain::new(Arc::clone(&bounds.caps), Arc::clone(&bounds.limits)));
            let engine = Engine::new(Arc::clone(world), Arc::clone(observer), Arc::clone(&bounds.caps));
            let (order, orders) = mpsc::channel(ORDERS);
            let pulse = Arc::<Pulse>::default();
            crew.drains.push(Arc::clone(&drain));
            crew.orders.push(order);
            crew.pulses.push(Arc::clone(&pulse));
            let worker = Worker {
                id,
                listeners,
                engine: Arc::new(engine),
                world: Arc::clone(world),
                drain,
                caps: Arc::clone(&bounds.caps),
                metrics: Arc::clone(observer.metrics()),
                orders,
                pulse,
                stop: stop.clone(),
            };
            crew.threads.push(worker.start()?);
        }
        Ok(crew)
    }
}
