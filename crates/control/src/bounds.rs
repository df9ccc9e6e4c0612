//! What clients may take of the process: its limits, its caps and its memory, set anew by each document in force.

use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use pylon_config::plan::Plan;
use pylon_core::units::ByteSize;
use pylon_net::caps::Caps;
use pylon_net::files;
use pylon_net::limits::InForce;
use pylon_observe::metrics::Metrics;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::memory;

/// The bounds of all clients.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) caps: Arc<Caps>,
    pub(crate) limits: Arc<InForce>,
    memory: Mutex<Memory>,
    metrics: Arc<Metrics>,
    control: Handle,
}

/// Who looks after memory.
#[derive(Debug)]
struct Memory {
    written: Option<ByteSize>,
    looking: Option<AbortHandle>,
}

impl Bounds {
    /// Those of the first document.
    pub(crate) fn new(plan: &Plan, control: &Handle, metrics: &Arc<Metrics>) -> Self {
        let (caps, written) = (Arc::new(Caps::default()), plan.limits_spec.memory);
        let looking = memory::follow(control, written, &caps, metrics);
        let bounds = Self {
            caps,
            limits: Arc::new(InForce::new(plan.limits)),
            memory: Mutex::new(Memory { written, looking }),
            metrics: Arc::clone(metrics),
            control: control.clone(),
        };
        bounds.set(plan);
        bounds
    }

    /// Those of another document.
    pub(crate) fn set(&self, plan: &Plan) {
        let spec = &plan.limits_spec;
        let most = spec.connections.map_or_else(|| files::connections(files::raise()), NonZeroUsize::get);
        self.caps.set(most, spec.connections_per_address.map(NonZeroUsize::get), plan.proxies.clone());
        self.metrics.connections_at_most(most);
        self.limits.set(plan.limits);
        let mut memory = self.memory.lock();
        if memory.written != spec.memory {
            if let Some(looking) = memory.looking.take() {
                looking.abort();
            }
            let looking = memory::follow(&self.control, spec.memory, &self.caps, &self.metrics);
            *memory = Memory { written: spec.memory, looking };
        }
    }
}
