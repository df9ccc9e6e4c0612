//! Whole calls over real sockets, against services that follow a script.

mod bodies;
mod breakers;
mod calls;
mod dirty;
mod discovery;
mod dns;
mod fetch;
pub(crate) mod fixture;
mod interim;
mod outbound;
mod retry;
mod timers;
