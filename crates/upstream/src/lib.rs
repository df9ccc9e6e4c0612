//! Upstreams: named services behind the gate, how their endpoints are found and chosen, and the one way to call them.
//!
//! [`upstream::Upstream::call`] is the attempt loop: pick an endpoint, take or make a connection, send, judge, again?
//! Traffic is HTTP/1.1 or HTTP/2, in cleartext or under TLS.

pub mod balance;
pub mod breaker;
pub mod call;
mod clocks;
mod compile;
pub mod concurrency;
pub mod connect;
mod counters;
mod dial;
pub mod discovery;
mod endpoint;
pub mod error;
pub mod fetch;
mod flight;
mod gauge;
pub mod h1;
mod h2;
pub mod head;
pub mod health;
mod judging;
mod key;
pub mod locality;
pub mod oauth;
pub mod outbound;
pub mod outliers;
mod pace;
mod pool;
pub mod probe;
pub mod replay;
mod room;
pub mod service_side;
pub mod spec;
mod standing;
pub mod sticky;
pub mod timeouts;
pub mod upstream;
mod verdicts;
pub mod view;
mod word;

#[cfg(test)]
mod tests;
