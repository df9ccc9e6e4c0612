//! The lean HTTP/1.1 client: one request at a time on a connection, driven in the request's own task.
//!
//! No task and no channel stands between the client's exchange and the upstream's socket. Framing is strict both ways
//! (RFC 9112): what could be read in two ways is refused. The one upgrade that is forwarded is that to a WebSocket, and only where
//! the call asks for it; then the connection leaves as a tunnel.

pub(crate) mod body;
pub(crate) mod conn;
pub mod encode;
pub(crate) mod exchange;
pub(crate) mod pump;
pub(crate) mod scratch;
pub(crate) mod switch;
