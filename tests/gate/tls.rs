//! TLS towards clients: versions, certificates by name and from disk, client certificates, tickets, and what is no TLS.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pylon_testkit::answer::{Answer, alphabet};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::command::pylon;
use pylon_testkit::tls::{Authority, Issued};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, until};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};

/// A gateway with one listener under TLS, and certificates of these names beside its document.
fn gate(authority: &Authority, certificates: &[(&str, &[&str])], more: &str, document: &str) -> Binary {
    let pairs: Vec<_> =
        certificates.iter().map(|(file, _)| format!("{{ cert: {file}.pem, key: {file}.key }}")).collect();
    let pairs = pairs.join(", ");
    let document =
        format!("listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{pairs}]{more} }} }}]\n{document}");
    Binary::start_with(&document, &[], |folder| {
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        for (file, names) in certificates {
            authority.issue(names).write(folder, file);
        }
    })
}

const HELLO: &str = "routes: [{ match: \"/{*rest}\", respond: { body: hello } }]";

fn try_connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Raw> {
    Raw::connect(address).try_tls(config, name)
}

fn connect(gate: &Binary, config: &Arc<ClientConfig>, name: &str) -> Raw {
    try_connect(gate.address(), config, name).unwrap()
}

/// The certificate that is shown for a name.
fn shown(gate: &Binary, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    connect(gate, config, name).session().peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn requests_pass_under_both_versions_and_the_service_learns_of_it() {
    let authority = Authority::default();
    let echo = Upstream::http(|request| Answer::text("").body(request.body.clone()));
    let document = format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]",
        echo.url()
    );
    let gate = gate(&authority, &[("a", &["gate.test"])], "", &document);
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = Arc::new(authority.client(&[version], None));
        let mut client = connect(&gate, &config, "gate.test");
        assert_eq!(client.session().protocol_version(), Some(spoken));
        assert_eq!(client.get("/x").status(), 200);
        assert_eq!(echo.seen().last().unwrap().field("x-forwarded-proto").as_deref(), Some("https"));
        // Many records both ways, on the same connection.
        let body = alphabet(3_000_000);
        let answer = client.ask("POST", "/y", &[], &body);
        assert!(answer.status() == 200 && answer.body == body, "{spoken:?}");
        assert_eq!(client.get("/z").status(), 200);
    }
    assert_eq!(gate.metric("pylon_tls_handshakes_total{outcome=\"full\"}"), Some(2.0));
}

