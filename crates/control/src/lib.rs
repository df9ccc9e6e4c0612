//! The control plane: starts the gateway from a document, keeps its clocks, and answers the admin API.

pub mod admin;
mod certificates;
pub mod diff;
pub mod explain;
mod fixed;
pub mod gateway;
mod grpc_health;
pub mod history;
mod memory;
pub mod prepare;
pub mod reload;
mod watch;
mod worker;
