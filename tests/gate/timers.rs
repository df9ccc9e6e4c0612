//! Failure 33: one blunt timeout. Each step has a timer of its own; what is cut says which of them fired. Scaled.

use std::time::Duration;

use pylon_testkit::answer::{Answer, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::message::ReadError;
use pylon_testkit::upstream::{Full, Upstream};
use pylon_testkit::wait::{ms, now};

/// A gateway before this service with these timers.
fn gate(url: &str, timeout: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{url}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api, timeout: {timeout} }}]"
    ))
}

/// How much later than its limit a timer may fire on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1500);

/// Asks, and wants a 504 that names the timer, at its limit and not before, and a line in the log that does the same.
fn fires(gate: &Binary, timer: &str, limit: Duration) {
    let begun = now();
    let answer = gate.get("/slow");
    let took = begun.elapsed();
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert!(took >= limit && took < limit + SLACK, "the {timer} timer of {limit:?} fired after {took:?}");
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(detail, format!("the {timer} timer ({}ms) fired", limit.as_millis()));
    let line = gate.logged("/slow");
    assert_eq!((line["timer"].as_str(), line["reason"].as_str()), (Some(timer), Some("upstream.timeout")));
}

#[test]
fn a_service_that_accepts_nothing_is_cut_by_the_connect_timer() {
    let full = Full::new();
    // One of three tries at the same endpoint may take up the time of all.
    let gate = gate(&full.url(), "{ connect: 200ms, response: 10s }");
    let answer = gate.get("/slow");
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.json()["detail"], "the connect timer (200ms) fired");
    assert_eq!(gate.logged("/slow")["timer"], "connect");
}

#[test]
fn a_silent_service_is_cut_by_the_timer_that_is_due_first() {
    let upstream = Upstream::http(|_| Answer::text("late").after(ms(5000)));
    fires(&gate(&upstream.url(), "{ first_byte: 200ms, response: 10s }"), "first_byte", ms(200));
    fires(&gate(&upstream.url(), "300ms"), "response", ms(300));
    fires(&gate(&upstream.url(), "{ response: 10s, total: 250ms }"), "total", ms(250));
}

#[test]
fn half_a_head_is_no_answer() {
    let upstream = Upstream::script(|peer| {
        let _ = peer.request();
        peer.drip("HTTP/1.1 200 OK\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ms(50));
    });
    fires(&gate(&upstream.url(), "300ms"), "response", ms(300));
}

/// Asks for an answer that stops in its middle; it must end as one that is cut, with this timer in the log.
fn cuts_the_body(upstream: &Upstream, timeout: &str, timer: &str) {
    let gate = gate(&upstream.url(), timeout);
    let mut client = gate.connect();
    client.send(request("GET", "/body", &[], b""));
    match client.try_response("GET") {
        Err(ReadError::Cut(_) | ReadError::Io(_)) => {}
        other => panic!("half an answer passes for a whole one: {other:?}"),
    }
    let line = gate.logged("/body");
    assert_eq!(
        (line["timer"].as_str(), line["end"].as_str(), line["status"].as_u64()),
        (Some(timer), Some("timeout"), Some(200))
    );
}

#[test]
fn a_body_that_stops_is_cut_and_never_looks_whole() {
    let stalls = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").then(|| peer.send(chunk(b"one")));
        peer.wait_for_end(ms(8000));
    });
    cuts_the_body(&stalls, "{ idle: 200ms }", "idle");
    cuts_the_body(&stalls, "{ idle: 10s, total: 300ms }", "total");
    let sized = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello");
        peer.wait_for_end(ms(8000));
    });
    cuts_the_body(&sized, "{ idle: 200ms }", "idle");
}

#[test]
fn a_stream_of_events_outlives_the_timers_of_the_head() {
    let upstream = Upstream::http(|_| Answer::events(10, ms(200)));
    let gate = gate(&upstream.url(), "{ first_byte: 400ms, response: 500ms, idle: 1500ms }");
    let begun = now();
    let answer = gate.get("/events");
    assert!(begun.elapsed() >= ms(1800));
    assert_eq!(answer.text().matches("data: ").count(), 10);
    // Each event came when it was sent: none waited for the next.
    assert_eq!(answer.chunks.map(|chunks| chunks.len()), Some(10));
    let line = gate.logged("/events");
    assert_eq!((line["end"].as_str(), line["timer"].as_str()), (Some("complete"), None));
}

#[test]
fn a_slow_upload_that_goes_on_is_not_cut() {
    let upstream = Upstream::echo();
    let gate = gate(&upstream.url(), "{ response: 600ms, first_byte: 600ms, idle: 2s }");
    let mut client = gate.connect();
    client.send(request("POST", "/upload", &[("transfer-encoding", "chunked")], b""));
    for _ in 0..8 {
        client.send(chunk(b"x"));
        pylon_testkit::wait::pause(ms(200));
    }
    client.send("0\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["body"], "xxxxxxxx");
}

#[test]
fn an_upload_that_stops_is_cut_as_the_clients_doing() {
    let upstream = Upstream::echo();
    let gate = crate::forwarding::before(&upstream, "limits: { body_timeout: 400ms }\ndefaults: { timeout: 200ms }");
    let mut client = gate.connect();
    client.send(request("POST", "/upload", &[("content-length", "100")], b"begun"));
    let begun = now();
    let answer = client.response();
    let took = begun.elapsed();
    assert!(took >= ms(350) && took < ms(400) + SLACK, "after {took:?}");
    assert_eq!((answer.status(), answer.code().as_deref()), (408, Some("request.timeout")), "{}", answer.text());
    client.expect_closed();
    let line = gate.logged("/upload");
    assert_eq!((line["timer"].as_str(), line["status"].as_u64()), (Some("client_body"), Some(408)), "{line}");
    let text = gate.admin("/metrics").text();
    assert!(!text.contains("pylon_upstream_requests_total{upstream=\"api\",status_class=\"none\"}"), "{text}");
}

#[test]
fn a_client_that_never_ends_its_head_is_told_408_and_closed() {
    let gate =
        Binary::start("limits: { header_timeout: 300ms, idle_timeout: 400ms }\nroutes: [{ match: /, respond: 200 }]");
    let mut client = gate.connect();
    client.send("GET / HTTP/1.1\r\nhost: ga");
    let begun = now();
    let answer = client.response();
    assert!(begun.elapsed() < ms(300) + SLACK);
    assert_eq!((answer.status(), answer.code().as_deref()), (408, Some("request.timeout")));
    assert_eq!(answer.json()["detail"], "the client_header timer (300ms) fired (limits.header_timeout)");
    client.expect_closed();
    assert_eq!(gate.logged("*")["reason"], "request.timeout");
}

#[test]
fn a_connection_without_requests_is_closed_in_silence() {
    let gate =
        Binary::start("limits: { header_timeout: 300ms, idle_timeout: 400ms }\nroutes: [{ match: /, respond: 200 }]");
    let mut fresh = gate.connect();
    let mut used = gate.connect();
    assert_eq!(used.get("/").status(), 200);
    let begun = now();
    used.expect_closed();
    assert!(begun.elapsed() >= ms(350) && begun.elapsed() < ms(400) + SLACK, "after {:?}", begun.elapsed());
    fresh.expect_closed();
}
