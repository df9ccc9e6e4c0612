//! What a listener needs to know of the data plane.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use pylon_core::Request;
use pylon_core::body::BodyError;
use pylon_core::connection::Connection;

use crate::client_side::ClientSide;
use crate::drain::Drain;
use crate::limits::Told;
use crate::stream::Stream;

/// What answers requests: the data plane, as `net` sees it. One for each worker.
pub trait Handler: Send + Sync + 'static {
    /// The body of an answer.
    type Body: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static;
    /// What goes on behind an answer that switches protocols.
    type Tunnel: Tunnel;

    /// Answers one request whose head had begun to arrive at `started`.
    fn serve(
        self: Arc<Self>,
        request: Request,
        connection: Arc<Connection>,
        started: Instant,
    ) -> impl Future<Output = http::Response<Self::Body>> + Send;

    /// Takes the tunnel out of an answer, where it is one that switches protocols.
    fn switched(answer: &mut http::Response<Self::Body>) -> Option<Self::Tunnel>;

    /// Carries the bytes of a connection that is none of HTTP, until it ends.
    fn carry(self: Arc<Self>, incoming: Incoming) -> impl Future<Output = ()> + Send;

    /// The whole answer, in wire format, to a request that never came to be: `status` is what the codec says of it,
    /// and `limits` are those that held for the connection, which is closed behind it.
    fn refuse(&self, status: u16, connection: &Arc<Connection>, limits: Told) -> Vec<u8>;
}

/// A connection that has switched protocols, without the client's side of it.
pub trait Tunnel: Send + 'static {
    /// Carries bytes both ways until the end. Dropped before that, the client never got to see the switch.
    fn run(self, client: ClientSide, drain: Arc<Drain>) -> impl Future<Output = ()> + Send + 'static;
}

/// A connection whose bytes are none of HTTP.
#[derive(Debug)]
pub struct Incoming {
    /// The id of the listener where it came in.
    pub listener: Arc<str>,
    /// The client.
    pub connection: Arc<Connection>,
    /// When it was accepted.
    pub opened: Instant,
    /// Its bytes.
    pub stream: Stream,
    /// What was read of them already.
    pub first: BytesMut,
    /// The name that the client asks for by TLS, in lower case. An error where TLS was wanted and there is none.
    pub name: Result<Option<Box<str>>, String>,
}
