//! The PROXY protocol in: whom it is believed, what else becomes of those who must speak it, and who the client is then.

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::command::pylon;
use pylon_testkit::haproxy::Haproxy;
use pylon_testkit::nginx::Nginx;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, until};

const V1: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n";
/// `203.0.113.9:4711`, and an addition that is passed over.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x15\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb\x02\0\x06a.test";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A gateway that believes these balancers, and a service behind it; `more` are further lines of its document.
fn gate(from: &str, more: &str) -> (Binary, Upstream) {
    let echo = Upstream::echo();
    let gate = Binary::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: {from} }}]\n\
         upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}",
        echo.url()
    ));
    (gate, echo)
}

/// The client as the service is told, by a connection that begins with `header`.
fn client(gate: &Binary, path: &str, header: &[u8]) -> String {
    let mut raw = gate.connect();
    // In one piece: nothing behind the header may be lost.
    let answer = raw.send([header, &request("GET", path, &[], b"")].concat()).response();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()["headers"]["x-forwarded-for"].as_str().unwrap().to_owned()
}

fn refused(gate: &Binary) -> u64 {
    gate.metric("pylon_proxy_headers_refused_total").unwrap() as u64
}

#[test]
fn a_balancer_tells_the_client_in_either_version_and_in_pieces() {
    let (gate, echo) = gate("127.0.0.0/8", "");
    assert_eq!(client(&gate, "/1", V1.as_bytes()), "203.0.113.9");
    assert_eq!(client(&gate, "/2", V2), "203.0.113.9");
    assert_eq!(client(&gate, "/6", b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"), "2001:db8::1");
    for path in ["/1", "/2"] {
        assert_eq!(gate.logged(path)["client"], "203.0.113.9");
    }
    for header in [V1.as_bytes(), V2] {
        let mut raw = gate.connect();
        for byte in header.iter().chain(b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n") {
            raw.send([*byte]);
        }
        assert_eq!(raw.response().json()["headers"]["x-forwarded-for"], "203.0.113.9");
        // The connection keeps its client.
        assert_eq!(raw.get("/c").json()["headers"]["x-forwarded-for"], "203.0.113.9");
    }
    assert_eq!(echo.requests(), 7);
    assert_eq!(refused(&gate), 0);
}

#[test]
fn what_a_balancer_says_of_itself_leaves_the_address_of_the_socket() {
    let (gate, _echo) = gate("{ from: [127.0.0.1] }", "");
    for header in [LOCAL, b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"] {
        assert_eq!(client(&gate, "/", header), "127.0.0.1");
    }
}

#[test]
fn nobody_else_is_believed_and_nobody_else_needs_a_header() {
    let (gate, echo) = gate("[127.0.0.9, 10.0.0.0/8]", "");
    assert_eq!(client(&gate, "/", b""), "127.0.0.1");
    for header in [V1.as_bytes(), V2] {
        let mut raw = gate.connect();
        raw.send([header, &request("GET", "/forged", &[], b"")].concat());
        assert_eq!(raw.response().status(), 400);
        assert!(raw.rest().is_empty());
    }
    assert_eq!((echo.requests(), refused(&gate)), (1, 0));
    let mut balancer = Raw::connect_from("127.0.0.9", gate.address());
    assert_eq!(balancer.send(V1).get("/").json()["headers"]["x-forwarded-for"], "203.0.113.9");
}

#[test]
fn a_balancer_without_a_header_that_can_be_used_is_cut_off_and_counted() {
    let (gate, echo) = gate("127.0.0.0/8", "limits: { handshake_timeout: 400ms }");
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    let bad: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PROXY TCP4 203.0.113.9\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        long.as_bytes(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x12\x67\x01\xbb",
    ];
    for bytes in bad {
        let mut raw = gate.connect();
        // What was sent behind the header is unread, so the end may be a reset.
        assert!(raw.send(bytes).some().unwrap_or_default().is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    }
    until(ms(2000), "each is counted", || refused(&gate) == 8);
    // A slow one has the time of a handshake, whether it is silent, comes bit by bit, or ends.
    let began = now();
    let (mut silent, mut half) = (gate.connect(), gate.connect());
    half.send("PROXY TCP4");
    assert!(silent.rest().is_empty() && half.some().unwrap_or_default().is_empty());
    assert!(began.elapsed() >= ms(390) && began.elapsed() < ms(5000), "{:?}", began.elapsed());
    gate.connect().send("PROXY").half_close().expect_closed();
    until(ms(2000), "they are counted", || refused(&gate) == 11);
    // One that only looks whether somebody is there is no fault.
    gate.connect().half_close().expect_closed();
    until(ms(2000), "nothing is left open", || gate.metric("pylon_connections") == Some(0.0));
    assert_eq!((refused(&gate), echo.requests()), (11, 0));
}

#[test]
fn the_header_comes_before_tls() {
    let authority = Authority::default();
    let document = "listeners: [{ address: 127.0.0.1:0, proxy_protocol: 127.0.0.1, \
                    tls: { certificates: [{ cert: a.pem, key: a.key }] } }]\n\
                    routes: [{ match: \"/{*rest}\", respond: { body: hello } }]";
    let gate = Binary::start_with(document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
    for (path, header) in [("/1", V1.as_bytes()), ("/2", V2)] {
        let mut raw = gate.connect();
        raw.send(header);
        let mut client = raw.try_tls(&authority.plain_client(), "gate.test").unwrap();
        assert_eq!(client.get(path).text(), "hello");
        assert_eq!(gate.logged(path)["client"], "203.0.113.9");
    }
    // Under TLS it would be the client's own.
    let mut raw = gate.connect();
    raw.send(LOCAL);
    let mut client = raw.try_tls(&authority.plain_client(), "gate.test").unwrap();
    assert_eq!(client.send(V1).get("/").status(), 400);
    assert!(gate.connect().try_tls(&authority.plain_client(), "gate.test").is_err());
}

#[test]
fn filters_and_trusted_proxies_go_by_the_client_that_was_told() {
    let more = "defaults: { ip_filter: { deny: 192.0.2.0/24 } }\ntrusted_proxies: [203.0.113.0/24]";
    let (gate, echo) = gate("127.0.0.1", more);
    let ask = |header: &str, fields: &[(&str, &str)]| gate.connect().send(header).ask("GET", "/", fields, b"");
    let denied = V1.replace("203.0.113.9", "192.0.2.7");
    assert_eq!(ask(&denied, &[]).status(), 403);
    assert_eq!(ask(V1, &[]).status(), 200);
    // The balancer is not trusted with fields, though its own address be loopback; the proxy before it is.
    let forged = [("x-forwarded-for", "10.9.9.9")];
    assert_eq!(ask(&denied.replace("192.0.2.7", "198.51.100.5"), &forged).status(), 200);
    assert_eq!(echo.last().field("x-forwarded-for").as_deref(), Some("198.51.100.5"));
    assert_eq!(ask(V1, &forged).status(), 200);
    assert_eq!(echo.last().field("x-forwarded-for").as_deref(), Some("10.9.9.9, 203.0.113.9"));
    assert_eq!(ask(V1, &[("x-forwarded-for", "192.0.2.1")]).status(), 403);
}

#[test]
fn haproxy_tells_its_clients_and_looks_after_the_gate() {
    let (gate, _echo) = gate("127.0.0.1", "");
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let balancer = Haproxy::before(&format!("{} {version} check inter 20ms check-send-proxy", gate.address()));
        let mut raw = Raw::connect_from("127.0.0.9", balancer.address());
        assert_eq!(raw.get("/").json()["headers"]["x-forwarded-for"], "127.0.0.9", "{version}");
        let before = gate.metric("pylon_connections_total").unwrap();
        until(ms(5000), "HAProxy has looked", || gate.metric("pylon_connections_total").unwrap() > before + 2.0);
    }
    assert_eq!(refused(&gate), 0);
}

#[test]
fn nginx_tells_its_clients() {
    let (gate, _echo) = gate("127.0.0.1", "");
    let lines = format!("proxy_pass {}; proxy_protocol on;", gate.address());
    let Some(balancer) = Nginx::stream(&lines) else {
        eprintln!("nginx has no module for streams, so it was not tried as a balancer: ./test installs it");
        return;
    };
    for from in ["127.0.0.9", "127.0.0.10"] {
        let mut raw = Raw::connect_from(from, balancer.address());
        for _ in 0..2 {
            assert_eq!(raw.get("/").json()["headers"]["x-forwarded-for"], from);
        }
    }
    assert_eq!(refused(&gate), 0);
}

#[test]
fn a_protocol_that_nobody_may_speak_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (listener, words) in [
        ("address: 127.0.0.1:0, proxy_protocol: []", "no balancer is named"),
        ("address: 127.0.0.1:0, proxy_protocol: { from: [] }", "no balancer is named"),
        ("address: 127.0.0.1:0, proxy_protocol:", "proxy_protocol"),
        ("address: 127.0.0.1:0, proxy_protocol: true", "a list of them, or a map"),
        ("address: 127.0.0.1:0, proxy_protocol: { form: 10.0.0.0/8 }", "did you mean `from`"),
        ("address: 127.0.0.1:0, proxy_protocol: unix", "by a Unix socket"),
        ("address: unix:a.sock, proxy_protocol: 10.0.0.0/8", "write `proxy_protocol: unix`"),
        ("address: 127.0.0.1:0, mode: 660", "only a Unix socket has permissions"),
        ("address: unix:a.sock, mode: 999", "are no permissions"),
        ("address: \"unix:\"", "has no path"),
        ("address: localhost:80", "write `0.0.0.0:8080` or `unix:/run/pylon.sock`"),
    ] {
        let document = format!("listeners: [{{ {listener} }}]\nroutes: [{{ match: /, respond: 204 }}]\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(2), "{listener}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(words) && outcome.stderr.contains("pylon.yaml:1:"), "{}", outcome.stderr);
    }
}
