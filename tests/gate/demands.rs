//! Failure 10: what is demanded of clients by host, chosen in the handshake and held for every request; and failure 44 for
//! the files by which clients are verified.

use std::path::Path;
use std::sync::Arc;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::command::pylon;
use pylon_testkit::http2::Http2;
use pylon_testkit::tls::{Authority, Issued};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, until};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

const NAMES: &[&str] = &["gate.test", "*.gate.test", "*.deep.gate.test", "other.test"];

/// A gateway whose hosts `admin.gate.test` and those below `deep.gate.test` ask for a client certificate.
fn gate(authority: &Authority, client_cert: &str, more: &str) -> Binary {
    let document = format!(
        "listeners:
  - address: 127.0.0.1:0
    tls:
      certificates: [{{ cert: a.pem, key: a.key }}]
      hosts:
        - {{ host: [Admin.Gate.test, \"*.deep.gate.test\"], client_cert: {client_cert} }}
        - {{ host: same.gate.test, client_cert: {client_cert} }}
        - {{ host: open.deep.gate.test }}
        - {{ host: new.gate.test, min_version: 1.3 }}
routes: [{{ match: \"/{{*rest}}\", respond: {{ body: hello }} }}]
{more}"
    );
    Binary::start_with(&document, &[], |folder| {
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(folder.join("revoked.crl"), authority.revoke(&[666], 2100)).unwrap();
        authority.issue(NAMES).write(folder, "a");
    })
}

const ASKS: &str = "{ ca: ca.pem }";

/// The status of one request for `host` on a connection that asked for `name`; none where the handshake fails.
fn status(gate: &Binary, config: &Arc<ClientConfig>, name: &str, host: &str) -> Option<u16> {
    let mut client = Raw::connect(gate.address()).try_tls(config, name).ok()?;
    // Under TLS 1.3 the client learns of a refusal by its first read.
    client.try_send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).ok()?;
    client.try_response("GET").ok().map(|answer| answer.status())
}

#[test]
fn a_host_that_demands_a_certificate_is_not_reached_by_another_name() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let bare = authority.plain_client();
    let known = Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(&authority.issue(&["me.test"]))));
    let spelt =
        ["admin.gate.test", "ADMIN.gate.TEST", "admin.gate.test.", "admin.gate.test:8443", "Admin.Gate.Test.:443"];
    let below = ["x.deep.gate.test", "y.x.deep.gate.test", "X.DEEP.gate.test."];
    for host in spelt.into_iter().chain(below).chain(["same.gate.test"]) {
        assert_eq!(status(&gate, &bare, "gate.test", host), Some(421), "{host}");
        assert_eq!(
            status(&gate, &known, "gate.test", host),
            Some(421),
            "{host} with a certificate that nobody asked for"
        );
        assert_eq!(status(&gate, &known, "x.deep.gate.test", host), Some(200), "{host}, whose demands are met");
    }
    for name in ["admin.gate.test", "ADMIN.GATE.test", "x.deep.gate.test", "same.gate.test"] {
        assert_eq!(status(&gate, &bare, name, name), None, "{name} without a certificate");
        assert_eq!(status(&gate, &known, name, name), Some(200), "{name}");
        // The other way round as well: a connection is for hosts with its own demands.
        assert_eq!(status(&gate, &known, name, "gate.test"), Some(421), "from {name}");
    }
    // What demands nothing of its own shares connections with whatever else does not.
    for host in ["gate.test", "nobody.test", "open.deep.gate.test", "deep.gate.test", "127.0.0.1"] {
        assert_eq!(status(&gate, &bare, "gate.test", host), Some(200), "{host}");
        assert_eq!(status(&gate, &bare, "open.deep.gate.test", host), Some(200), "{host}");
    }
    // A request without a host asks for none that demands anything, and such a connection asked for one.
    for (name, expected) in [("gate.test", 200), ("admin.gate.test", 421)] {
        let mut client = Raw::connect(gate.address()).try_tls(&known, name).unwrap();
        client.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.response().status(), expected, "{name}");
    }
    until(ms(5000), "the log tells why", || gate.log().iter().any(|line| line["reason"] == "request.misdirected"));
}

#[test]
fn a_connection_without_a_name_meets_the_demands_of_the_listener_alone() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let mut config = authority.client(rustls::DEFAULT_VERSIONS, Some(&authority.issue(&["me.test"])));
    config.enable_sni = false;
    let config = Arc::new(config);
    assert_eq!(status(&gate, &config, "gate.test", "gate.test"), Some(200));
    assert_eq!(status(&gate, &config, "admin.gate.test", "admin.gate.test"), Some(421));
}

