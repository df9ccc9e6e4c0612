//! Whole calls over real sockets, against services that follow a script.

mod again;
mod balance;
mod bodies;
mod breakers;
mod calls;
mod deadlines;
mod dirty;
mod discovery;
mod dns;
mod fetch;
pub(crate) mod fixture;
mod grpc;
mod health;
mod hedges;
mod interim;
mod outbound;
mod outliers;
mod retry;
mod timers;
