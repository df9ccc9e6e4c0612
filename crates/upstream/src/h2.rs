//! The HTTP/2 client (RFC 9113): many requests at once on a connection, each driven in its own exchange's task.
//!
//! Frames, HPACK and windows are those of `pylon-http2`; whom to send to, when to open another connection, deadlines and
//! what may be sent again are ours. A connection belongs to one worker, and so does the task that reads and writes it.
//! Pushes are refused. Bodies are taken from the other side's window only as fast as the client takes them.

pub(crate) mod body;
pub(crate) mod conn;
pub(crate) mod encode;
pub(crate) mod exchange;
pub(crate) mod pool;
pub(crate) mod tunnel;
pub(crate) mod upload;
