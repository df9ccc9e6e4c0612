//! Caps on connections, in all and for each address: who is let in, who has to go, and what is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::{PREFACE, frame, hpack};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};

use crate::forwarding::before;
use crate::http2::frames;

/// A service that answers `/held` once it is let, and everything else at once.
fn holding() -> (Upstream, Arc<AtomicBool>) {
    let let_go = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&let_go);
    let upstream = Upstream::http(move |request| {
        if request.target() == "/held" {
            until(ms(20_000), "it is let go", || wait.load(SeqCst));
        }
        Answer::text("hello")
    });
    (upstream, let_go)
}

/// Whether a new connection is served.
fn is_served(gate: &Binary) -> bool {
    let mut client = gate.connect();
    client.try_send(request("GET", "/", &[], b"")).is_ok() && client.try_response("GET").is_ok()
}

fn ended(client: &mut Raw) -> bool {
    client.patience(ms(3000)).some().map_or(true, |bytes| bytes.is_empty())
}

#[test]
fn ten_are_ten_and_the_one_that_has_been_idle_for_the_longest_makes_room() {
    let (upstream, _) = holding();
    let gate = before(&upstream, "workers: 1\nlimits: { connections: 10 }");
    let mut clients: Vec<Raw> = (0..10).map(|_| gate.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello");
        pause(ms(5));
    }
    // The first has been busy since; so the second is the one.
    assert_eq!(clients[0].get("/").text(), "hello");
    let mut eleventh = gate.connect();
    assert_eq!(eleventh.get("/").text(), "hello");
    assert!(ended(&mut clients[1]));
    assert_eq!(gate.metric("pylon_connections"), Some(10.0));
    assert_eq!(gate.metric("pylon_connections_max"), Some(10.0));
    assert_eq!(gate.metric("pylon_connections_evicted_total{reason=\"idle\"}"), Some(1.0));
    for at in [0, 2, 3, 4, 5, 6, 7, 8, 9] {
        assert_eq!(clients[at].get("/").text(), "hello", "{at} had no need to go");
    }
}

#[test]
fn who_is_being_served_stays_and_the_new_one_is_turned_away() {
    let (upstream, let_go) = holding();
    let gate = before(&upstream, "workers: 2\nlimits: { connections: 10 }");
    let mut clients: Vec<Raw> = (0..10).map(|_| gate.connect()).collect();
    for client in &mut clients {
        client.send(request("GET", "/held", &[], b""));
    }
    until(ms(10_000), "all are busy", || upstream.requests() == 10);
    for _ in 0..20 {
        assert!(!is_served(&gate), "not ten for each worker");
    }
    assert_eq!(gate.metric("pylon_connections_refused_total{reason=\"connections\"}"), Some(20.0));
    let_go.store(true, SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
    }
    drop(clients);
    until(ms(5000), "there is room again", || is_served(&gate));
}

#[test]
fn heads_that_do_not_end_make_room_where_nobody_is_idle() {
    let (upstream, let_go) = holding();
    let gate = before(&upstream, "workers: 1\nlimits: { connections: 4, header_timeout: 60s }");
    let mut slow = gate.connect();
    slow.send("GET / HTTP/1.1\r\nhost: ga");
    let mut busy: Vec<Raw> = (0..3).map(|_| gate.connect()).collect();
    for client in &mut busy {
        client.send(request("GET", "/held", &[], b""));
    }
    until(ms(10_000), "all are busy", || upstream.requests() == 3);
    pause(ms(50));
    assert_eq!(gate.get("/").text(), "hello");
    assert!(ended(&mut slow));
    assert_eq!(gate.metric("pylon_connections_evicted_total{reason=\"slow\"}"), Some(1.0));
    let_go.store(true, SeqCst);
    for client in &mut busy {
        assert_eq!(client.response().text(), "hello");
    }
}

#[test]
fn an_idle_connection_of_http_2_is_told_before_it_goes() {
    let (upstream, _) = holding();
    let gate = before(&upstream, "workers: 1\nlimits: { connections: 1 }");
    // By hand: a client that answers the GOAWAY finds the connection closed, and may tell of that instead.
    let mut idle = gate.connect();
    let head = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "gate.test"), (":path", "/")]);
    idle.send([PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &head)].concat());
    until(ms(5000), "it is served", || upstream.requests() == 1);
    until(ms(5000), "another is let in", || is_served(&gate));
    let seen = frames(&idle.rest());
    assert!(seen.iter().any(|(kind, stream, payload)| (*kind, *stream, &payload[..]) == (0, 1, b"hello")), "{seen:?}");
    let goodbye = seen.iter().find(|(kind, ..)| *kind == 7).expect("it ends by GOAWAY");
    assert_eq!(goodbye.2[4..8], [0; 4], "without an error");
}

#[test]
fn an_address_has_its_share_and_proxies_are_not_counted() {
    let (upstream, let_go) = holding();
    for (trusted, served) in [("[]", false), ("127.0.0.1", true)] {
        let more = format!("limits: {{ connections_per_address: 3 }}\ntrusted_proxies: {trusted}");
        let gate = before(&upstream, &more);
        let mut clients: Vec<Raw> = (0..3).map(|_| gate.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.get("/").text(), "hello");
        }
        assert_eq!(is_served(&gate), served, "trusted: {trusted}");
        let mut neighbour = Raw::connect_from("127.0.0.2", gate.address());
        assert_eq!(neighbour.get("/").text(), "hello");
        let refused = gate.metric("pylon_connections_refused_total{reason=\"connections_per_address\"}");
        assert_eq!(refused, Some(if served { 0.0 } else { 1.0 }));
        // Nobody had to go for one that is turned away, and each that leaves makes room.
        assert_eq!(clients[0].get("/").text(), "hello");
        clients.pop();
        until(ms(5000), "there is room again", || is_served(&gate));
    }
    let_go.store(true, SeqCst);
}

#[test]
fn while_memory_is_short_nothing_new_is_taken_in() {
    let (upstream, let_go) = holding();
    // Less than any process has.
    let gate = before(&upstream, "workers: 1\nlimits: { memory: 1MiB }");
    let mut busy = gate.connect();
    busy.send(request("GET", "/held", &[], b""));
    until(ms(10_000), "it is served", || upstream.requests() == 1);
    let mut idle = gate.connect();
    until(ms(10_000), "memory is short", || gate.metric("pylon_shedding") == Some(1.0));
    assert!(!is_served(&gate));
    assert!(ended(&mut idle));
    assert_eq!(gate.admin("/readyz").status(), 503);
    until(ms(5000), "the log tells it", || gate.stderr().contains("memory is short"));
    let refused = gate.metric("pylon_connections_refused_total{reason=\"memory\"}").unwrap();
    assert!(refused >= 1.0);
    // What is under way goes on; what comes behind it on the same connection is told when to come again.
    let_go.store(true, SeqCst);
    assert_eq!(busy.response().text(), "hello");
    if busy.try_send(request("GET", "/next", &[], b"")).is_ok()
        && let Ok(answer) = busy.try_response("GET")
    {
        assert_eq!((answer.status(), answer.code().as_deref()), (503, Some("gateway.overloaded")));
        assert!(answer.field("retry-after").is_some());
    }
}
