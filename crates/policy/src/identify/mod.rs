//! Identify: finds out who is asking, by credentials. A policy here accepts or ignores; it never demands.

pub mod api_key;
pub mod basic;
pub mod client_cert;
pub mod introspect;
pub mod jwt;
pub mod session;
pub mod signature;
