//! What tests are made of: the real binary, services that answer by script, and a client that sends raw bytes.
//!
//! Everything is blocking and on loopback, on ports that the system gives. Nothing waits for a fixed time: see [`wait`].
//! What goes wrong here panics with a sentence, for that is how a test fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by a panic"
)]

pub mod answer;
pub mod binary;
pub mod browser;
pub mod client;
pub mod command;
pub mod consul;
pub mod etcd;
pub mod figures;
pub mod haproxy;
pub mod http2;
pub mod http2_service;
pub mod http2_websocket;
pub mod issuer;
pub mod kubernetes;
pub mod load;
pub mod message;
pub mod nginx;
pub mod process;
pub mod provider;
pub mod redis;
pub mod signing;
pub mod surfer;
pub mod tally;
pub mod terminator;
pub mod tls;
pub mod upstream;
pub mod wait;
pub mod websocket;