#[test]
fn keys_are_agreed_on_so_that_no_quantum_computer_reads_them() {
    let authority = Authority::default();
    let gate = gate(&authority, &[("a", &["gate.test"])], "", HELLO);
    let client = connect(&gate, &authority.plain_client(), "gate.test");
    let group = client.session().negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() {
    let authority = Authority::default();
    let names: [(&str, &[&str]); 3] =
        [("first", &["first.test"]), ("wild", &["*.wild.test"]), ("exact", &["b.wild.test", "Exact.test"])];
    let gate = gate(&authority, &names, "", HELLO);
    let config = authority.plain_client();
    let of = |file: &str| {
        let pem = std::fs::read_to_string(gate.folder().join(format!("{file}.pem"))).unwrap();
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes());
        let der: rustls::pki_types::CertificateDer<'static> = der.unwrap();
        der.to_vec()
    };
    for (name, file) in
        [("first.test", "first"), ("a.wild.test", "wild"), ("b.wild.test", "exact"), ("exact.test", "exact")]
    {
        assert_eq!(shown(&gate, &config, name), of(file), "{name}");
    }
    // A wildcard is one label; a name that nobody has, and an address, get the first, which the client then refuses.
    for name in ["x.a.wild.test", "wild.test", "nobody.test", "127.0.0.1"] {
        let error = try_connect(gate.address(), &config, name).unwrap_err();
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
}

type Way<'a> = (&'a str, &'a dyn Fn(&Issued));

#[test]
fn a_new_certificate_serves_the_next_handshake_however_it_is_put_there() {
    let authority = Authority::default();
    let gate = gate(&authority, &[("a", &["gate.test"])], "", HELLO);
    let config = authority.plain_client();
    let folder = gate.folder();
    let mut old = connect(&gate, &config, "gate.test");
    let in_place = |issued: &Issued| issued.write(folder, "a");
    let by_rename = |issued: &Issued| {
        issued.write(folder, "new");
        for end in ["key", "pem"] {
            std::fs::rename(folder.join(format!("new.{end}")), folder.join(format!("a.{end}"))).unwrap();
        }
    };
    // As Kubernetes does: the files are links into a folder that is itself a link, and that link is swapped.
    let by_link = |issued: &Issued| volume(folder, issued);
    let by_hand: [Way<'_>; 2] = [("in place", &in_place), ("by rename", &by_rename)];
    for (way, put) in by_hand.into_iter().chain([("by link", &by_link as _), ("by link again", &by_link as _)]) {
        let before = shown(&gate, &config, "gate.test");
        put(&authority.issue(&["gate.test"]));
        until(ms(5000), &format!("the certificate put there {way} is shown"), || {
            shown(&gate, &config, "gate.test") != before
        });
        assert_eq!(old.get("/").text(), "hello", "connections stay");
    }
}

fn volume(folder: &Path, issued: &Issued) {
    let version = (1..100).map(|n| folder.join(format!("..v{n}"))).find(|path| !path.exists()).unwrap();
    std::fs::create_dir(&version).unwrap();
    issued.write(&version, "a");
    let link = folder.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &link).unwrap();
    std::fs::rename(&link, folder.join("..data")).unwrap();
    for file in ["a.pem", "a.key"] {
        let path = folder.join(file);
        if !path.is_symlink() {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(Path::new("..data").join(file), &path).unwrap();
        }
    }
}

#[test]
fn files_that_cannot_be_used_leave_the_certificate_before_in_force_and_show_in_the_metrics() {
    let authority = Authority::default();
    let gate = gate(&authority, &[("a", &["gate.test"])], "", HELLO);
    let config = authority.plain_client();
    let before = shown(&gate, &config, "gate.test");
    let stale = || gate.metric("pylon_certificate_stale{cert=\"a.pem\"}");
    assert_eq!(stale(), Some(0.0));
    let expires = gate.metric("pylon_certificate_expires_timestamp_seconds{cert=\"a.pem\"}").unwrap();
    assert!(expires > 1_700_000_000.0, "{expires}");
    for (broken, word) in [(Some("no certificate at all"), "no certificate"), (None, "cannot be read")] {
        match broken {
            Some(text) => std::fs::write(gate.folder().join("a.pem"), text).unwrap(),
            None => std::fs::remove_file(gate.folder().join("a.pem")).unwrap(),
        }
        until(ms(5000), "the trouble is told", || gate.stderr().contains(word));
        assert_eq!((stale(), shown(&gate, &config, "gate.test")), (Some(1.0), before.clone()));
    }
    // A certificate whose key is not there yet is not shown; with its key it is.
    let next = authority.issue(&["gate.test"]);
    std::fs::write(gate.folder().join("a.pem"), &next.cert).unwrap();
    until(ms(5000), "the trouble is told", || gate.stderr().contains("is not that of the certificate"));
    assert_eq!(shown(&gate, &config, "gate.test"), before);
    std::fs::write(gate.folder().join("a.key"), &next.key).unwrap();
    until(ms(5000), "the pair is whole", || shown(&gate, &config, "gate.test") != before);
    until(ms(2000), "the metric is down", || stale() == Some(0.0));
}

#[test]
fn a_client_without_the_certificate_that_is_wanted_gets_nowhere() {
    let authority = Authority::default();
    let mine = authority.issue(&["client.test"]);
    let foreign = Authority::new("Another").issue(&["client.test"]);
    for (required, without) in [(true, false), (false, true)] {
        let more = format!(", client_cert: {{ ca: ca.pem, required: {required} }}");
        let gate = gate(&authority, &[("a", &["gate.test"])], &more, HELLO);
        for (identity, served) in [(None, without), (Some(&mine), true), (Some(&foreign), false)] {
            for version in [&TLS12, &TLS13] {
                let config = Arc::new(authority.client(&[version], identity));
                // Under TLS 1.3 the client learns of the refusal by its first read.
                let answer = try_connect(gate.address(), &config, "gate.test").map(|mut client| {
                    let _ = client.try_send("GET / HTTP/1.1\r\nhost: gate.test\r\n\r\n");
                    client.try_response("GET")
                });
                let status = answer.ok().and_then(Result::ok).map(|answer| answer.status());
                assert_eq!(status, served.then_some(200), "required {required}, {version:?}, {}", identity.is_some());
            }
        }
    }
}

#[test]
fn a_session_is_resumed_by_whichever_worker_and_never_past_a_client_certificate() {
    let authority = Authority::default();
    let mine = authority.issue(&["client.test"]);
    let asks = ", client_cert: { ca: ca.pem }";
    for (more, identity, kind) in [("", None, HandshakeKind::Resumed), (asks, Some(&mine), HandshakeKind::Full)] {
        let gate = gate(&authority, &[("a", &["gate.test"])], more, &format!("workers: 2\n{HELLO}"));
        for version in [&TLS12, &TLS13] {
            let config = Arc::new(authority.client(&[version], identity));
            // The answer brings the tickets of TLS 1.3 along.
            assert_eq!(connect(&gate, &config, "gate.test").get("/").status(), 200);
            for _ in 0..8 {
                let mut client = connect(&gate, &config, "gate.test");
                assert_eq!(client.session().handshake_kind(), Some(kind), "{version:?}");
                assert_eq!(client.get("/").status(), 200);
            }
        }
    }
}

#[test]
fn an_old_version_is_refused_where_the_document_says_so() {
    let authority = Authority::default();
    let gate = gate(&authority, &[("a", &["gate.test"])], ", min_version: 1.3", HELLO);
    assert!(try_connect(gate.address(), &Arc::new(authority.client(&[&TLS12], None)), "gate.test").is_err());
    assert_eq!(connect(&gate, &Arc::new(authority.client(&[&TLS13], None)), "gate.test").get("/").status(), 200);
    until(ms(2000), "the failure is counted", || {
        gate.metric("pylon_tls_handshakes_total{outcome=\"failed\"}") == Some(1.0)
    });
}

#[test]
fn cleartext_where_tls_is_spoken_is_told_so_and_silence_is_dropped() {
    let authority = Authority::default();
    let document = format!("limits: {{ handshake_timeout: 300ms }}\n{HELLO}");
    let gate = gate(&authority, &[("a", &["gate.test"])], "", &document);
    let mut client = gate.connect();
    let answer = client.get("/");
    assert_eq!(answer.status(), 400, "{}", answer.text());
    assert!(client.rest().is_empty());
    // Half a hello, and none.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = gate.connect();
        client.send(bytes);
        assert!(client.rest().len() < 100);
    }
    eventually(ms(2000), "nothing is left open", || (gate.metric("pylon_connections") == Some(0.0)).then_some(()));
}

