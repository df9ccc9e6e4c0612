//! A document compiled: routes, upstreams and settings. Immutable, complete, swapped whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pylon_core::names::{RouteId, UpstreamName};
use pylon_observe::series::RouteSeries;
use pylon_policy::pipeline::Pipeline;
use pylon_policy::policy::Service;
use pylon_route::rewrite::Rewrite;
use pylon_route::table::Table;
use pylon_upstream::upstream::Upstream;

use crate::action::Action;
use crate::fallback::Fallback;
use crate::forwarding::TrustedProxies;
use crate::mirror::Mirror;
use crate::removal::Streams;
use crate::tcp::Tcp;
use crate::websocket::WebSocket;

/// All that a request can meet.
#[derive(Debug)]
pub struct Snapshot {
    /// Finds the route; its indices are those of `routes`.
    pub table: Table,
    /// The routes, in the order of the document.
    pub routes: Vec<Route>,
    /// The last route: what no other takes ends here, so that policies and logs see every request.
    pub nowhere: Route,
    /// What holds for every request.
    pub settings: Settings,
    /// The upstreams by name.
    pub upstreams: BTreeMap<UpstreamName, Arc<Upstream>>,
    /// What policies have done off the workers.
    pub services: Vec<Arc<dyn Service>>,
    /// Where connections of listeners go that speak no HTTP, by the ids of those.
    pub tcp: HashMap<Arc<str>, Arc<Tcp>>,
    /// The hash of the document's content, in hexadecimal.
    pub hash: String,
}

impl Snapshot {
    /// The route at `index`, or the last one.
    pub(crate) fn route(&self, index: Option<usize>) -> &Route {
        index.and_then(|index| self.routes.get(index)).unwrap_or(&self.nowhere)
    }
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// The stable id.
    pub id: RouteId,
    /// Its metrics.
    pub series: Arc<RouteSeries>,
    /// The policies that its requests meet.
    pub pipeline: Pipeline,
    /// What becomes of host, path and query.
    pub rewrite: Option<Rewrite>,
    /// How the answer is obtained.
    pub action: Action,
    /// What stands in for an answer of the action that fails.
    pub fallback: Option<Box<Fallback>>,
    /// Who gets copies of its requests.
    pub mirror: Option<Mirror>,
    /// What holds for WebSockets, where it lets them pass.
    pub websocket: Option<WebSocket>,
    /// Its streams, where they end with it.
    pub streams: Option<Arc<Streams>>,
}

/// What holds for every request.
#[derive(Debug)]
pub struct Settings {
    /// Peers whose forwarding fields count.
    pub trusted_proxies: TrustedProxies,
    /// The name of this process in `Via`, by which it knows its own requests again.
    pub pseudonym: String,
    /// Whether refusals carry their code in `Pylon-Reason`.
    pub reason_header: bool,
}
