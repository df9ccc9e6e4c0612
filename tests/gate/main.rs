//! End-to-end tests of the real binary on loopback. Each module is a topic; numbers name the failures of other gateways
//! that a test shows to be absent here.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by a panic"
)]

mod aborts;
mod admin;
mod api_keys;
mod authorize;
mod authorize_external;
mod balancing;
mod bodies;
mod breakers;
mod caps;
mod churn;
mod closed;
mod closed_identity;
mod conformance;
mod cors;
mod crowds;
mod demands;
mod diffs;
mod discovery;
mod discovery_consul;
mod discovery_etcd;
mod discovery_kubernetes;
mod documents;
mod drain;
mod endings;
mod events;
mod expectations;
mod explanations;
mod explanations_live;
mod expressions;
mod faults;
mod forwarding;
mod frozen;
mod grpc;
mod health;
mod http2;
mod introspection;
mod jwt;
mod keys;
mod keys_shared;
mod limits;
mod logs;
mod metrics;
mod mint;
mod mirror;
mod outbound;
mod outliers;
mod overload;
mod proxy_protocol;
mod proxy_protocol_out;
mod reload;
mod reload_files;
mod reload_limits;
mod reload_listeners;
mod reload_load;
mod removal;
mod replacing;
mod retries;
mod revisions;
mod rolling;
mod schema;
mod session;
mod session_browser;
mod session_outages;
mod session_shared;
mod signatures;
mod slow;
mod streams;
mod tcp;
mod tcp_by_name;
mod timers;
mod tls;
mod units;
mod unix;
mod unix_endpoints;
mod upgrade;
mod upgrade_kills;
mod upstream_http2;
mod upstream_tls;
mod websocket;
mod websocket_ends;
mod websocket_http2;
mod websocket_upstream_http2;
