//! The PROXY protocol out: services learn of the client by the first bytes of a connection, which is for that client alone.

use pylon_testkit::answer::Answer;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::command::pylon;
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::{Peer, Upstream};
use pylon_testkit::wait::{ms, until};

/// A gateway that tells this endpoint of its clients.
fn gate(version: &str, endpoint: &str, more: &str) -> Binary {
    Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [\"{endpoint}\"], proxy_protocol: {version} }} }}\n\
         routes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}"
    ))
}

/// A service that takes one line and then answers requests for as long as it is asked.
fn after_a_line() -> Upstream {
    Upstream::script(|peer: &mut Peer| {
        while peer.exactly(1).is_ok_and(|byte| byte != b"\n") {}
        peer.serve(|_| Answer::text("told"));
    })
}

fn begins(service: &Upstream, connection: usize) -> String {
    let bytes = String::from_utf8(service.received(connection)).unwrap();
    bytes.lines().next().unwrap().to_owned()
}

#[test]
fn nginx_and_haproxy_learn_the_clients_address_and_port() {
    for version in ["v1", "v2"] {
        let port = Upstream::nobody();
        let told = "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port";
        let nginx = Nginx::start(&format!("listen {port} proxy_protocol; return 200 \"{told}\";"));
        let gate_to_nginx = gate(version, &format!("http://{port}"), "");
        let mut client = Raw::connect_from("127.0.0.9", gate_to_nginx.address());
        let expected = format!("127.0.0.9 {} {}", client.local().port(), gate_to_nginx.address().port());
        assert_eq!(client.get("/").text(), expected, "{version}");
        assert_eq!(client.get("/").text(), expected, "{version}");
        drop(nginx);
        let haproxy = Haproxy::start(|address| {
            format!(
                "frontend f\n bind {address} accept-proxy\n mode http\n \
                 http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\""
            )
        });
        let gate_to_haproxy = gate(version, &format!("http://{}", haproxy.address()), "");
        let mut client = Raw::connect_from("127.0.0.9", gate_to_haproxy.address());
        let expected = format!("127.0.0.9 {}", client.local().port());
        assert_eq!(client.get("/").text(), expected, "{version}");
    }
}

#[test]
fn no_connection_is_ever_used_for_another_client() {
    let service = after_a_line();
    let document = format!(
        "workers: 1\nupstreams: {{ api: {{ endpoints: [{0}], proxy_protocol: v1 }}, plain: {{ endpoints: [{0}] }} }}\n\
         routes: [{{ match: /a, forward: api }}, {{ match: /p, forward: plain }}]",
        service.url()
    );
    let gate = Binary::start(&document);
    let clients = ["127.0.0.7", "127.0.0.8", "127.0.0.9"];
    for _ in 0..2 {
        for client in clients {
            assert_eq!(Raw::connect_from(client, gate.address()).get("/a").text(), "told");
        }
    }
    assert_eq!(service.connections(), 6);
    for (n, client) in clients.iter().cycle().take(6).enumerate() {
        assert!(begins(&service, n).starts_with(&format!("PROXY TCP4 {client} 127.0.0.1 ")), "{}", begins(&service, n));
    }
    // Nor by an upstream at the same place that says nothing of clients, and the other way round.
    let mut client = gate.connect();
    client.get("/a");
    let _ = client.send("GET /p HTTP/1.1\r\nhost: a\r\n\r\n").try_response("GET");
    assert_eq!(service.connections(), 8);
    assert!(begins(&service, 7).starts_with("GET /p "));
}

#[test]
fn who_is_told_is_the_one_client_address() {
    let service = after_a_line();
    let gate = gate("v1", &service.url(), "trusted_proxies: 127.0.0.1");
    gate.ask("GET", "/", &[("x-forwarded-for", "2001:db8::1")], b"");
    let port = gate.address().port();
    assert_eq!(begins(&service, 0), format!("PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 0 {port}"));
}

#[test]
fn the_header_comes_before_tls_and_is_understood_by_the_gate_itself() {
    let authority = Authority::default();
    let document = "listeners: [{ address: 127.0.0.1:0, proxy_protocol: 127.0.0.1, \
                    tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n\
                    routes: [{ match: \"/{*rest}\", respond: { body: hello } }]";
    let service =
        Binary::start_with(document, &[], |folder| authority.issue(&["localhost", "127.0.0.1"]).write(folder, "a"));
    for version in ["v1", "v2"] {
        let document = format!(
            "upstreams: {{ api: {{ endpoints: [\"https://{}\"], proxy_protocol: {version}, tls: {{ ca: ca.pem }} }} }}\n\
             routes: [{{ match: \"/{{*rest}}\", forward: api }}]",
            service.address()
        );
        let gate = Binary::start_with(&document, &[], |folder| {
            std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        });
        for from in ["127.0.0.8", "127.0.0.9"] {
            let path = format!("/{version}/{from}");
            assert_eq!(Raw::connect_from(from, gate.address()).get(&path).text(), "hello");
            let line = service.logged(&path);
            // HTTP/2 would be agreed on, were the connection not for one client.
            assert_eq!((line["client"].as_str(), line["protocol"].as_str()), (Some(from), Some("HTTP/1.1")));
        }
    }
}

#[test]
fn what_contradicts_a_client_for_each_connection_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (upstream, words) in [
        ("endpoints: [http://a:1], proxy_protocol: v2, protocol: http2", "write `protocol: http1`"),
        ("endpoints: [http://a:1], proxy_protocol: v3", "v3"),
        ("endpoints: [http://a:1], proxy_protocol:", "proxy_protocol"),
        ("endpoints: [\"tcp://a:1\"], protocol: http1", "leave `protocol` out"),
    ] {
        let document = format!("listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ {upstream} }} }}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert!(outcome.code == Some(2) && outcome.stderr.contains(words), "{upstream}: {}", outcome.stderr);
    }
}

#[test]
fn bytes_that_are_carried_are_announced_as_well() {
    let service = Upstream::script(|peer| {
        while peer.exactly(1).is_ok_and(|byte| byte != b"\n") {}
        while let Ok(bytes) = peer.some() {
            if bytes.is_empty() || !peer.send(bytes) {
                return;
            }
        }
    });
    let gate = Binary::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, tcp: db }}]\n\
         upstreams: {{ db: {{ endpoints: [\"tcp://{}\"], proxy_protocol: v1 }} }}\n",
        service.address()
    ));
    let mut client = gate.connect();
    assert_eq!(client.send("hello").exactly(5), b"hello");
    let (from, to) = (client.local().port(), gate.address().port());
    assert_eq!(begins(&service, 0), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}"));
    client.half_close().expect_closed();
    until(ms(2000), "it is over", || gate.metric("pylon_upstream_connections{upstream=\"db\"}") == Some(0.0));
}
