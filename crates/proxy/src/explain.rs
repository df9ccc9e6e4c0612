//! Why a request meets the route that it meets, by the very functions that serve it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use pylon_core::Request;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;
use pylon_route::explain::Explanation;
use pylon_upstream::upstream::Upstream;

use crate::action::Action;
use crate::snapshot::Snapshot;
use crate::{head, serve};

/// What would become of a request, and why.
#[derive(Debug)]
pub struct Explained {
    /// What it meets.
    pub met: Met,
    /// The routes that were considered, unless the head itself is refused.
    pub explanation: Option<Explanation>,
}

/// What a request meets, without the reasons.
#[derive(Debug)]
pub struct Met {
    /// The exchange as it would begin.
    pub exchange: Box<Exchange>,
    /// The request as policies would see it.
    pub request: Request,
    /// The index of the route that takes it; none for the last route.
    pub route: Option<usize>,
    /// Why it would be refused before any policy.
    pub refusal: Option<Rejection>,
    /// Whether its head can be read at all.
    read: bool,
}

/// Takes a request that came by `connection` as far as the first policy.
pub fn meet(world: &Snapshot, mut request: Request, connection: Arc<Connection>) -> Met {
    let now = tokio::time::Instant::now().into_std();
    let id = || HeaderValue::from_static("explained");
    let (mut exchange, read) =
        head::read(&mut request, connection, now, &world.settings, &HeaderValue::from_static("1.1 pylon"), id);
    if let Err(no) = read {
        return Met { exchange, request, route: None, refusal: Some(no), read: false };
    }
    let (route, found) = serve::find(world, &request, &exchange);
    exchange.priority = world.route(route).pipeline.priority(&request, &exchange);
    let refusal = found.and_then(|found| serve::rewrite(world.route(route), found, &mut exchange)).err();
    Met { exchange, request, route, refusal, read: true }
}

impl Met {
    /// The upstream that the request would be sent to, if its policies let it pass; none where the route asks no upstream,
    /// or chooses by lot.
    pub fn upstream<'w>(&self, world: &'w Snapshot) -> Option<&'w Arc<Upstream>> {
        match &world.route(self.route).action {
            Action::Forward(forward) => Some(&forward.upstream),
            Action::Split(split) => split.settled(&self.request, &self.exchange).map(|forward| &forward.upstream),
            _ => None,
        }
    }
}

/// Takes a request from `peer` as far as the first policy, with the routes that were considered.
pub fn explain(world: &Snapshot, request: Request, peer: SocketAddr, scheme: Scheme) -> Explained {
    let now = tokio::time::Instant::now().into_std();
    let met = meet(world, request, Arc::new(Connection::new(peer, peer, scheme, now)));
    let explanation =
        met.read.then(|| serve::with_head(world, &met.request, &met.exchange, |head| world.table.explain(&head)));
    Explained { met, explanation }
}