#[test]
fn the_connection_ends_in_good_order_under_tls() {
    let authority = Authority::default();
    let mut gate = gate(&authority, &[("a", &["gate.test"])], "", HELLO);
    let config = authority.plain_client();
    // A client that asks for the end gets it behind the answer, with a notice (no truncation).
    let mut client = connect(&gate, &config, "gate.test");
    assert_eq!(client.ask("GET", "/", &[("connection", "close")], b"").text(), "hello");
    client.expect_closed();
    // So does an idle one when the gateway ends.
    let mut idle = connect(&gate, &config, "gate.test");
    assert_eq!(idle.get("/").status(), 200);
    assert_eq!(gate.end(), Some(0));
    idle.expect_closed();
}

#[test]
fn what_is_wrong_with_certificates_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::default();
    for file in ["a", "b"] {
        authority.issue(&["gate.test"]).write(folder.path(), file);
    }
    let check = |tls: &str| {
        let document = format!("listeners: [{{ address: 127.0.0.1:0, tls: {tls} }}]\n{HELLO}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(2), "{tls}: {}", outcome.stdout);
        outcome.stderr
    };
    let good = "certificates: [{ cert: a.pem, key: a.key }]";
    for (tls, words) in [
        ("{ certificates: [] }".to_owned(), "there is no certificate"),
        ("{ certificates: [{ cert: a.pem, key: b.key }] }".to_owned(), "is not that of the certificate in `a.pem`"),
        ("{ certificates: [{ cert: c.pem, key: a.key }] }".to_owned(), "`c.pem` cannot be read"),
        (format!("{{ {good}, client_cert: {{ ca: a.key }} }}"), "`a.key` holds no certificate"),
        (format!("{{ {good}, client_cert: }}"), "client_cert"),
        (format!("{{ {good}, min_version: 1.1 }}"), "1.2"),
        (String::new(), "tls"),
    ] {
        let told = check(&tls);
        assert!(told.contains(words) && told.contains("pylon.yaml:1:"), "{tls}: {told}");
    }
}
