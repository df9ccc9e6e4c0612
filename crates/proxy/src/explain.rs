//! Why a request meets the route that it meets, by the very functions that serve it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use pylon_core::Request;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::Exchange;
use pylon_core::rejection::Rejection;
use pylon_route::explain::Explanation;

use crate::snapshot::Snapshot;
use crate::{head, serve};

/// What would become of a request.
#[derive(Debug)]
pub struct Explained {
    /// The exchange as it would begin: normal path, host, client, what would be sent.
    pub exchange: Box<Exchange>,
    /// The request as policies would see it.
    pub request: Request,
    /// The routes that were considered, unless the head itself is refused.
    pub explanation: Option<Explanation>,
    /// The index of the route that takes it; none for the last route.
    pub route: Option<usize>,
    /// Why it would be refused before any policy.
    pub refusal: Option<Rejection>,
}

/// Takes a request from `peer` as far as the first policy.
pub fn explain(world: &Snapshot, mut request: Request, peer: SocketAddr, scheme: Scheme) -> Explained {
    let now = tokio::time::Instant::now().into_std();
    let connection = Arc::new(Connection::new(peer, peer, scheme, now));
    let id = || HeaderValue::from_static("explained");
    let (mut exchange, read) =
        head::read(&mut request, connection, now, &world.settings, &HeaderValue::from_static("1.1 pylon"), id);
    if let Err(no) = read {
        return Explained { exchange, request, explanation: None, route: None, refusal: Some(no) };
    }
    let explanation = serve::with_head(world, &request, &exchange, |head| world.table.explain(&head));
    let (route, found) = serve::find(world, &request, &exchange);
    let refusal = found.and_then(|found| serve::rewrite(world.route(route), found, &mut exchange)).err();
    Explained { exchange, request, explanation: Some(explanation), route, refusal }
}
