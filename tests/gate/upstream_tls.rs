//! TLS towards services: who they must be, who the gateway is, and what comes of it when that is not so.

use std::path::Path;

use pylon_testkit::answer::{Answer, alphabet};
use pylon_testkit::binary::Binary;
use pylon_testkit::command::pylon;
use pylon_testkit::terminator::Terminator;
use pylon_testkit::tls::{Authority, Issued};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};

/// A gateway before `endpoint`, with the authority's root, and one of its certificates, beside the document.
fn gate(authority: &Authority, endpoint: &str, tls: &str) -> Binary {
    let document = format!(
        "upstreams: {{ api: {{ endpoints: [\"{endpoint}\"], {tls} }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
    );
    Binary::start_with(&document, &[], |folder| prepare(authority, folder))
}

fn prepare(authority: &Authority, folder: &Path) {
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    authority.issue(&["gate.test"]).write(folder, "gate");
}

fn service(authority: &Authority, names: &[&str], echo: &Upstream, asks: bool) -> Terminator {
    Terminator::before(echo.address(), authority.server(&authority.issue(names), &["http/1.1"], asks))
}

fn echo() -> Upstream {
    Upstream::http(|request| Answer::text("").body(request.body.clone()))
}

#[test]
fn requests_pass_and_connections_are_used_again() {
    let (authority, echo) = (Authority::default(), echo());
    let secure = service(&authority, &["localhost"], &echo, false);
    let gate = gate(&authority, &secure.url("localhost"), "tls: { ca: ca.pem }");
    let mut client = gate.connect();
    let body = alphabet(3_000_000);
    for _ in 0..3 {
        assert_eq!(client.get("/x").status(), 200);
        let answer = client.ask("POST", "/y", &[], &body);
        assert!(answer.status() == 200 && answer.body == body);
    }
    assert_eq!(secure.shaken().len(), 1, "one handshake for all");
    assert_eq!(secure.shaken()[0].name.as_deref(), Some("localhost"));
    assert_eq!(secure.shaken()[0].alpn.as_deref(), Some("http/1.1"));
    assert_eq!(echo.last().field("host").as_deref(), Some("gate.test"), "the client's host is kept");
}

#[test]
fn a_service_that_cannot_be_verified_gets_no_request() {
    let (authority, other, echo) = (Authority::default(), Authority::new("another"), echo());
    let wrong_root = service(&other, &["localhost"], &echo, false);
    let wrong_name = service(&authority, &["elsewhere.test"], &echo, false);
    for (secure, tls, why) in [
        (&wrong_root, "tls: { ca: ca.pem }", "UnknownIssuer"),
        (&wrong_root, "timeout: 5s", "UnknownIssuer"),
        (&wrong_name, "tls: { ca: ca.pem }", "not valid for name"),
        (&wrong_name, "tls: { ca: ca.pem, server_name: other.test }", "not valid for name"),
    ] {
        let gate = gate(&authority, &secure.url("localhost"), tls);
        let answer = gate.connect().get("/");
        assert_eq!((answer.status(), answer.code().as_deref()), (502, Some("upstream.tls")), "{tls}");
        assert!(!answer.text().contains(why), "what is wrong is for the log alone");
        let detail = gate.logged("/")["detail"].to_string();
        assert!(detail.contains(why), "{tls}: {detail}");
    }
    assert_eq!(echo.requests(), 0);
    for (secure, tls) in
        [(&wrong_root, "tls: { verify: false }"), (&wrong_name, "tls: { ca: ca.pem, server_name: elsewhere.test }")]
    {
        assert_eq!(gate(&authority, &secure.url("localhost"), tls).connect().get("/").status(), 200, "{tls}");
    }
}

#[test]
fn a_service_that_asks_for_a_certificate_is_shown_ours() {
    let (authority, echo) = (Authority::default(), echo());
    let secure = service(&authority, &["localhost"], &echo, true);
    let tls = "tls: { ca: ca.pem, client_cert: { cert: gate.pem, key: gate.key } }";
    let with = gate(&authority, &secure.url("localhost"), tls);
    assert_eq!(with.connect().get("/").status(), 200);
    assert!(secure.shaken()[0].certificate);
    let without = gate(&authority, &secure.url("localhost"), "tls: { ca: ca.pem }");
    assert_eq!(without.connect().get("/").status(), 502);
    assert_eq!(echo.requests(), 1);
}

