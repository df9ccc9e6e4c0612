//! What a service sees of a request, and a client of an answer.

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::Upstream;

/// A gateway that forwards everything to this service.
pub(crate) fn before(upstream: &Upstream, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        upstream.url()
    ))
}

#[test]
fn a_service_learns_who_asks_and_by_which_way() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let answer = gate.ask("GET", "/a?b=c", &[("host", "Shop.example:8080"), ("x-forwarded-for", "203.0.113.9")], b"");
    assert_eq!(answer.status(), 200);
    let seen = answer.json();
    assert_eq!(seen["path"], "/a?b=c");
    let headers = &seen["headers"];
    assert_eq!(headers["host"], "Shop.example:8080");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "Shop.example:8080");
    assert!(headers["via"].as_str().unwrap().starts_with("1.1 pylon-"), "{headers}");
    assert_eq!(headers["x-request-id"], answer.field("x-request-id").unwrap());
    assert_eq!(gate.logged("/a?b=c")["id"], headers["x-request-id"]);
}