#[test]
fn http_2_is_told_the_same_and_goes_on_with_its_other_streams() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let bare = authority.plain_client();
    let mut client = Http2::connect_tls(gate.address(), &bare, "gate.test");
    for (authority, fields, expected) in [
        ("gate.test", &[][..], 200),
        ("www.gate.test", &[], 200),
        ("admin.gate.test", &[], 421),
        ("ADMIN.gate.test:443", &[], 421),
        ("x.deep.gate.test", &[("host", "x.deep.gate.test")], 421),
        ("gate.test", &[("host", "admin.gate.test")], 400),
        ("gate.test", &[], 200),
    ] {
        let answer = client.ask("GET", &format!("https://{authority}/"), fields, b"").unwrap();
        assert_eq!(answer.status, expected, "{authority} {fields:?}: {}", answer.text());
    }
    let known = Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(&authority.issue(&["me.test"]))));
    let mut client = Http2::connect_tls(gate.address(), &known, "admin.gate.test");
    for (host, expected) in
        [("admin.gate.test", 200), ("same.gate.test", 200), ("a.deep.gate.test", 200), ("gate.test", 421)]
    {
        assert_eq!(client.ask("GET", &format!("https://{host}/"), &[], b"").unwrap().status, expected, "{host}");
    }
}

#[test]
fn a_host_may_demand_a_newer_version() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let old = Arc::new(authority.client(&[&TLS12], None));
    let new = Arc::new(authority.client(&[&TLS13], None));
    assert_eq!(status(&gate, &old, "gate.test", "gate.test"), Some(200));
    assert_eq!(status(&gate, &old, "gate.test", "new.gate.test"), Some(421));
    assert_eq!(status(&gate, &old, "new.gate.test", "new.gate.test"), None);
    assert_eq!(status(&gate, &new, "new.gate.test", "new.gate.test"), Some(200));
}

#[test]
fn a_session_does_not_lead_from_one_demand_to_another() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let mine = authority.issue(&["me.test"]);
    for version in [&TLS12, &TLS13] {
        // One store of tickets: what one name gave is not taken by another, and a certificate is shown each time.
        let config = Arc::new(authority.client(&[version], Some(&mine)));
        for (name, second) in [("gate.test", HandshakeKind::Resumed), ("admin.gate.test", HandshakeKind::Full)] {
            for kind in [HandshakeKind::Full, second] {
                let mut client = Raw::connect(gate.address()).try_tls(&config, name).unwrap();
                assert_eq!(client.ask("GET", "/", &[("host", name)], b"").status(), 200);
                assert_eq!(client.session().handshake_kind(), Some(kind), "{name} {version:?}");
            }
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_so_is_everybody_once_the_list_has_run_out() {
    let authority = Authority::default();
    let gate = gate(&authority, "{ ca: ca.pem, crl: revoked.crl }", "");
    let config = |serial| {
        Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(&authority.issue_numbered(&["me.test"], serial))))
    };
    let (good, bad) = (config(7), config(666));
    let asks = |config| status(&gate, config, "admin.gate.test", "admin.gate.test");
    assert_eq!((asks(&good), asks(&bad)), (Some(200), None));
    let next = gate.metric("pylon_crl_next_update_timestamp_seconds{crl=\"revoked.crl\"}").unwrap();
    assert!(next > 4e9, "{next}");
    std::fs::write(gate.folder().join("revoked.crl"), authority.revoke(&[7], 2101)).unwrap();
    until(ms(5000), "the new list counts", || asks(&good).is_none());
    assert_eq!(asks(&bad), Some(200));
    std::fs::write(gate.folder().join("revoked.crl"), "nothing").unwrap();
    until(ms(5000), "the trouble is told", || gate.stderr().contains("no revocation list"));
    assert_eq!(gate.metric("pylon_certificate_stale{cert=\"revoked.crl\"}"), Some(1.0));
    assert_eq!((asks(&good), asks(&bad)), (None, Some(200)));
    std::fs::write(gate.folder().join("revoked.crl"), authority.revoke(&[7], 2025)).unwrap();
    until(ms(5000), "a list that has run out proves nothing", || asks(&bad).is_none());
}

