//! How a gateway goes behind a balancer: what its clients see, in which order, and that nobody in the queue is lost
//! (failure 25).

use std::net::SocketAddr;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, get, request};
use pylon_testkit::http2::Http2;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};
use pylon_testkit::websocket::{TEXT, WebSocket, echo};

/// A gateway that goes on accepting for so long after SIGTERM, before a service that answers `x`, and one of WebSockets.
fn gate(delay: &str) -> (Binary, Upstream, Upstream) {
    let (service, sockets) = (Upstream::named("x"), echo());
    let document = format!(
        "upstreams: {{ api: {{ endpoints: [{}] }}, ws: {{ endpoints: [{}] }} }}\n\
         routes:\n  - {{ match: /ws, forward: ws, websocket: true }}\n  - {{ match: \"/{{*rest}}\", forward: api }}\n",
        service.url(),
        sockets.url()
    );
    (Binary::start_with(&document, &["--drain-delay", delay], |_| {}), service, sockets)
}

fn uri(address: SocketAddr) -> String {
    format!("http://{address}/")
}

#[test]
fn a_balancer_sees_the_end_coming_while_everybody_is_served() {
    let (mut gate, _service, _sockets) = gate("1s");
    let address = gate.address();
    let (mut kept, mut idle) = (gate.connect(), gate.connect());
    assert_eq!(kept.get("/").field("connection"), None);
    assert_eq!(idle.get("/").status(), 200);
    let mut socket = WebSocket::begin(gate.connect(), "/ws", &[]);
    let mut http2 = Http2::connect(address);
    assert_eq!(http2.ask("GET", &uri(address), &[], b"").unwrap().text(), "x");

    let asked = now();
    gate.process.terminate();
    until(ms(900), "it is not ready any more", || gate.admin("/readyz").status() == 503);
    let answer = kept.get("/");
    assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("x", Some("close")));
    kept.expect_closed();
    let answer = get(address, "/");
    assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("x", Some("close")), "a new one");
    socket.echoes(TEXT, b"still here");
    let mut switched = WebSocket::begin(gate.connect(), "/ws", &[]);
    switched.echoes(TEXT, b"and new ones");
    let answer = http2.ask("GET", &uri(address), &[], b"").unwrap();
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("x", None));
    assert!(!http2.has_ended(), "nothing is ended by the gateway before the delay is over");

    assert_eq!(socket.frame().code(), Some(1001));
    assert!(asked.elapsed() >= ms(1000), "the drain began early");
    assert_eq!(switched.frame().code(), Some(1001));
    socket.send(pylon_testkit::websocket::CLOSE, &[3, 233]);
    switched.send(pylon_testkit::websocket::CLOSE, &[3, 233]);
    idle.expect_closed();
    http2.end().expect("a connection of HTTP/2 ends by a GOAWAY that is no error");
    assert_eq!(gate.process.code(ms(5000)), Some(0));
    assert!(Raw::try_connect(address).is_err());
}

#[test]
fn a_second_signal_ends_the_delay_and_everything_else() {
    let (mut gate, _service, _sockets) = gate("9s");
    gate.process.terminate();
    until(ms(5000), "the first signal is heard", || gate.stderr().contains("a second signal ends at once"));
    assert_eq!(gate.get("/").status(), 200);
    gate.process.terminate();
    assert_eq!(gate.process.code(ms(2000)), Some(130));
}

#[test]
fn ctrl_c_is_not_delayed() {
    let (mut gate, _service, _sockets) = gate("60s");
    gate.process.interrupt();
    assert_eq!(gate.process.code(ms(5000)), Some(0));
}

#[test]
fn who_waits_in_the_queue_when_the_end_comes_is_served() {
    let (mut gate, _service, _sockets) = gate("off");
    gate.process.freeze();
    let mut clients: Vec<_> = (0..300).map(|_| gate.connect()).collect();
    let (later, at_once) = clients.split_at_mut(50);
    for client in at_once.iter_mut() {
        client.send(request("GET", "/", &[], b""));
    }
    gate.process.terminate();
    gate.process.thaw();
    pause(ms(100));
    // Their handshakes were over before the end began, and their requests come behind it.
    for client in later.iter_mut() {
        client.send(request("GET", "/", &[], b""));
    }
    for client in &mut clients {
        let answer = client.response();
        assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("x", Some("close")));
    }
    assert_eq!(gate.process.code(ms(5000)), Some(0));
}

#[test]
fn a_request_that_comes_in_pieces_around_the_end_is_answered() {
    let (mut gate, _service, _sockets) = gate("off");
    let mut client = gate.connect();
    client.get("/");
    client.send("GET / HTTP/1.1\r\nho");
    pause(ms(50));
    gate.process.terminate();
    until(ms(5000), "the end has begun", || Raw::try_connect(gate.admin).is_err() || gate.stderr().contains("ending"));
    pause(ms(700));
    let answer = client.send("st: gate.test\r\n\r\n").response();
    assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("x", Some("close")));
    client.expect_closed();
    assert_eq!(gate.process.code(ms(5000)), Some(0));
}
