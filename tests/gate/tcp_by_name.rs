//! TLS passed through by name: each client meets the certificate of the service itself, and the gate none of the secrets.

use std::sync::Arc;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::tls::Authority;
use pylon_testkit::wait::{eventually, ms, now, until};
use rustls::ClientConnection;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

/// A service that ends TLS itself, with a certificate of its own, and answers with its name.
fn service(authority: &Authority, name: &str, names: &[&str]) -> Binary {
    let document = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }} }}]\n\
         routes: [{{ match: \"/{{*rest}}\", respond: {{ body: {name} }} }}]"
    );
    Binary::start_with(&document, &[], |folder| authority.issue(names).write(folder, "a"))
}

struct Stage {
    authority: Authority,
    api: Binary,
    shop: Binary,
    gate: Binary,
}

/// Two services and the gate before them; `more` stands in the map of `tcp`, `listener` beside it.
fn stage(more: &str, listener: &str) -> Stage {
    let authority = Authority::default();
    let api = service(&authority, "api", &["api.example.com", "127.0.0.1"]);
    let shop = service(&authority, "shop", &["a.shop.example", "shop.example", "b.a.shop.example"]);
    let gate = Binary::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, tcp: {{ sni: {{ api.example.com: api, \"*.shop.example\": shop }}{more} }}{listener} }}]\n\
         limits: {{ handshake_timeout: 500ms }}\n\
         upstreams: {{ api: {{ endpoints: [\"tcp://{}\"] }}, shop: {{ endpoints: [\"tcp://{}\"] }} }}\n",
        api.address(),
        shop.address()
    ));
    Stage { authority, api, shop, gate }
}

fn logged(gate: &Binary, end: &str) -> Value {
    eventually(ms(5000), &format!("a line that says {end}"), || gate.log().into_iter().find(|line| line["end"] == end))
}

#[test]
fn each_name_leads_to_its_service_and_to_its_very_certificate() {
    let Stage { authority, api, shop, gate } = stage("", "");
    for (name, service, body) in [
        ("api.example.com", &api, "api"),
        ("API.Example.com", &api, "api"),
        ("a.shop.example", &shop, "shop"),
        ("b.a.shop.example", &shop, "shop"),
    ] {
        for version in [&TLS12, &TLS13] {
            let config = Arc::new(authority.client(&[version], None));
            let mut client = gate.connect().try_tls(&config, name).unwrap();
            let pem = std::fs::read(service.folder().join("a.pem")).unwrap();
            let own: rustls::pki_types::CertificateDer<'_> =
                rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
            assert_eq!(client.session().peer_certificates().unwrap()[0], own, "{name}");
            assert_eq!(client.get("/").text(), body, "{name}");
        }
    }
    until(ms(5000), "the log says who was asked for", || {
        gate.log().iter().any(|line| line["host"] == "api.example.com" && line["upstream"] == "api")
    });
    assert_eq!(gate.metric("pylon_tls_handshakes_total{outcome=\"full\"}"), Some(0.0));
}

#[test]
fn a_name_that_leads_nowhere_is_told_so_by_an_alert_and_goes_to_the_others_where_there_are() {
    let strict = stage("", "");
    let (authority, gate) = (&strict.authority, &strict.gate);
    // The wildcard is not for its own parent; an address is no name.
    for name in ["nobody.test", "shop.example", "xshop.example", "127.0.0.1"] {
        let error = gate.connect().try_tls(&authority.plain_client(), name).unwrap_err();
        assert!(
            error.to_string().contains("UnrecognisedName") || error.to_string().contains("UnrecognizedName"),
            "{error}"
        );
    }
    until(ms(5000), "all are counted", || {
        gate.metric("pylon_tcp_connections_total{end=\"unknown_name\"}") == Some(4.0)
    });
    until(ms(5000), "the log says who was asked for", || {
        gate.log().iter().any(|line| line["end"] == "unknown_name" && line["host"] == "nobody.test")
    });
    let open = stage(", forward: api", "");
    let (authority, gate) = (&open.authority, &open.gate);
    assert_eq!(gate.connect().try_tls(&authority.plain_client(), "127.0.0.1").unwrap().get("/").text(), "api");
    // The service behind `forward` has no certificate for it, which is between the two of them.
    let error = gate.connect().try_tls(&authority.plain_client(), "nobody.test").unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn the_first_message_may_come_byte_by_byte_and_in_many_records() {
    let stage = stage("", "");
    let (authority, gate) = (&stage.authority, &stage.gate);
    let name = "api.example.com".try_into().unwrap();
    let mut session = ClientConnection::new(authority.plain_client(), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let split: Vec<u8> = (hello[5..].chunks(100))
        .flat_map(|piece| [&[22, 3, 1, 0, u8::try_from(piece.len()).unwrap()][..], piece].concat())
        .collect();
    for bytes in [&hello, &split] {
        let mut client = gate.connect();
        for byte in bytes {
            client.send([*byte]);
        }
        // The service answers by its own hello.
        assert_eq!(client.exactly(3), [22, 3, 3]);
    }
}

#[test]
fn what_is_no_tls_is_closed_and_so_is_who_takes_too_long() {
    let stage = stage(", forward: api", "");
    let gate = &stage.gate;
    let name = |name: &[u8]| {
        let n = u8::try_from(name.len()).unwrap();
        let sni = [&[0, 0, 0, n + 5, 0, n + 3, 0, 0, n][..], name].concat();
        let m = u8::try_from(sni.len()).unwrap();
        let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, m], &sni].concat();
        let length = u8::try_from(body.len()).unwrap();
        [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
    };
    for bytes in [
        b"GET / HTTP/1.1\r\nhost: api.example.com\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x00\x00".to_vec(),
        b"\x16\x03\x01\xff\xff".to_vec(),
        b"\x80\x2e\x01\x03\x01".to_vec(),
        name(b"api.example.com\0.test"),
        name(b""),
    ] {
        let mut client = gate.connect();
        assert!(client.send(&bytes).some().unwrap_or_default().is_empty(), "{bytes:?}");
    }
    let began = now();
    let (mut silent, mut half) = (gate.connect(), gate.connect());
    half.send(b"\x16\x03\x01\x02");
    silent.expect_closed();
    half.expect_closed();
    assert!(began.elapsed() >= ms(490) && began.elapsed() < ms(5000), "{:?}", began.elapsed());
    until(ms(2000), "each is told of", || gate.metric("pylon_tcp_connections_total{end=\"no_hello\"}") == Some(8.0));
    let line = logged(gate, "no_hello");
    assert!(line.get("upstream").is_none() && line["detail"].is_string(), "{line}");
}

#[test]
fn the_proxy_header_comes_before_the_name() {
    let stage = stage("", ", proxy_protocol: 127.0.0.1");
    let (authority, gate) = (&stage.authority, &stage.gate);
    let mut raw = gate.connect();
    raw.send("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n");
    let mut client = raw.try_tls(&authority.plain_client(), "api.example.com").unwrap();
    assert_eq!(client.get("/").text(), "api");
    drop(client);
    // It went away without a goodbye, as most clients of TLS do.
    assert_eq!(logged(gate, "complete")["client"], "203.0.113.9");
    assert!(Raw::connect(gate.address()).try_tls(&authority.plain_client(), "api.example.com").is_err());
}
