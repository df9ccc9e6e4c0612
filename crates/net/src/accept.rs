//! Accepting connections on a worker: PROXY header and TLS, then HTTP or bytes, until the listener's door is shut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use pylon_core::connection::{Connection, Phase};
use pylon_core::networks::PeerSet;
use pylon_observe::metrics::Metrics;
use pylon_observe::outcomes::Handshake;

use crate::client_hello;
use crate::client_side::ClientSide;
use crate::door::{Door, Shut};
use crate::drain::{Drain, Open};
use crate::guests::Seat;
use crate::handler::{Handler, Incoming, Tunnel as _};
use crate::http1::{self, Left, Preface};
use crate::http2;
use crate::limits::Told;
use crate::listen::Listener;
use crate::proxy_protocol::{self, Refused};
use crate::queue::{Accepted, OUT_OF_FILES, Queue, canonical, is_of_one_connection};
use crate::socket::Socket;
use crate::stream::Stream;
use crate::terms::{Desk, Terms};
use crate::timer;
use crate::tls::server::{Failed, Security, ServerTls};

/// What a listener does with a connection before its first byte is looked at.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    /// Who tells the client's address by a PROXY header, and must.
    pub headers_from: Arc<PeerSet>,
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub struct Front {
    /// What comes first.
    pub greeting: Greeting,
    /// What comes next.
    pub security: Security,
    /// And then.
    pub speaks: Speaks,
}

/// What the bytes of a connection are.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// HTTP/1.1.
    Http {
        /// Whether HTTP/2 is spoken beside it.
        http2: bool,
    },
    /// Anything: they are carried as they are.
    Bytes {
        /// The id of the listener.
        listener: Arc<str>,
        /// Whether they begin TLS between the client and the service, and the name that is asked for must be known.
        by_name: bool,
    },
}

impl Speaks {
    /// What may be agreed on in the handshake of TLS (ALPN, RFC 7301), best first; nothing of bytes that nobody knows.
    pub fn alpn(&self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http { http2: true } => &[b"h2", b"http/1.1"],
            Self::Http { http2: false } => &[b"http/1.1"],
            Self::Bytes { .. } => &[],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// What connections of a listener have in common on one worker, for as long as its terms and limits stay the same.
struct Serving<H> {
    handler: Arc<H>,
    terms: Arc<Terms>,
    /// The longest head that the codecs take.
    head: usize,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
}

/// One socket of a listener.
struct Reception<H> {
    desk: Arc<Desk>,
    handler: Arc<H>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
    /// What the last connection was served by.
    last: Mutex<Arc<Serving<H>>>,
}

/// Accepts on `listener` until `door` is shut; each connection is a task of the current worker, under the terms that are in
/// force at `desk` when it is accepted.
pub async fn accept<H: Handler>(
    listener: Listener,
    door: Arc<Door>,
    desk: Arc<Desk>,
    handler: Arc<H>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let _accepting = (drain.accepting(), desk.accepts());
    let listener = Queue::new(listener)?;
    let last = Mutex::new(Serving::new(desk.terms(), &handler, &drain, &metrics));
    let reception = Reception { desk, handler, drain, metrics, last };
    let shut = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            shut = door.is_shut() => break shut,
        };
        match accepted {
            Ok(accepted) => reception.receive(accepted),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(?listener, %error, "cannot accept");
                timer::sleep(OUT_OF_FILES).await;
            }
        }
    };
    if shut == Shut::Closed {
        listener.close(|accepted| reception.receive(accepted)).await;
    }
    Ok(())
}

/// Has the connection of `seat` served by a task of its own, which ends with this part of the drain at the latest.
fn serve_by_task(seat: &Seat, part: u64, connection: impl Future<Output = ()> + Send + 'static) {
    seat.is_served_by(part, tokio::spawn(connection).abort_handle());
}

impl<H: Handler> Reception<H> {
    /// Gives a connection a task of its own, if it may have a place.
    fn receive(&self, accepted: Accepted) {
        let serving = self.serving();
        let address = accepted.peer.map(|peer| peer.ip());
        // Whom a balancer's connection is from is told by its header.
        let front = &serving.terms.front;
        let counted = if front.greeting.headers_from.contains(address) { None } else { address };
        let Some(open) = Open::begin(&serving.drain, &self.metrics, counted, accepted.at) else { return };
        serve_by_task(&Arc::clone(&open.seat), serving.drain.number(), async move {
            serving.connection(accepted, open).await;
        });
    }

    /// By what is served now.
    fn serving(&self) -> Arc<Serving<H>> {
        let terms = self.desk.terms();
        let mut last = self.last.lock();
        if !Arc::ptr_eq(&last.terms, &terms) || last.head != self.drain.limits().head {
            *last = Serving::new(terms, &self.handler, &self.drain, &self.metrics);
        }
        Arc::clone(&last)
    }
}

