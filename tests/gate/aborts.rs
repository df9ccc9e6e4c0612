//! Failure 40: a client that goes away is logged as a success or as the service's fault, and the service works on.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::request;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, now, until};

use crate::forwarding::before;

/// A service that sends `first`, is silent then, and tells how its connection ended.
fn silent(first: &'static str) -> (Upstream, Receiver<End>) {
    let (told, ended) = channel();
    let upstream = Upstream::script(move |peer| {
        if peer.head().is_ok() {
            peer.send(first);
            let _ = told.send(peer.wait_for_end(ms(10_000)));
        }
    });
    (upstream, ended)
}

/// How long after `leave` the service sees the end.
fn seen_after(ended: &Receiver<End>, leave: impl FnOnce()) -> Duration {
    let begun = now();
    leave();
    let end = ended.recv_timeout(ms(10_000)).unwrap();
    assert_ne!(end, End::Open);
    begun.elapsed()
}

/// What the gateway counts and logs of a client that left.
fn is_the_clients_doing(gate: &Binary, path: &str) {
    let line = gate.logged(path);
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client_gone")), "{line}");
    assert_eq!(line["reason"], serde_json::Value::Null);
    until(ms(5000), "the abort is counted", || gate.metric("pylon_client_aborts_total") == Some(1.0));
    let text = gate.admin("/metrics").text();
    assert!(!text.contains("pylon_upstream_requests_total{upstream=\"api\",status_class=\"none\"}"), "{text}");
    assert_eq!(gate.metric("pylon_upstream_connect_failures_total{upstream=\"api\"}"), Some(0.0));
    assert_eq!(gate.metric("pylon_requests_in_flight"), Some(0.0));
}

#[test]
fn a_client_that_leaves_before_the_answer_frees_the_service_at_once() {
    // The best of three: the machine may be busy elsewhere.
    let mut best = Duration::MAX;
    for round in 0..3 {
        let (upstream, ended) = silent("");
        let gate = before(&upstream, "");
        let mut client = gate.connect();
        client.send(request("GET", "/gone", &[], b""));
        until(ms(5000), "the service has the request", || !upstream.received(0).is_empty());
        // By a close in good order as well as by a reset.
        best = best.min(seen_after(&ended, || if round == 0 { drop(client) } else { client.abort() }));
        is_the_clients_doing(&gate, "/gone");
        if best <= ms(100) && round > 0 {
            return;
        }
    }
    panic!("the service saw it only after {best:?}");
}

#[test]
fn a_client_that_leaves_within_the_body_frees_the_service_at_once() {
    let (upstream, ended) = silent("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/gone", &[], b""));
    assert_eq!(client.head().status(), 200);
    assert_eq!(client.exactly(4), b"half");
    let took = seen_after(&ended, || client.abort());
    assert!(took < ms(1000), "the service saw it only after {took:?}");
    is_the_clients_doing(&gate, "/gone");
}

#[test]
fn a_client_that_leaves_within_its_upload_is_no_fault_of_the_service() {
    let (upstream, ended) = silent("");
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("POST", "/gone", &[("content-length", "100")], b"half"));
    until(ms(5000), "the service has the beginning", || upstream.received(0).ends_with(b"half"));
    let took = seen_after(&ended, || client.abort());
    assert!(took < ms(1000), "the service saw it only after {took:?}");
    is_the_clients_doing(&gate, "/gone");
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_its_answer() {
    let upstream = Upstream::http(|_| Answer::text("late").after(ms(200)));
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let answer = client.send(request("GET", "/half", &[], b"")).half_close().try_response("GET");
    // HTTP/1.1 leaves open whether a half-closed client is still there; what must not be is silence without an end.
    match answer {
        Ok(answer) => assert_eq!(answer.text(), "late"),
        Err(_) => assert_eq!(gate.logged("/half")["status"], 499),
    }
}

#[test]
fn connections_that_clients_broke_off_are_not_used_again() {
    let upstream = Upstream::http(|seen| match seen.target() {
        "/large" => Answer::bytes(5_000_000).field("x-tag", "large"),
        _ => Answer::text(&seen.field("x-tag").unwrap_or_default()),
    });
    let gate = before(&upstream, "");
    for round in 0..20 {
        let mut client = gate.connect();
        client.send(request("GET", "/large", &[], b""));
        assert_eq!(client.head().status(), 200);
        client.abort();
        let tag = round.to_string();
        assert_eq!(gate.ask("GET", "/", &[("x-tag", &tag)], b"").text(), tag);
    }
}
