//! HTTP/2 on the wire (RFC 9113): compression of fields, frames, streams and their windows, for both sides of a connection.
//!
//! There is no clock here, and no socket is opened: whoever uses it hands over a socket and polls. Everything that a peer can
//! make grow has a bound. The state of a connection is behind one lock, which is held for a few frames and never while a
//! socket is read or written; its streams and its driver usually run on one thread, so nobody waits for it.

mod connection;
mod drive;
mod error;
mod frame;
pub mod hpack;
mod message;
mod out;
mod receive;
mod send;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

pub mod client;
pub mod server;

pub use error::{By, Error, Reason};
pub use frame::PREFACE;
pub use message::Protocol;
pub use receive::{Piece, RecvStream};
pub use send::{Fields, SendStream};
pub use shared::Limits;
