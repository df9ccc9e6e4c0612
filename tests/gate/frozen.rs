//! Failure 24: a service that stands still while connections to it are made, and goes on later. Nobody has to restart anything.
//!
//! The service is a real nginx that is stopped by SIGSTOP. The kernel goes on answering for it: connections stand, and
//! nothing comes on them; once the queue of such connections is full, they do not even stand.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_millis(1000);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(1500);

/// A gateway before `endpoint` at `/slow`, and before another service elsewhere.
fn gate(endpoint: &str, upstream: &str, authority: &Authority) -> (Binary, Upstream) {
    let other = Upstream::named("other");
    let document = format!(
        "workers: 1
upstreams:
  slow: {{ endpoints: [\"{endpoint}\"], timeout: {{ connect: 1s, response: 3s }}, {upstream} }}
  other: {{ endpoints: [\"{}\"] }}
routes:
  - {{ match: \"/slow/{{*rest}}\", forward: slow }}
  - {{ match: \"/{{*rest}}\", forward: other }}",
        other.url()
    );
    let prepare = |folder: &std::path::Path| std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    (Binary::start_with(&document, &[], prepare), other)
}

/// The service stands still while connections are made, and comes back while others are. `fills` has its kernel take none.
fn survives(service: &Nginx, endpoint: &str, upstream: &str, authority: &Authority, fills: bool) {
    let (gate, _other) = gate(endpoint, upstream, authority);
    service.process.freeze();
    let filling = if fills { fill(service.address()) } else { Vec::new() };
    let began = now();
    std::thread::scope(|scope| {
        let stuck: Vec<_> = (0..8)
            .map(|number| {
                let gate = &gate;
                scope.spawn(move || gate.get(&format!("/slow/{number}")).status())
            })
            .collect();
        // Who asks another service does not notice, however many dials are stuck on the same worker.
        while stuck.iter().any(|client| !client.is_finished()) {
            let asked = now();
            assert_eq!(gate.get("/other").text(), "other");
            assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
        }
        for client in stuck {
            assert_eq!(client.join().unwrap(), 504);
        }
    });
    assert!(began.elapsed() < ms(3000) + SLACK, "{:?}", began.elapsed());
    // Some are being made while it comes back.
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8).map(|_| scope.spawn(|| gate.get("/slow/again").status())).collect();
        until(ms(5000), "they have begun", || in_flight(&gate) >= 8);
        service.process.thaw();
        drop(filling);
        let back = now();
        until(CONNECT + SLACK, "a request succeeds", || gate.get("/slow/x").status() == 200);
        assert!(back.elapsed() <= CONNECT + SLACK, "{:?}", back.elapsed());
        for client in waiting {
            // Whether it was in time for them does not matter, but they end.
            assert!(matches!(client.join().unwrap(), 200 | 504));
        }
    });
    for _ in 0..20 {
        assert_eq!(gate.get("/slow/x").status(), 200, "nothing of it is left");
    }
}

fn in_flight(gate: &Binary) -> u64 {
    let view: serde_json::Value = serde_json::from_str(&gate.admin("/api/upstreams").text()).unwrap();
    let all = view.as_array().unwrap().iter().flat_map(|upstream| upstream["endpoints"].as_array().unwrap());
    all.map(|endpoint| endpoint["in_flight"].as_u64().unwrap()).sum()
}

/// Connections to a service that does not accept, until no more are taken.
fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let connections = (0..64).map_while(|_| TcpStream::connect_timeout(&address, ms(300)).ok());
    let connections: Vec<_> = connections.collect();
    assert!(connections.len() < 64, "the queue of the service does not fill");
    connections
}

#[test]
fn a_service_whose_kernel_takes_no_connection_is_back_as_soon_as_it_does() {
    let service = Nginx::listening("backlog=1", "location / { return 200; }");
    survives(&service, &service.url(), "protocol: auto", &Authority::default(), true);
}

#[test]
fn a_service_that_stops_in_the_handshake_of_tls_is_back_as_soon_as_it_goes_on() {
    let authority = Authority::default();
    let folder = tempfile::tempdir().unwrap();
    authority.issue(&["localhost"]).write(folder.path(), "service");
    let at = folder.path().display();
    let lines =
        format!("ssl_certificate {at}/service.pem; ssl_certificate_key {at}/service.key; location / {{ return 200; }}");
    let service = Nginx::listening("ssl", &lines);
    let endpoint = format!("https://localhost:{}", service.address().port());
    survives(&service, &endpoint, "tls: { ca: ca.pem }", &authority, false);
}

#[test]
fn a_service_that_stops_before_its_first_frame_of_http_2_is_back_as_soon_as_it_goes_on() {
    let service = Nginx::listening("http2", "location / { return 200; }");
    survives(&service, &service.url(), "protocol: http2", &Authority::default(), false);
}

#[test]
fn an_endpoint_that_takes_no_connection_holds_nobody_up_for_longer_than_the_connect_timer() {
    let (stuck, good) = (Nginx::listening("backlog=1", "location / { return 200; }"), Upstream::named("good"));
    let gate = Binary::start(&format!(
        "workers: 1
upstreams: {{ api: {{ endpoints: [\"{}\", \"{}\"], timeout: {{ connect: 1s }} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        stuck.url(),
        good.url()
    ));
    stuck.process.freeze();
    let _filling = fill(stuck.address());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let asked = now();
                assert_eq!(gate.get("/x").text(), "good");
                assert!(asked.elapsed() < CONNECT + SLACK, "{:?}", asked.elapsed());
            });
        }
    });
    stuck.process.thaw();
}
