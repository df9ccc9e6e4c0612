//! Limits that change while the gateway runs: they hold for whoever comes next, and refusals name those that held.

use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::wait::{ms, now, until};

fn document(limits: &str) -> String {
    format!("workers: 1\nlimits: {{ {limits} }}\nroutes: [{{ match: \"/{{*rest}}\", respond: {{ body: hello }} }}]\n")
}

#[test]
fn the_longest_head_holds_for_new_connections_and_refusals_name_what_held() {
    let gate = Binary::start(&document("request_headers: 1KiB"));
    let long = "x".repeat(2000);
    let ask = || gate.ask("GET", "/", &[("host", "a"), ("x-long", &long)], b"");
    let mut before = gate.connect();
    assert_eq!(before.get("/").status(), 200);
    assert_eq!(ask().status(), 431);
    gate.apply(&document("request_headers: 8KiB"));
    assert_eq!(gate.admin("/api/reload").json()["restart"], serde_json::json!([]));
    assert_eq!(ask().status(), 200);
    before.send(request("GET", "/", &[("host", "a"), ("x-long", &long)], b""));
    let refused = before.response();
    assert_eq!(refused.status(), 431);
    assert!(refused.text().contains("the limit is 1KiB"), "{}", refused.text());
}

#[test]
fn timers_hold_for_the_next_request_also_of_open_connections() {
    let gate = Binary::start(&document("header_timeout: 60s, idle_timeout: 60s"));
    let mut open = gate.connect();
    assert_eq!(open.get("/").status(), 200);
    gate.apply(&document("header_timeout: 200ms, idle_timeout: 60s"));
    let mut slow = gate.connect();
    slow.send("GET / HTTP/1.1\r\nhost:");
    let refused = slow.response();
    assert_eq!(refused.status(), 408);
    assert!(refused.text().contains("client_header timer (200ms)"), "{}", refused.text());
    gate.apply(&document("header_timeout: 200ms, idle_timeout: 300ms"));
    assert_eq!(gate.connect().get("/").status(), 200);
    let (began, mut idle) = (now(), gate.connect());
    assert_eq!(idle.get("/").status(), 200);
    idle.expect_closed();
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(open.get("/").status(), 200);
}

#[test]
fn bodies_may_come_as_slowly_as_is_written_now() {
    let service = pylon_testkit::upstream::Upstream::echo();
    let document = |limits: &str| {
        format!(
            "workers: 1\nlimits: {{ {limits} }}\nupstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: /, forward: api }}]\n",
            service.url()
        )
    };
    let gate = Binary::start(&document("body_timeout: 60s"));
    let mut open = gate.connect();
    assert_eq!(open.get("/").status(), 200);
    gate.apply(&document("body_timeout: 200ms"));
    open.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert_eq!(open.response().status(), 408, "on a connection that was open before");
}

#[test]
fn caps_hold_for_whoever_comes_next() {
    let gate = Binary::start(&document("connections: 100"));
    let mut clients: Vec<_> = (0..4).map(|_| gate.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    gate.apply(&document("connections: 100, connections_per_address: 4"));
    gate.connect().expect_closed();
    assert_eq!(clients[0].get("/").status(), 200, "who is there stays");
    assert_eq!(gate.metric("pylon_connections_max"), Some(100.0));
    gate.apply(&document("connections: 50"));
    assert_eq!(gate.connect().get("/").status(), 200);
    assert_eq!(gate.metric("pylon_connections_max"), Some(50.0));
}

#[test]
fn memory_is_looked_after_by_the_limit_that_is_written_now() {
    let gate = Binary::start(&document("memory: 64GiB"));
    assert_eq!(gate.get("/").status(), 200);
    gate.apply(&document("memory: 1MiB"));
    until(ms(9000), "memory is short", || gate.admin("/readyz").status() == 503);
    gate.apply(&document("memory: 64GiB"));
    until(ms(9000), "there is enough", || gate.admin("/readyz").status() == 200);
    assert_eq!(gate.get("/").status(), 200);
}
