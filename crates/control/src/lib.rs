//! The control plane: starts the gateway from a document, keeps its clocks, and answers the admin API.

pub mod admin;
mod bounds;
mod certificates;
pub mod diff;
pub mod explain;
mod fixed;
pub mod gateway;
mod grpc_health;
pub mod handover;
pub mod history;
mod listeners;
pub mod manager;
mod memory;
pub mod prepare;
mod pulse;
pub mod reload;
mod sockets;
pub mod upgrade;
mod watch;
mod worker;