type Way<'a> = (&'a str, &'a dyn Fn(&str));

#[test]
fn new_roots_count_from_the_next_handshake_however_they_are_put_there() {
    let authority = Authority::default();
    let gate = gate(&authority, ASKS, "");
    let folder = gate.folder();
    let in_place = |pem: &str| std::fs::write(folder.join("ca.pem"), pem).unwrap();
    let by_rename = |pem: &str| {
        std::fs::write(folder.join("new.pem"), pem).unwrap();
        std::fs::rename(folder.join("new.pem"), folder.join("ca.pem")).unwrap();
    };
    let by_link = |pem: &str| volume(folder, pem);
    let again = |pem: &str| {
        std::fs::remove_file(folder.join("ca.pem")).unwrap();
        std::fs::write(folder.join("ca.pem"), pem).unwrap();
    };
    let ways: [Way<'_>; 5] = [
        ("in place", &in_place),
        ("by rename", &by_rename),
        ("by link", &by_link),
        ("by link again", &by_link),
        ("deleted and made again", &again),
    ];
    let mut before = authority.issue(&["me.test"]);
    for (way, put) in ways {
        let next = Authority::new(way);
        let mine = next.issue(&["me.test"]);
        let shows = |issued: &Issued| Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(issued)));
        let asks = |issued: &Issued| status(&gate, &shows(issued), "admin.gate.test", "admin.gate.test");
        assert_eq!((asks(&before), asks(&mine)), (Some(200), None), "before it is put {way}");
        put(&next.pem());
        until(ms(5000), &format!("the roots put there {way} count"), || asks(&mine) == Some(200));
        assert_eq!(asks(&before), None, "{way}");
        before = mine;
    }
    let expires = gate.metric("pylon_certificate_expires_timestamp_seconds{cert=\"ca.pem\"}").unwrap();
    assert!(expires > 1_700_000_000.0);
    in_place("-----BEGIN CERTIFICATE-----\nhalf");
    until(ms(5000), "half a file is told", || gate.metric("pylon_certificate_stale{cert=\"ca.pem\"}") == Some(1.0));
    let config = Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(&before)));
    assert_eq!(status(&gate, &config, "admin.gate.test", "admin.gate.test"), Some(200));
}

/// As Kubernetes does: the file is a link into a folder that is itself a link, and that link is swapped.
fn volume(folder: &Path, pem: &str) {
    let version = (1..100).map(|n| folder.join(format!("..v{n}"))).find(|path| !path.exists()).unwrap();
    std::fs::create_dir(&version).unwrap();
    std::fs::write(version.join("ca.pem"), pem).unwrap();
    let link = folder.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &link).unwrap();
    std::fs::rename(&link, folder.join("..data")).unwrap();
    let path = folder.join("ca.pem");
    if !path.is_symlink() {
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(Path::new("..data").join("ca.pem"), &path).unwrap();
    }
}