#[test]
fn addresses_are_verified_as_addresses() {
    let (authority, echo) = (Authority::default(), echo());
    let secure = service(&authority, &["127.0.0.1"], &echo, false);
    let right = gate(&authority, &secure.url("127.0.0.1"), "tls: { ca: ca.pem }");
    assert_eq!(right.connect().get("/").status(), 200);
    assert_eq!(secure.shaken()[0].name, None, "an address is not asked for by name (RFC 6066 §3)");
    let wrong = gate(&authority, &secure.url("localhost"), "tls: { ca: ca.pem }");
    assert_eq!(wrong.connect().get("/").code().as_deref(), Some("upstream.tls"));
}

#[test]
fn a_service_that_is_silent_in_its_handshake_costs_the_connect_timer_and_no_more() {
    let silent = Upstream::script(|peer| {
        peer.wait_for_end(ms(20_000));
    });
    let url = silent.url().replace("http:", "https:");
    let gate = gate(&Authority::default(), &url, "tls: { ca: ca.pem }, timeout: { connect: 300ms }");
    let answer = gate.connect().get("/");
    assert_eq!((answer.status(), answer.code().as_deref()), (504, Some("upstream.timeout")));
    assert!(answer.text().contains("connect"), "{}", answer.text());
}

#[test]
fn a_service_in_cleartext_is_told_from_one_under_tls() {
    let echo = echo();
    let gate = gate(&Authority::default(), &echo.url().replace("http:", "https:"), "tls: { ca: ca.pem }");
    assert_eq!(gate.connect().get("/").code().as_deref(), Some("upstream.tls"));
}

#[test]
fn renewed_roots_and_certificates_count_from_the_next_handshake_on() {
    let (authority, next, echo) = (Authority::default(), Authority::new("next"), echo());
    let secure = service(&next, &["localhost"], &echo, true);
    let tls = "tls: { ca: ca.pem, client_cert: { cert: gate.pem, key: gate.key } }";
    let gate = gate(&authority, &secure.url("localhost"), tls);
    assert_eq!(gate.connect().get("/").code().as_deref(), Some("upstream.tls"));
    let broken = Issued { cert: "half of".to_owned(), key: String::new() };
    broken.write(gate.folder(), "gate");
    std::fs::write(gate.folder().join("ca.pem"), next.pem()).unwrap();
    until(ms(5_000), "the broken files are refused", || gate.stderr().contains("stay in force"));
    assert_eq!(gate.connect().get("/").code().as_deref(), Some("upstream.tls"), "half of it is not taken");
    prepare(&next, gate.folder());
    until(ms(5_000), "the new files are in force", || gate.connect().get("/").status() == 200);
}

#[test]
fn what_cannot_be_meant_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let told = |upstream: &str| {
        let document = format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ api: {{ {upstream} }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n"
        );
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        pylon(folder.path(), ["check", "pylon.yaml"]).stderr
    };
    for (upstream, problem) in [
        ("endpoints: [\"http://a:1\"], tls: { ca: none.pem }", "no endpoint is reached under TLS"),
        ("endpoints: [\"https://a:1\"], tls: { ca: none.pem }", "`none.pem` cannot be read"),
        ("endpoints: [\"https://a:1\"], tls: { server_name: \"a b\" }", "`a b` is not a host name"),
        ("endpoints: [\"https://a:1\"], tls: { verfy: false }", "unknown key `verfy`"),
        ("endpoints: [\"https://a:1\"], tls:", "tls"),
        ("endpoints: [\"https://a:1\"], tls: { client_cert: { cert: a.pem, key: a.key } }", "`a.pem` cannot be read"),
    ] {
        let stderr = told(upstream);
        assert!(stderr.contains(problem) && stderr.contains("pylon.yaml:2"), "{upstream}\n{stderr}");
    }
}
