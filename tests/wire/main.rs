//! End-to-end tests at the level of bytes: what hostile, broken and slow peers send, and what the real binary makes of
//! it. Each module is a topic; numbers name the failures of other gateways that a test shows to be absent here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails by a panic"
)]

mod bodies;
mod corpus;
mod dirty;
mod dns;
mod forged;
mod keepalive;
mod many_routes;
mod names;
mod odd;
mod paths;
mod repeats;
mod smuggling;
mod spellings;
mod strict;
mod upgrades;

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;
use serde_json::Value;

/// A gateway that forwards everything to this service; `more` are further lines of its document.
fn before(upstream: &Upstream, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        upstream.url()
    ))
}

/// A counter of the first endpoint of the upstream with this name, from the admin API.
fn counter(gate: &Binary, upstream: &str, name: &str) -> u64 {
    let views = gate.admin("/api/upstreams").json();
    let view = views.as_array().unwrap().iter().find(|view| view["name"] == upstream).cloned().unwrap_or(Value::Null);
    view["endpoints"][0][name].as_u64().unwrap_or_else(|| panic!("no {name} in {view}"))
}
