//! What the table finds, in what order, and what it costs.

mod oracle;
mod spellings;

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue, Method};
use pylon_core::host::HostName;
use pylon_core::short::Short;

use super::*;
use crate::matching::Mismatch;
use crate::spec::MatchSpec;

fn compile(json: &str) -> RouteMatch {
    let quoted = if json.starts_with('{') { json.to_owned() } else { format!("{json:?}") };
    RouteMatch::compile(&serde_json::from_str::<Short<MatchSpec>>(&quoted).unwrap()).unwrap()
}

fn table(routes: &[&str]) -> Table {
    Table::build(routes.iter().map(|text| compile(text)).collect()).unwrap()
}

#[derive(Debug)]
struct Ask {
    host: Option<String>,
    path: String,
    method: Method,
    headers: HeaderMap,
}

/// A request from `METHOD host/path` or `host/path`.
fn ask(text: &str) -> Ask {
    let (method, place) = text.split_once(' ').unwrap_or(("GET", text));
    let (host, path) = place.split_at(place.find('/').unwrap());
    Ask {
        host: (!host.is_empty()).then(|| host.to_owned()),
        path: path.to_owned(),
        method: Method::from_bytes(method.as_bytes()).unwrap(),
        headers: HeaderMap::new(),
    }
}

impl Ask {
    fn head(&self) -> Head<'_> {
        Head {
            host: self.host.as_deref(),
            path: &self.path,
            method: &self.method,
            headers: &self.headers,
            query: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }
}

fn winner(table: &Table, ask: &Ask) -> Option<usize> {
    match table.find(&ask.head()) {
        Outcome::Found(found) => Some(found.route),
        _ => None,
    }
}

fn goes_to(table: &Table, text: &str) -> Option<usize> {
    winner(table, &ask(text))
}

#[test]
fn the_most_specific_path_wins_wherever_it_stands() {
    let table =
        table(&["/{*rest}", "/users/{id}", "/users/me", "/users/{name}.json", "/users/v{name}.json", "/users/{*rest}"]);
    assert_eq!(goes_to(&table, "/users/me"), Some(2));
    assert_eq!(goes_to(&table, "/users/42"), Some(1));
    assert_eq!(goes_to(&table, "/users/a.json"), Some(3));
    assert_eq!(goes_to(&table, "/users/va.json"), Some(4));
    assert_eq!(goes_to(&table, "/users/"), Some(5));
    assert_eq!(goes_to(&table, "/users/a/b"), Some(5));
    assert_eq!(goes_to(&table, "/users"), Some(0));
    assert_eq!(goes_to(&table, "/"), Some(0));
}

#[test]
fn a_dead_end_is_left_again() {
    let table = table(&["/a/b/c", "/a/{x}/d", "/{x}/b/{y}", "/{x}/{y}/z/{*rest}"]);
    assert_eq!(goes_to(&table, "/a/b/c"), Some(0));
    assert_eq!(goes_to(&table, "/a/b/d"), Some(1));
    assert_eq!(goes_to(&table, "/a/b/e"), Some(2));
    assert_eq!(goes_to(&table, "/a/q/z/"), Some(3));
    assert_eq!(goes_to(&table, "/a/q/y"), None);
}

