//! Sockets: listeners, dialling, resolving, timers, and the adapters to hyper and h2.

pub mod accept;
pub mod caps;
mod client_body;
pub mod client_hello;
pub mod client_side;
pub mod copy;
pub mod dial;
pub mod door;
pub mod drain;
pub mod files;
mod guests;
pub mod handler;
mod http1;
mod http2;
pub mod listen;
pub mod pace;
pub mod proxy_protocol;
mod queue;
pub mod resolve;
pub mod socket;
pub mod spec;
mod stall;
pub mod stream;
pub mod strict;
pub mod timer;
pub mod tls;
pub mod websocket;
