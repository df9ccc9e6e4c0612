//! Policies: one concern applied once to each request of a route, in one fixed order.
//!
//! [`registry`] lists every policy once, in the order that requests meet them; [`pipeline`] runs those of a route. Each
//! policy is one file in the folder of its phase, with what is written (its `Spec`) beside what runs, and its module
//! documentation is its page in the manual. No policy knows another: they meet in the fields of the exchange.

pub mod admit;
pub mod authorize;
pub mod consumers;
pub mod guard;
pub mod identify;
pub mod limit;
pub mod own;
pub mod pipeline;
pub mod policy;
pub mod protobuf;
pub mod registry;
pub mod shape;
pub mod structured;
pub mod tokens;

mod bodies;
mod identity;
pub mod keys;
mod manual;
mod memory;
mod origin;
mod pool;
mod proofs;
mod replace;
mod table;
mod template;
mod vary;
mod written;

#[cfg(test)]
mod testing;