#[test]
fn captures_are_those_of_the_route_that_won() {
    let table = table(&["/{a}/{b}/x", "/{c}/{*d}", r#"{"regex": "/r~(?<n>[0-9]+)(-[a-z])?(?<t>t)?"}"#]);
    let values = |path: &str| {
        let asked = ask(path);
        let Outcome::Found(found) = table.find(&asked.head()) else { panic!("{path}") };
        let names = table.names(found.route).into_iter().enumerate();
        names.map(|(i, name)| format!("{name}={}", found.captures.value(i, path).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(values("/1/2/x"), ["a=1", "b=2"]);
    assert_eq!(values("/1/2/y"), ["c=1", "d=2/y"]);
    assert_eq!(values("/r~12-b"), ["n=12", "t="]);
}

#[test]
fn the_most_specific_host_wins_and_the_next_one_is_fallen_back_to() {
    let table = table(&["/a", "*.example.com/a", "*.eu.example.com/a", "api.eu.example.com/b", "*.example.com/c"]);
    assert_eq!(goes_to(&table, "api.eu.example.com/b"), Some(3));
    assert_eq!(goes_to(&table, "api.eu.example.com/a"), Some(2));
    assert_eq!(goes_to(&table, "x.y.eu.example.com/a"), Some(2));
    assert_eq!(goes_to(&table, "api.eu.example.com/c"), Some(4));
    assert_eq!(goes_to(&table, "eu.example.com/a"), Some(1));
    assert_eq!(goes_to(&table, "example.com/a"), Some(0));
    assert_eq!(goes_to(&table, "/a"), Some(0));
    assert_eq!(goes_to(&table, "a.b.c.d.e.f.g.eu.example.com/a"), Some(2));
}

#[test]
fn a_failing_predicate_passes_the_request_on() {
    let beta = r#"{"path": "/a/b", "headers": {"x-beta": "1"}}"#;
    let both = r#"{"path": "/a/b", "headers": {"x-beta": "1", "x-two": "*"}}"#;
    let table = table(&["/a/b", beta, both, "/a/{x}"]);
    assert_eq!(goes_to(&table, "/a/b"), Some(0));
    assert_eq!(winner(&table, &ask("/a/b").with("x-beta", "1")), Some(1));
    assert_eq!(winner(&table, &ask("/a/b").with("x-beta", "1").with("x-two", "")), Some(2));
    let table = self::table(&[beta, "/a/{x}"]);
    assert_eq!(goes_to(&table, "/a/b"), Some(1));
}

#[test]
fn fewer_methods_come_before_more_and_ties_stand_as_written() {
    let table = table(&[
        "GET,POST /a",
        "GET /a",
        "HEAD /a",
        r#"{"path": "/b", "query": {"x": {"absent": true}}}"#,
        r#"{"path": "/b", "query": {"y": {"absent": true}}}"#,
    ]);
    assert_eq!(goes_to(&table, "GET /a"), Some(1));
    assert_eq!(goes_to(&table, "HEAD /a"), Some(2));
    assert_eq!(goes_to(&table, "POST /a"), Some(0));
    assert_eq!(goes_to(&table, "/b"), Some(3));
}

#[test]
fn expressions_come_last_within_their_host() {
    let table = table(&[r#"{"regex": "/v[0-9]/.*", "host": "a.b"}"#, r#"{"regex": "/v[0-9]/x"}"#, "/v1/x", "a.b/v1/y"]);
    assert_eq!(goes_to(&table, "/v1/x"), Some(2));
    assert_eq!(goes_to(&table, "/v2/x"), Some(1));
    assert_eq!(goes_to(&table, "a.b/v1/x"), Some(0));
    assert_eq!(goes_to(&table, "a.b/v1/y"), Some(3));
    assert_eq!(goes_to(&table, "/v2/x/"), None);
}

#[test]
fn a_wrong_method_alone_is_405_with_the_methods_that_are_allowed() {
    let only_beta = r#"{"methods": "DELETE", "path": "/a", "headers": {"x-beta": "1"}}"#;
    let table = table(&["GET /a", "POST /{x}", only_beta, "PUT h/a"]);
    let allowed = |asked: Ask| match table.find(&asked.head()) {
        Outcome::MethodNotAllowed(methods) => methods.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(allowed(ask("PATCH /a")), "GET, HEAD, POST");
    assert_eq!(allowed(ask("PATCH /a").with("x-beta", "1")), "GET, HEAD, POST, DELETE");
    assert_eq!(allowed(ask("PATCH h/a")), "GET, HEAD, POST, PUT");
    assert_eq!(table.find(&ask("PATCH /").head()), Outcome::NotFound);
    let hidden = self::table(&[only_beta]);
    assert_eq!(hidden.find(&ask("GET /a").head()), Outcome::NotFound);
}

#[test]
fn an_encoded_slash_is_refused_unless_the_route_keeps_it() {
    let table = table(&["/a/{x}", r#"{"path": "/b/{x}", "encoded_slash": "keep"}"#]);
    let stop = |path: &str| match table.find(&ask(path).head()) {
        Outcome::Found(found) => found.stop,
        other => panic!("{other:?}"),
    };
    assert_eq!(stop("/a/x%2Fy"), Some(Stop::EncodedSlash));
    assert_eq!(stop("/b/x%2Fy"), None);
    assert_eq!(stop("/a/x%252Fy"), None);
}

#[test]
fn a_duplicate_route_names_both() {
    let duplicates = |routes: &[&str]| {
        Table::build(routes.iter().map(|text| compile(text)).collect())
            .map_or_else(|all| all.iter().map(|d| (d.first, d.second)).collect(), |_| Vec::new())
    };
    assert_eq!(duplicates(&["/a/{x}", "/b", "/a/{y}", "/b"]), [(0, 2), (1, 3)]);
    assert_eq!(duplicates(&["/a%3Ab", "/a:b"]), [(0, 1)]);
    assert_eq!(duplicates(&["GET,HEAD /a", "GET /a"]), [(0, 1)]);
    assert_eq!(duplicates(&["/a", "GET /a", "h/a", "/a/", "/A"]), []);
    assert_eq!(duplicates(&[r#"{"host": ["a", "b"], "path": "/x"}"#, "b/x"]), [(0, 1)]);
    assert_eq!(duplicates(&[r#"{"regex": "/a"}"#, r#"{"regex": "/a"}"#]), [(0, 1)]);
    let options = PathsSpec { ignore_case: true };
    assert!(Table::build_with(vec![compile("/a"), compile("/A")], options).is_err());
}

#[test]
fn explain_names_candidates_in_order_with_what_fails() {
    let table =
        table(&["/{*rest}", "GET /users/{id}", r#"{"path": "/users/me", "headers": {"x-beta": "1"}}"#, "/orders"]);
    let asked = ask("POST /users/me");
    let explanation = table.explain(&asked.head());
    let lines: Vec<String> =
        explanation.candidates.iter().map(|candidate| format!("{}: {}", candidate.text, candidate.verdict)).collect();
    assert_eq!(
        lines,
        [
            "/users/me if header `x-beta` is `1`: does not hold: header `x-beta` is `1`",
            "GET /users/{id}: the method is none of GET, HEAD",
            "/{*rest}: takes the request",
        ]
    );
    assert_eq!(table.why_not(3, &asked.head()), Some(Mismatch::Path { wanted: "/orders".into() }));
    assert_eq!(table.why_not(0, &asked.head()), None);
}

// Failure 22: route lookup is linear.

struct Counter(usize);

impl Visitor for Counter {
    fn candidate(&mut self, _: u32, _: &mut Spans) -> ControlFlow<()> {
        ControlFlow::Break(())
    }

    fn node(&mut self) {
        self.0 += 1;
    }
}

fn visited(table: &Table, path: &str) -> usize {
    let mut counter = Counter(0);
    let _ = table.walk(&ask(path).head(), &mut counter);
    counter.0
}

#[test]
fn ten_thousand_routes_visit_as_many_nodes_as_ten() {
    let build = |count: usize| {
        let routes = (0..count).map(|i| compile(&format!("/api/v1/service{i}/items/{{id}}"))).collect();
        Table::build(routes).unwrap()
    };
    let (small, large) = (build(10), build(10_000));
    for (path, other) in [
        ("/api/v1/service0/items/7", "/api/v1/service0/items/7"),
        ("/api/v1/service5/items/7", "/api/v1/service5000/items/7"),
        ("/api/v1/service9/items/7", "/api/v1/service9999/items/7"),
        ("/api/v1/none/items/7", "/api/v1/none/items/7"),
    ] {
        assert_eq!(visited(&small, path), visited(&large, other), "{other}");
        assert!(visited(&large, other) <= 6);
    }
}

// Failure 10: host selection differs with the number of hosts, case, trailing dot or port.

#[test]
fn hosts_match_alike_however_many_there_are_and_however_they_are_spelled() {
    for count in [1, 99, 101, 10_000] {
        let mut routes: Vec<RouteMatch> = (0..count).map(|i| compile(&format!("Tenant{i}.Example.com/x"))).collect();
        routes.push(compile("*.example.com/x"));
        let table = Table::build(routes).unwrap();
        let last = count - 1;
        for spelled in [
            format!("tenant{last}.example.com"),
            format!("TENANT{last}.example.COM"),
            format!("tenant{last}.example.com."),
            format!("Tenant{last}.example.com:8443"),
            format!("tenant{last}.Example.com.:80"),
        ] {
            let host = HostName::parse(spelled.as_bytes()).unwrap();
            assert_eq!(goes_to(&table, &format!("{}/x", host.as_str())), Some(last), "{spelled} of {count}");
        }
        assert_eq!(goes_to(&table, &format!("tenant{count}.example.com/x")), Some(count));
        assert_eq!(goes_to(&table, "example.com/x"), None);
    }
}
