//! Two gateways behind a balancer are started again, one after the other, under load (failure 25: shutdown loses requests).

use std::net::{SocketAddr, TcpListener};
use std::thread;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::load::{Load, Plan};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};
use pylon_testkit::websocket::{CLOSE, TEXT, WebSocket, code, echo};

/// An address that stays free while nobody listens there: nothing else uses this part of loopback.
pub(crate) fn free(last: u8) -> SocketAddr {
    TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 25, last), 0)).unwrap().local_addr().unwrap()
}

/// How many requests the service has seen by this gateway.
fn forwarded(gate: &Binary) -> f64 {
    gate.metric("pylon_requests_total{route=\"/\",status_class=\"2xx\"}").unwrap_or_default()
}

#[test]
fn a_rolling_restart_behind_a_balancer_loses_no_request() {
    let (service, sockets) = (Upstream::named("x"), echo());
    let places = [(free(1), free(2)), (free(3), free(4))];
    let start = |(address, admin): (SocketAddr, SocketAddr)| {
        let document = format!(
            "listeners: [{{ address: \"{address}\" }}]\nadmin: {{ address: \"{admin}\" }}\n\
             upstreams: {{ api: {{ endpoints: [{}] }}, ws: {{ endpoints: [{}] }} }}\nroutes:\n  \
               - {{ match: /, forward: api }}\n  - {{ match: /ws, forward: ws, websocket: true }}\n",
            service.url(),
            sockets.url()
        );
        Binary::start_with(&document, &["--drain-delay", "1s"], |_| {})
    };
    let mut gates = places.map(start);
    let balancer = Haproxy::start(|address| {
        let server = |number: usize| {
            let (address, admin) = places[number];
            format!(
                " server s{number} {address} check addr {} port {} inter 100ms fall 2 rise 1\n",
                admin.ip(),
                admin.port()
            )
        };
        format!(
            "listen gates\n bind {address}\n balance roundrobin\n option httpchk\n \
             http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost\n{}{}",
            server(0),
            server(1)
        )
    });
    let address = balancer.address();
    // Nobody says anything on these: whoever ends them has to tell why.
    let idle: Vec<_> = (0..6)
        .map(|_| {
            let mut socket = WebSocket::begin(Raw::connect(address), "/ws", &[]);
            socket.echoes(TEXT, b"hello");
            thread::spawn(move || {
                assert_eq!(socket.frame().code(), Some(1001));
                socket.send(CLOSE, &code(1001));
                socket.raw.expect_closed();
            })
        })
        .collect();
    let load = Load::start(&Plan { address, clients: 8, rate: 400, path: "/", text: "x" });
    for number in 0..2 {
        until(ms(9000), "both serve", || gates.iter().all(|gate| forwarded(gate) > 20.0));
        let goodbyes = load.goodbyes();
        assert_eq!(gates[number].end(), Some(0), "{}", gates[number].stderr());
        assert!(load.goodbyes() > goodbyes, "connections that are kept are told that they end");
        gates[number] = start(places[number]);
    }
    until(ms(9000), "both serve again", || gates.iter().all(|gate| forwarded(gate) > 20.0));
    load.end();
    for socket in idle {
        socket.join().expect("an idle WebSocket is told 1001");
    }
}
