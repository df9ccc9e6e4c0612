//! What a lookup costs with 10, 1,000 and 10,000 routes: the first, the middle and the last route, and none.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use divan::Bencher;
use http::{HeaderMap, Method};
use pylon_core::host::HostName;
use pylon_core::short::FromScalar;
use pylon_route::matching::RouteMatch;
use pylon_route::normalise::{PathRules, normalise};
use pylon_route::predicate::Head;
use pylon_route::spec::MatchSpec;
use pylon_route::table::Table;

fn main() {
    divan::main();
}

const COUNTS: [usize; 3] = [10, 1_000, 10_000];

fn table(count: usize, text: impl Fn(usize) -> String) -> Table {
    let compile =
        |i| MatchSpec::from_scalar(&text(i)).map_err(|_| Vec::new()).and_then(|spec| RouteMatch::compile(&spec));
    let routes: Result<Vec<RouteMatch>, _> = (0..count).map(compile).collect();
    Table::build(routes.unwrap_or_default()).unwrap_or_else(|_| unreachable!("all routes differ"))
}

fn find(bencher: Bencher<'_, '_>, table: &Table, host: &str, path: &str) {
    let headers = HeaderMap::new();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let head = Head { host: Some(host), path, method: &Method::GET, headers: &headers, query: None, client };
    bencher.bench(|| table.find(black_box(&head)));
}

/// Every route under one host, each with a literal segment of its own.
fn paths(count: usize) -> Table {
    table(count, |i| format!("GET /api/v1/service{i}/items/{{id}}"))
}

#[divan::bench(args = COUNTS)]
fn first(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &paths(count), "api.example.com", "/api/v1/service0/items/42");
}

#[divan::bench(args = COUNTS)]
fn middle(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &paths(count), "api.example.com", &format!("/api/v1/service{}/items/42", count / 2));
}

#[divan::bench(args = COUNTS)]
fn last(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &paths(count), "api.example.com", &format!("/api/v1/service{}/items/42", count - 1));
}

#[divan::bench(args = COUNTS)]
fn no_match(bencher: Bencher<'_, '_>, count: usize) {
    find(bencher, &paths(count), "api.example.com", "/api/v1/nothing/items/42");
}

/// Different routes in turn, so that the caches of the machine do not hold just one.
#[divan::bench(args = COUNTS)]
fn in_turn(bencher: Bencher<'_, '_>, count: usize) {
    let table = paths(count);
    let asked: Vec<String> = (0..count).map(|i| format!("/api/v1/service{}/items/42", (i * 7_919) % count)).collect();
    let headers = HeaderMap::new();
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut paths = asked.iter().cycle();
    bencher.bench_local(|| {
        let path = paths.next().map_or("/", String::as_str);
        table.find(&Head { host: None, path, method: &Method::GET, headers: &headers, query: None, client })
    });
}

#[divan::bench(args = COUNTS)]
fn hosts(bencher: Bencher<'_, '_>, count: usize) {
    let table = table(count, |i| format!("tenant{i}.example.com/{{*rest}}"));
    find(bencher, &table, &format!("tenant{}.example.com", count / 2), "/users/42/orders");
}

#[divan::bench(args = ["/users/42", "/api/v1/service5000/items/42?", "/a%20b/c", "/a/./b"])]
fn path_to_normal_form(bencher: Bencher<'_, '_>, path: &str) {
    let path = path.trim_end_matches('?');
    bencher.bench(|| normalise(black_box(path), PathRules::SERVE).is_ok());
}

#[divan::bench(args = ["api.example.com", "api.example.com:8443", "API.example.com"])]
fn host_name(bencher: Bencher<'_, '_>, host: &str) {
    bencher.bench(|| HostName::parse(black_box(host.as_bytes())).is_ok());
}

#[divan::bench(args = COUNTS, sample_count = 10)]
fn build(bencher: Bencher<'_, '_>, count: usize) {
    bencher.bench_local(|| paths(count));
}
