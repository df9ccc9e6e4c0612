//! The data plane: a snapshot compiled from a document, and [`serve`](mod@serve), the one function that a request goes through.

pub mod action;
pub mod engine;
pub mod explain;
pub mod fallback;
pub mod forwarding;
mod grpc;
mod head;
pub mod hop;
mod http2;
pub mod mirror;
mod reject;
pub mod removal;
mod replay;
pub mod request_id;
pub mod serve;
pub mod snapshot;
pub mod tail;
pub mod tcp;
pub mod websocket;
pub mod world;
