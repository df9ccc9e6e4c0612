//! The words of the domain, shared by every other crate: messages, the exchange, rejections, units and names.
//!
//! Nothing here does I/O or reads a clock: time comes in as an argument.

pub mod attempts;
pub mod body;
pub mod by_host;
pub mod caller;
pub mod carry;
pub mod certificate;
pub mod connection;
pub mod cookie;
pub mod exchange;
pub mod fields;
pub mod host;
pub mod kept;
pub mod names;
pub mod networks;
pub mod priority;
pub mod rejection;
pub mod secret;
pub mod short;
pub mod spare;
pub mod spec;
pub mod units;
pub mod worker;

/// A request as the gateway handles it, from the client's head to the upstream.
pub type Request = http::Request<body::Body>;
/// A response as the gateway handles it, from the upstream's head to the client.
pub type Response = http::Response<body::Body>;
/// The head of a response, for policies that decide by it.
pub type ResponseHead = http::response::Parts;
