//! Endpoints that stand in the document: literal addresses, and host names that are one endpoint each.

use std::net::SocketAddr;
use std::sync::Arc;

use pylon_net::tls::client::Towards;

use super::dns::Name;
use crate::endpoint::{Endpoint, Place};
use crate::locality::Whereabouts;
use crate::pool::Pool;

/// One entry of `endpoints`.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) place: Place,
    pub(crate) weight: u32,
    pub(crate) whereabouts: Whereabouts,
    pub(crate) priority: u32,
    /// None in cleartext.
    pub(crate) tls: Option<Towards>,
    pub(crate) pool: Arc<Pool>,
    /// Where the addresses come from; none for a literal address.
    pub(crate) name: Option<Arc<Name>>,
}

impl Member {
    /// The endpoint with its present addresses; none while a host name has none.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        let (addrs, source): (Vec<SocketAddr>, _) = match &self.name {
            None => (self.place.literal().into_iter().collect(), "static"),
            Some(name) => (name.addrs(), "host name"),
        };
        let epoch = self.pool.allow(&addrs);
        (!addrs.is_empty()).then(|| Endpoint {
            joined: None,
            id: self.place.id(),
            authority: self.place.authority.clone(),
            path: self.place.path.clone(),
            addrs: addrs.into(),
            weight: self.weight,
            whereabouts: self.whereabouts.clone(),
            priority: self.priority,
            name: None,
            source,
            tls: self.tls.clone(),
            pool: Arc::clone(&self.pool),
            epoch,
        })
    }
}
