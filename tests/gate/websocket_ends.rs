//! How a WebSocket ends, by whomever, and how many there can be. Failures 18 and 25.

use std::sync::mpsc::channel;
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, now, until};
use pylon_testkit::websocket::{
    BINARY, CLOSE, Frame, PING, PONG, TEXT, WebSocket, code, echo, from_client, handshake, next, switching,
};

use crate::websocket::{document, gate};

/// How much later than its limit something may come on a machine that is busy.
const SLACK: Duration = Duration::from_millis(1500);

#[test]
fn a_client_that_goes_takes_the_services_side_with_it() {
    let mut best = Duration::MAX;
    for round in 0..3 {
        let (told, ended) = channel();
        let upstream = Upstream::script(move |peer| {
            let Ok(request) = peer.request() else { return };
            peer.send(switching(&request, ""));
            let _ = told.send(peer.wait_for_end(ms(10_000)));
        });
        let gate = gate(&upstream, "true");
        let mut client = WebSocket::begin(gate.connect(), "/chat", &[]);
        client.send(TEXT, b"last words");
        let last = from_client(TEXT, b"last words");
        until(ms(5000), "the service has them", || upstream.received(0).ends_with(&last));
        let begun = now();
        if round == 0 {
            drop(client);
        } else {
            client.raw.abort();
        }
        assert_ne!(ended.recv_timeout(ms(10_000)).unwrap(), End::Open);
        best = best.min(begun.elapsed());
        let line = gate.logged("/chat");
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("client_gone")), "{line}");
        until(ms(2000), "nothing is open", || gate.metric("pylon_tunnels") == Some(0.0));
        assert_eq!(gate.metric("pylon_client_aborts_total"), Some(0.0));
        if best <= ms(100) && round > 0 {
            return;
        }
    }
    panic!("the service saw it only after {best:?}");
}

#[test]
fn a_service_that_goes_takes_the_clients_side_with_it() {
    for round in 0..2 {
        let upstream = Upstream::script(move |peer| {
            let Ok(request) = peer.request() else { return };
            peer.send(switching(&request, ""));
            let _ = next(peer);
            if round == 0 { peer.close() } else { peer.reset() }
        });
        let gate = gate(&upstream, "true");
        let mut client = WebSocket::begin(gate.connect(), "/chat", &[]);
        client.send(TEXT, b"go");
        let begun = now();
        client.raw.expect_closed();
        assert!(begun.elapsed() < SLACK, "after {:?}", begun.elapsed());
        drop(client);
        let line = gate.logged("/chat");
        assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(101), Some("upstream_broke")), "{line}");
    }
}

#[test]
fn a_client_that_goes_before_the_switch_is_a_client_that_went() {
    let (told, ended) = channel();
    let upstream = Upstream::script(move |peer| {
        let _ = peer.request();
        let _ = told.send(peer.wait_for_end(ms(10_000)));
    });
    let gate = gate(&upstream, "true");
    let mut client = gate.connect();
    client.send(handshake("/chat", &[]));
    until(ms(5000), "the service has the handshake", || upstream.requests() == 1);
    client.abort();
    assert_ne!(ended.recv_timeout(ms(10_000)).unwrap(), End::Open);
    let line = gate.logged("/chat");
    assert_eq!((line["status"].as_u64(), line["end"].as_str()), (Some(499), Some("client_gone")), "{line}");
    assert_eq!(gate.metric("pylon_tunnels"), Some(0.0));
}

#[test]
fn an_idle_connection_is_closed_and_one_with_pings_is_not() {
    let upstream = echo();
    let gate = gate(&upstream, "{ idle: 600ms }");
    let mut client = WebSocket::begin(gate.connect(), "/idle", &[]);
    for _ in 0..8 {
        pylon_testkit::wait::pause(ms(150));
        client.send(PING, b"");
        assert_eq!(client.frame().opcode, PONG);
    }
    let begun = now();
    assert_eq!(client.frame().code(), Some(1001));
    assert!(begun.elapsed() >= ms(550) && begun.elapsed() < ms(600) + SLACK, "after {:?}", begun.elapsed());
    client.send(CLOSE, &code(1001));
    client.raw.expect_closed();
    let line = gate.logged("/idle");
    assert_eq!((line["end"].as_str(), line["timer"].as_str()), (Some("timeout"), Some("idle")), "{line}");
}

#[test]
fn total_does_not_count_once_the_protocol_is_switched_but_max_lifetime_does() {
    let upstream = echo();
    let gate = Binary::start(&format!(
        "upstreams: {{ chat: {{ endpoints: [{}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: chat, timeout: {{ total: 300ms, idle: 300ms }}, websocket: {{ max_lifetime: 1s }} }}]",
        upstream.url()
    ));
    let begun = now();
    let mut client = WebSocket::begin(gate.connect(), "/old", &[]);
    pylon_testkit::wait::pause(ms(600));
    client.echoes(TEXT, b"still here");
    assert_eq!(client.frame().code(), Some(1001));
    assert!(begun.elapsed() >= ms(950) && begun.elapsed() < ms(1000) + SLACK, "after {:?}", begun.elapsed());
    client.send(CLOSE, &code(1001));
    assert_eq!(gate.logged("/old")["timer"], "max_lifetime");
}

