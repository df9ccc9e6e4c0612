//! Matching: which route a request meets, why, and what its path becomes (pure: no I/O, no clock, no randomness).
//!
//! A request's path is brought into normal form once ([`normalise`]), its host is read once ([`pylon_core::host::HostName`]); then
//! [`table::Table::find`] tries the candidates, most specific first, and falls back to the next when a predicate of one
//! fails. [`table::Table::explain`] walks the same candidates and says why. [`lint::lint`] names routes that can never
//! match. [`rewrite::Rewrite`] computes the path for the upstream and checks it again.

pub mod explain;
mod hash;
pub mod lint;
pub mod matching;
pub mod normalise;
pub mod pattern;
pub mod predicate;
pub mod rewrite;
mod segment;
pub mod spec;
pub mod table;
mod tree;
