//! How crowded an upstream is that has a limit of concurrency: looked at when somebody asks, written by nobody here.

use std::fmt;

use pylon_core::priority::Priority;

/// How crowded an upstream is at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crowd {
    /// How many requests may be under way.
    pub limit: u64,
    /// How many are.
    pub under_way: u64,
    /// How many wait for their turn.
    pub waiting: u64,
    /// How many were refused, the least class first.
    pub shed: [u64; Priority::ALL.len()],
}

/// Whoever knows how crowded an upstream is.
pub trait Crowded: fmt::Debug + Send + Sync {
    /// How crowded it is now.
    fn crowd(&self) -> Crowd;
}