impl<H: Handler> Serving<H> {
    fn new(terms: Arc<Terms>, handler: &Arc<H>, trunk: &Arc<Drain>, metrics: &Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            drain: terms.branch_of(trunk),
            handler: Arc::clone(handler),
            head: trunk.limits().head,
            metrics: Arc::clone(metrics),
            terms,
        })
    }

    /// One connection, from its first byte to its last.
    async fn connection(&self, accepted: Accepted, open: Open) {
        let opened = accepted.at;
        let Some((stream, connection)) = open.while_seated(self.greet(accepted, &open)).await else { return };
        match &self.terms.front.speaks {
            Speaks::Http { .. } => self.serve(stream, connection, open).await,
            // Boxed, so that a connection of HTTP is no larger for it.
            Speaks::Bytes { listener, by_name } => {
                Box::pin(self.carry(stream, connection, &open, (listener, *by_name, opened))).await;
            }
        }
    }

    /// What comes before HTTP: PROXY header and TLS. None where the connection is not to be served.
    async fn greet(&self, accepted: Accepted, open: &Open) -> Option<(Stream, Arc<Connection>)> {
        let Accepted { mut socket, mut peer, at } = accepted;
        let deadline = at + open.limits().handshake;
        // Boxed, so that a connection is no larger for what is over.
        if self.terms.front.greeting.headers_from.contains(peer.map(|peer| peer.ip())) {
            let told;
            (socket, told) = Box::pin(self.header(socket, peer, deadline)).await?;
            peer = told.or(peer);
            if let Some(peer) = peer
                && let Err(why) = open.drain().guests.is_from(&open.seat, peer.ip())
            {
                self.metrics.refused(why);
                return None;
            }
        }
        let scheme = self.terms.front.security.scheme();
        let connection = Arc::new(match peer {
            Some(peer) => Connection::new(peer, socket.local_addr().map_or(peer, canonical), scheme, at),
            None => Connection::by_unix_socket(scheme, at),
        });
        let _ = connection.withdrawn.set(Arc::clone(open.drain().withdrawn()));
        open.seat.is(&connection);
        let stream = match &self.terms.front.security {
            Security::Cleartext => Stream::Plain(socket),
            Security::Tls(tls) => Box::pin(self.shake_hands(tls, socket, &connection, deadline)).await?,
        };
        Some((stream, connection))
    }

    /// The client's address where a balancer tells one.
    async fn header(
        &self,
        mut socket: Socket,
        peer: Option<SocketAddr>,
        deadline: Instant,
    ) -> Option<(Socket, Option<SocketAddr>)> {
        match proxy_protocol::read(&mut socket, deadline).await {
            Ok(told) => Some((socket, told.map(canonical))),
            Err(Refused::Empty) => None,
            Err(error) => {
                self.metrics.proxy_header_refused();
                tracing::debug!(?peer, %error, "a balancer's connection is closed");
                None
            }
        }
    }

    /// Finds out which name is asked for, and leaves the rest to the data plane.
    async fn carry(
        &self,
        stream: Stream,
        connection: Arc<Connection>,
        open: &Open,
        (listener, by_name, opened): (&Arc<str>, bool, Instant),
    ) {
        let (stream, first, name) = match stream {
            Stream::Plain(mut socket) if by_name => {
                let read = client_hello::read(&mut socket, opened + open.limits().handshake).map(Some);
                let Some(read) = open.while_seated(read).await else { return };
                let (first, name) = match read {
                    Ok((first, name)) => (first, Ok(name)),
                    Err(error) => (BytesMut::new(), Err(error.to_string())),
                };
                (Stream::Plain(socket), first, name)
            }
            stream => {
                let name = stream.server_name();
                (stream, BytesMut::new(), Ok(name))
            }
        };
        // From here on it is of use, and does not have to make room.
        connection.activity.enter(Phase::Serving, opened);
        let incoming = Incoming { listener: Arc::clone(listener), connection, opened, stream, first, name };
        Arc::clone(&self.handler).carry(incoming).await;
    }

    async fn serve(&self, stream: Stream, connection: Arc<Connection>, open: Open) {
        let handler = &self.handler;
        let left = if stream.agreed_on_http2() {
            Left::Preface(Preface { stream, read: Vec::new() })
        } else {
            // Under TLS the handshake settles it.
            let may_switch =
                matches!(self.terms.front.speaks, Speaks::Http { http2: true }) && matches!(stream, Stream::Plain(_));
            let connection = Arc::clone(&connection);
            let told = Told { head: self.head, ..open.limits().told() };
            http1::serve(stream, may_switch, connection, Arc::clone(handler), told, &open).await
        };
        match left {
            Left::Nothing => {}
            // Boxed, so that a connection of HTTP/1 is no larger for it.
            Left::Preface(preface) => {
                Box::pin(http2::serve(preface, connection, Arc::clone(handler), self.head, &open)).await;
            }
            // This task is over, with all that it took to speak HTTP.
            Left::Switched(tunnel, stream, ahead) => {
                let (seat, drain) = (Arc::clone(&open.seat), Arc::clone(open.drain()));
                serve_by_task(&seat, drain.number(), tunnel.run(ClientSide::http1(stream, ahead, open), drain));
            }
        }
    }

    async fn shake_hands(
        &self,
        tls: &ServerTls,
        socket: Socket,
        connection: &Arc<Connection>,
        deadline: Instant,
    ) -> Option<Stream> {
        match tls.accept(socket, connection, deadline).await {
            Ok((stream, how)) => {
                self.metrics.shaken(how);
                Some(stream)
            }
            Err(Failed::Broken(error)) => {
                self.metrics.shaken(Handshake::Failed);
                tracing::debug!(peer = %connection.peer, %error, "no TLS handshake");
                None
            }
            Err(Failed::Cleartext(stream)) => {
                self.metrics.shaken(Handshake::Failed);
                // What is unread at the close would be answered by a reset, and the answer lost.
                let _ = stream.try_read(&mut [0; 16 * 1024]);
                if matches!(self.terms.front.speaks, Speaks::Http { .. }) {
                    // Some bytes into an empty socket buffer: they fit.
                    let _ = stream.try_write(&self.handler.refuse(400, connection, self.drain.limits().told()));
                }
                None
            }
        }
    }
}
