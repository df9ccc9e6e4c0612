//! Sockets: listeners, dialling, resolving, timers, and the one adapter to hyper.

pub mod accept;
pub mod dial;
pub mod http1;
pub mod listen;
pub mod resolve;
pub mod spec;
pub mod stream;
pub mod timer;
pub mod tls;