#[test]
fn the_end_of_the_gateway_is_told_to_both_sides_and_waits_for_their_answers() {
    let (told, seen) = channel();
    let upstream = Upstream::script(move |peer| {
        let Ok(request) = peer.request() else { return };
        peer.send(switching(&request, ""));
        while let Ok(frame) = next(peer) {
            let _ = told.send(frame.clone());
            if frame.opcode == CLOSE {
                peer.send(pylon_testkit::websocket::from_service(CLOSE, &frame.payload));
                return;
            }
        }
    });
    let mut gate = gate(&upstream, "true");
    let mut clients: Vec<_> = (0..10).map(|_| WebSocket::begin(gate.connect(), "/chat", &[])).collect();
    // One is within a frame, which is let pass to its end.
    let long = from_client(BINARY, &[7; 500]);
    clients[0].raw.send(&long[..200]);
    until(ms(5000), "its beginning is with the service", || upstream.received(0).ends_with(&long[..200]));
    gate.process.terminate();
    for client in &mut clients {
        assert_eq!(client.frame().code(), Some(1001));
    }
    clients[0].raw.send(&long[200..]);
    for client in &mut clients {
        client.send(CLOSE, &code(1001));
        client.raw.expect_closed();
    }
    assert_eq!(gate.process.code(ms(5000)), Some(0));
    let frames: Vec<Frame> = (0..11).map_while(|_| seen.recv_timeout(ms(2000)).ok()).collect();
    assert_eq!(frames.iter().filter(|frame| frame.code() == Some(1001) && frame.masked).count(), 10, "{frames:?}");
    assert_eq!(frames.iter().filter(|frame| frame.payload == [7; 500]).count(), 1);
    until(ms(5000), "each has its line in the log", || {
        gate.log().iter().filter(|line| line["status"] == 101 && line["end"] == "drained").count() == 10
    });
}

#[test]
fn who_does_not_answer_the_close_is_cut_when_the_grace_is_over_and_is_in_the_log() {
    let upstream = Upstream::script(|peer| {
        let Ok(request) = peer.request() else { return };
        peer.send(switching(&request, ""));
        peer.wait_for_end(ms(10_000));
    });
    let mut gate = Binary::start_with(&document(&upstream, "true"), &["--grace", "400ms"], |_| {});
    let mut client = WebSocket::begin(gate.connect(), "/chat", &[]);
    gate.process.terminate();
    assert_eq!(client.frame().code(), Some(1001));
    assert_eq!(gate.process.code(ms(4000)), Some(0));
    until(ms(5000), "it says so", || gate.stderr().contains("cut connections"));
    assert_eq!(gate.logged("/chat")["end"], "drained");
}

#[test]
fn hundreds_at_once_get_their_own_messages_and_cost_little_while_they_are_idle() {
    const MANY: usize = 300;
    let upstream = echo();
    let gate = gate(&upstream, "true");
    // What the first ones bring with them once is not counted.
    let mut clients: Vec<_> = (0..50).map(|_| WebSocket::begin(gate.connect(), "/chat", &[])).collect();
    let talk = |clients: &mut Vec<WebSocket>| {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(TEXT, format!("message {number}").as_bytes());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.frame().payload, format!("message {number}").as_bytes());
        }
    };
    talk(&mut clients);
    let before = gate.metric("process_resident_memory_bytes").unwrap();
    clients.extend((0..MANY).map(|_| WebSocket::begin(gate.connect(), "/chat", &[])));
    talk(&mut clients);
    let each = (gate.metric("process_resident_memory_bytes").unwrap() - before) / MANY as f64;
    assert!(each < 24.0 * 1024.0, "an idle tunnel costs {each} bytes");
    assert_eq!(gate.metric("pylon_tunnels"), Some((MANY + 50) as f64));
    drop(clients);
    until(ms(5000), "all are over", || gate.metric("pylon_tunnels") == Some(0.0));
    assert_eq!(gate.metric("pylon_upstream_connections{upstream=\"chat\"}"), Some(0.0));
    assert_eq!(gate.metric("pylon_requests_in_flight"), Some(0.0));
}

#[test]
fn one_that_does_not_read_holds_its_service_back_and_nobody_else() {
    let (told, sent) = channel();
    let upstream = Upstream::script(move |peer| {
        let Ok(request) = peer.request() else { return };
        peer.send(switching(&request, ""));
        if request.target() == "/flood" {
            let piece = pylon_testkit::websocket::from_service(BINARY, &vec![1; 64 * 1024]);
            for number in 0..2000 {
                let _ = told.send(number);
                if !peer.send(&piece) {
                    return;
                }
            }
        } else {
            pylon_testkit::websocket::give_back(peer);
        }
    });
    let gate = gate(&upstream, "true");
    let _deaf = WebSocket::begin(gate.connect(), "/flood", &[]);
    let mut pieces = 0;
    while sent.recv_timeout(ms(400)).is_ok() {
        pieces += 1;
    }
    assert!(pieces < 400, "{pieces} pieces of 64 KiB were taken for a client that reads none");
    let mut other = WebSocket::begin(gate.connect(), "/chat", &[]);
    other.echoes(TEXT, b"hello");
}