#[test]
fn what_is_wrong_with_demands_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::default();
    authority.issue(&["gate.test"]).write(folder.path(), "a");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    for (hosts, words) in [
        ("{ host: a.test, client_cert: { ca: b.pem } }", "`b.pem` cannot be read"),
        ("{ host: a.test, client_cert: { ca: ca.pem, crl: ca.pem } }", "`ca.pem` holds no revocation list"),
        ("{ host: a.test, client_cert: }", "client_cert"),
        ("{ host: a.test, min_version: }", "min_version"),
        ("{ host: [] }", "there is no host"),
        ("{ host: \"*\" }", "`*` is every host"),
        ("{ host: \"a.test:443\" }", "a port has no place here"),
        ("{ host: a.test, min_version: 1.3 }, { host: A.test }", "other demands are written for `A.test`"),
        ("{ client_cert: { ca: ca.pem } }", "host"),
    ] {
        let tls = format!("{{ certificates: [{{ cert: a.pem, key: a.key }}], hosts: [{hosts}] }}");
        let document =
            format!("listeners: [{{ address: 127.0.0.1:0, tls: {tls} }}]\nroutes: [{{ match: /, respond: 200 }}]\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(2), "{hosts}: {}", outcome.stdout);
        assert!(
            outcome.stderr.contains(words) && outcome.stderr.contains("pylon.yaml:1:"),
            "{hosts}: {}",
            outcome.stderr
        );
    }
}

/// Who comes with a certificate is known to the service behind; a host that asks for none knows nobody.
#[test]
fn a_client_is_known_by_its_certificate_on_every_version_and_every_connection() {
    let authority = Authority::default();
    let service = Upstream::echo();
    let document = format!(
        "listeners:
  - address: 127.0.0.1:0
    tls:
      certificates: [{{ cert: a.pem, key: a.key }}]
      client_cert: {{ ca: ca.pem, required: false }}
consumers: {{ me: {{ certificates: me.test }} }}
upstreams: {{ api: {{ endpoints: [\"{}\"] }} }}
routes:
  - {{ match: \"/{{*rest}}\", forward: api, client_cert: {{ headers: {{ x-service: subject, x-consumer: consumer, x-number: claims.serial }} }} }}
  - {{ match: /spiffe, respond: 204, client_cert: {{ trust_domain: example.org }} }}\n",
        service.url()
    );
    let gate = Binary::start_with(&document, &[], |folder| {
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        authority.issue(NAMES).write(folder, "a");
    });
    let config = |issued: &Issued| Arc::new(authority.client(rustls::DEFAULT_VERSIONS, Some(issued)));
    let (me, other) = (config(&authority.issue_numbered(&["me.test"], 77)), config(&authority.issue(&["other.test"])));
    let ask = |config: &Arc<ClientConfig>, path: &str| {
        let mut client = Raw::connect(gate.address()).try_tls(config, "gate.test").unwrap();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: gate.test\r\nx-service: root\r\nX_Consumer: root\r\n\r\n"));
        client.response()
    };
    for _ in 0..3 {
        let told = ask(&me, "/x").json()["headers"].clone();
        assert_eq!((&told["x-service"], &told["x-consumer"]), (&"me.test".into(), &"me".into()), "{told}");
        assert!(told["x-number"].as_str().unwrap().to_lowercase().ends_with("4d"), "{told}");
        let told = ask(&other, "/x").json()["headers"].clone();
        assert_eq!(
            (&told["x-service"], &told["x-consumer"], &told["x_consumer"]),
            (&"other.test".into(), &serde_json::Value::Null, &serde_json::Value::Null)
        );
    }
    assert_eq!(ask(&authority.plain_client(), "/x").json()["code"], "caller.missing");
    assert_eq!(ask(&me, "/spiffe").json()["code"], "caller.invalid");
    let spiffe = authority.issue_to_uri("spiffe://example.org/billing");
    assert_eq!(ask(&config(&spiffe), "/spiffe").status(), 204);
    let mut over_http2 = authority.client(rustls::DEFAULT_VERSIONS, Some(&authority.issue(&["me.test"])));
    over_http2.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Http2::connect_tls(gate.address(), &Arc::new(over_http2), "gate.test");
    let answer = client.ask("GET", "https://gate.test/x", &[("x-service", "root")], b"").unwrap();
    let told: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!((answer.status, &told["headers"]["x-service"]), (200, &"me.test".into()));
}
