//! Connections that are none of HTTP: which service they go to, and the way there and back.
//!
//! A listener with `tcp` carries bytes as they are. Where it looks at the name in TLS (SNI) it does not take part in the
//! handshake: the certificate that the client sees is the service's own.

use std::sync::Arc;
use std::time::Duration;

use pylon_core::by_host::ByHost;
use pylon_core::connection::{Connection, Scheme};
use pylon_core::exchange::Trail;
use pylon_net::copy::{self, Carried, Over};
use pylon_net::handler::Incoming;
use pylon_net::stream::Stream;
use pylon_observe::tcp::{TcpEnd, TcpRecord};
use pylon_upstream::upstream::Upstream;
use tokio::io::AsyncWriteExt as _;

use crate::engine::{Begun, Shared};

/// The alert `unrecognized_name`, fatal, in a record of its own (RFC 8446 §6.2, RFC 6066 §3).
const UNRECOGNISED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Where the connections of a listener go.
#[derive(Debug)]
pub struct Tcp {
    /// Numbers of targets by the name in TLS.
    pub by_name: ByHost,
    /// By their numbers; the first is for names of which nothing is said, and for none.
    pub targets: Vec<Option<Arc<Upstream>>>,
    /// How long nothing may move.
    pub idle: Duration,
}

/// One connection under way. When it is dropped it is over, and is told of.
struct Ongoing {
    observer: Arc<Shared>,
    connection: Arc<Connection>,
    host: Option<Box<str>>,
    trail: Trail,
    opened: std::time::Instant,
    carried: Carried,
    end: TcpEnd,
}

/// Carries one connection to its end.
pub(crate) async fn carry(begun: Begun, incoming: Incoming) {
    let Begun { world, observer, .. } = begun;
    let Incoming { listener, connection, opened, mut stream, first, name } = incoming;
    let (host, trouble) = match name {
        Ok(name) => (name, None),
        Err(trouble) => (None, Some(trouble)),
    };
    let (trail, carried) = (Trail::default(), Carried::default());
    let mut ongoing = Ongoing { observer, connection, host, trail, opened, carried, end: TcpEnd::Cut };
    if let Some(trouble) = trouble {
        ongoing.trail.detail = Some(trouble.into());
        ongoing.end = TcpEnd::NoHello;
        return;
    }
    let Some((target, idle)) = world.tcp.get(&*listener).and_then(|tcp| tcp.choose(ongoing.host.as_deref())) else {
        ongoing.end = TcpEnd::UnknownName;
        turn_away(&mut stream, &ongoing.connection).await;
        return;
    };
    // A connection may last for days, and holds no snapshot.
    drop(world);
    let mut service = match target.connect(&mut ongoing.trail, &ongoing.connection).await {
        Ok(service) => service,
        Err(error) => {
            ongoing.trail.detail = Some(error.source.to_string().into());
            ongoing.end = TcpEnd::Unreached;
            return;
        }
    };
    drop(target);
    let over = copy::copy(&mut stream, &mut service.stream, first, idle, &mut ongoing.carried).await;
    ongoing.end = match over {
        Over::Complete => TcpEnd::Complete,
        Over::Idle => TcpEnd::Idle,
        Over::Client(error) => {
            ongoing.trail.detail = Some(error.to_string().into());
            TcpEnd::ClientGone
        }
        Over::Service(error) => {
            ongoing.trail.detail = Some(error.to_string().into());
            TcpEnd::UpstreamBroke
        }
    };
}

/// Tells a client that there is no such name here, where it waits for a handshake.
async fn turn_away(stream: &mut Stream, connection: &Connection) {
    if connection.scheme == Scheme::Http {
        // Some bytes into an empty socket buffer: they fit.
        let _ = stream.try_write(&UNRECOGNISED_NAME);
    }
    let _ = stream.shutdown().await;
}

impl Tcp {
    fn choose(&self, name: Option<&str>) -> Option<(Arc<Upstream>, Duration)> {
        let target = self.targets.get(self.by_name.of(name))?;
        Some((target.clone()?, self.idle))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.observer.finish_tcp(&TcpRecord {
            connection: &self.connection,
            host: self.host.as_deref(),
            trail: &self.trail,
            opened: self.opened,
            ended: tokio::time::Instant::now().into_std(),
            received: self.carried.up,
            sent: self.carried.down,
            end: self.end,
        });
    }
}
