//! Guard: what is judged by the connection and the head alone, before anything else is done for a request.

pub mod https_redirect;
pub mod ip_filter;
pub mod maintenance;
pub mod request_limits;
