//! State that gateways share, outside of the process: a link to Redis or Valkey, and what is kept there.
//!
//! A gateway that has none of it works by itself. One that has it starts and serves without it, too: whoever needs what is kept there is
//! told at once that it cannot be had, and decides for itself; nobody waits for longer than the time that one call may take.

pub mod command;
pub mod marks;
pub mod sessions;
pub mod spec;

#[cfg(feature = "redis")]
mod address;
#[cfg(feature = "redis")]
pub mod link;
#[cfg(not(feature = "redis"))]
#[path = "absent.rs"]
pub mod link;
