//! What it costs to write the head of a request.

use divan::Bencher;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use pylon_upstream::h1::encode::{Framing, RequestHead, request};

fn main() {
    divan::main();
}

const FIELDS: [(&str, &str); 8] = [
    ("host", "api.example.com"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br, zstd"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "0192f0c4-7a3b-7c1e-9b1f-2d3e4f5a6b7c"),
    ("via", "1.1 pylon"),
];

#[divan::bench]
fn write_a_request(bencher: Bencher) {
    let headers: HeaderMap =
        FIELDS.iter().filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::from_static(value)))).collect();
    let path = PathAndQuery::from_static("/users/42?expand=orders");
    let fallback = HeaderValue::from_static("10.0.0.1:8080");
    let head = RequestHead {
        method: &Method::GET,
        path: &path,
        headers: &headers,
        host: None,
        announced: b"",
        fallback_host: &fallback,
        framing: Framing::Empty,
        websocket: false,
        expects: false,
    };
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        request(&mut out, &head).is_ok()
    });
}
