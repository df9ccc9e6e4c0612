//! A connection to a service for somebody who speaks for himself: chosen and counted as for a request, and never pooled.

use std::io;
use std::time::Instant;

use pylon_core::connection::Connection;
use pylon_core::exchange::{Timer, Trail};
use pylon_net::stream::Stream;
use pylon_observe::upstream::UpstreamShard;

use crate::dial::reach;
use crate::endpoint::Lease;
use crate::error::{CallError, Fault};
use crate::h1::conn::Open;
use crate::room::{Room, room};
use crate::upstream::Upstream;

/// How many endpoints are tried.
const TRIES: usize = 3;

/// A connection, which counts as under way at its endpoint until it is dropped.
#[derive(Debug)]
pub struct Connected {
    /// Its bytes.
    pub stream: Stream,
    _lease: Lease,
    _open: Open,
}

impl Upstream {
    /// Connects to one of the endpoints; where one cannot be connected to, to the next. Fills `trail`.
    ///
    /// `client` is who it is for.
    pub async fn connect(&self, trail: &mut Trail, client: &Connection) -> Result<Connected, CallError> {
        let (began, timeouts) = (now(), self.timeouts());
        let (wish, mut tried) = (self.wish_of(client.peer.ip()), Vec::new());
        loop {
            let begun = now();
            let pass = self.admit(None, trail, begun).map_err(Fault::into_error)?;
            let mut lease = self.pick(wish, None, &tried, begun, trail).map_err(Fault::into_error)?;
            lease.pass.join(pass);
            trail.attempts = trail.attempts.saturating_add(1);
            trail.endpoint = lease.lane.addrs.first().copied();
            trail.socket.clone_from(&lease.lane.path);
            let header = lease.lane.header(client.peer.ip(), client);
            tried.push(lease.lane.id());
            let deadline = begun + timeouts.connect;
            let reached = match room(&lease.lane, true, deadline).await {
                Ok(Room::New(place)) => reach(&lease.lane, deadline, true, header).await.map(|stream| (stream, place)),
                Ok(Room::Free(_)) => Err(Fault::Connect(io::ErrorKind::AddrInUse.into())),
                Err(fault) => Err(fault),
            };
            let fault = match reached {
                Ok((stream, place)) => {
                    lease.lane.slot.counters.connected();
                    // How long a connection is used says nothing of the service; how soon it stands does.
                    lease.lane.measure(begun, now(), false);
                    trail.endpoint = stream.peer_addr().ok().or(trail.endpoint);
                    trail.upstream_time = Some(now().saturating_duration_since(began));
                    lease.connected(begun, now());
                    let counted = lease.lane.metrics.as_ref().map(UpstreamShard::connected);
                    let open = Open { _counted: counted, _place: Some(place) };
                    return Ok(Connected { stream, _lease: lease, _open: open });
                }
                Err(Fault::Connect(error) | Fault::Tls(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    Fault::Timeout(Timer::Connect, timeouts.connect)
                }
                Err(fault) => fault,
            };
            if !matches!(fault, Fault::Overloaded(_)) {
                lease.failed(now().saturating_duration_since(begun), now());
                lease.lane.slot.counters.connect_failed();
                lease.lane.measure(begun, now(), true);
                if let Some(metrics) = &lease.lane.metrics {
                    metrics.connect_failed();
                }
            }
            if tried.len() >= TRIES.min(self.endpoints()) {
                return Err(fault.into_error());
            }
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
