//! Listeners that come, go and change while the gateway runs: nobody on them or beside them loses a request, whoever has not
//! met what is demanded now is not served, and where one cannot be opened nothing has changed.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, get, request};
use pylon_testkit::command::pylon;
use pylon_testkit::http2::Http2;
use pylon_testkit::process::kill;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{eventually, ms, pause, until};
use pylon_testkit::websocket::{CLOSE, TEXT, WebSocket, echo, switching};
use rustls::version::TLS13;
use serde_json::Value;

const FIRST: &str = "127.0.0.1:0";
const SECOND: &str = "127.0.0.2:0";
const HELLO: &str = "routes: [{ match: \"/{*rest}\", respond: { body: hello } }]\n";

fn document(listeners: &[&str], more: &str) -> String {
    format!("workers: 2\nlisteners: [{}]\n{more}", listeners.join(", "))
}

fn at(address: &str) -> String {
    format!("{{ address: \"{address}\" }}")
}

/// What the admin API says of the listener that is written so.
fn listener(gate: &Binary, written: &str) -> Option<Value> {
    let all = gate.admin("/api/listeners").json();
    all.as_array().unwrap().iter().find(|one| one["written"] == written).cloned()
}

fn address(gate: &Binary, written: &str) -> SocketAddr {
    listener(gate, written).unwrap()["address"].as_str().unwrap().parse().unwrap()
}

/// Clients of `address` until `stop`, each request by a connection of its own or by one that is kept. Where `may_go` the address
/// may be refused, but whoever has been let in is answered.
fn load(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
    may_go: bool,
) -> (Arc<AtomicUsize>, Vec<std::thread::JoinHandle<()>>) {
    let answers = Arc::<AtomicUsize>::default();
    let client = |once: bool| {
        let (stop, answers) = (Arc::clone(stop), Arc::clone(&answers));
        std::thread::spawn(move || {
            while !stop.load(SeqCst) {
                let mut client = match Raw::try_connect(address) {
                    Ok(client) => client,
                    Err(_) if may_go => return,
                    Err(error) => panic!("{address} is refused: {error}"),
                };
                loop {
                    let answer = client.get("/");
                    assert_eq!(answer.text(), "hello");
                    answers.fetch_add(1, SeqCst);
                    if once || stop.load(SeqCst) || answer.field("connection").is_some() {
                        break;
                    }
                }
            }
        })
    };
    let clients = [false, true, true].map(client).into();
    (answers, clients)
}

#[test]
fn a_listener_comes_and_goes_and_nobody_on_it_or_beside_it_loses_a_request() {
    let gate = Binary::start(&document(&[&at(FIRST)], HELLO));
    let stop = Arc::<AtomicBool>::default();
    let (answers, clients) = load(gate.address(), &stop, false);
    for _ in 0..3 {
        gate.apply(&document(&[&at(FIRST), &at(SECOND)], HELLO));
        let second = address(&gate, SECOND);
        let (answers_there, clients_there) = load(second, &stop, true);
        let before = answers.load(SeqCst);
        until(ms(9000), "there is load on both", || {
            answers_there.load(SeqCst) > 30 && answers.load(SeqCst) > before + 30
        });
        gate.apply(&document(&[&at(FIRST)], HELLO));
        for client in clients_there {
            client.join().expect("a client of the listener that went has lost a request");
        }
        assert!(Raw::try_connect(second).is_err(), "it is closed when the reload is answered");
        assert!(listener(&gate, SECOND).is_none());
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.join().expect("a client of the other listener has lost a request");
    }
}

#[test]
fn connections_of_a_listener_that_is_gone_are_told_to_go_and_cut_when_they_do_not() {
    let sockets = echo();
    let slow = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\n\r\nbegun");
        peer.wait_for_end(ms(20_000));
    });
    let more = format!(
        "upstreams: {{ ws: {{ endpoints: [{}] }}, slow: {{ endpoints: [{}] }} }}\nroutes:\n  \
         - {{ match: /ws, forward: ws, websocket: true }}\n  - {{ match: /slow, forward: slow }}\n  \
         - {{ match: /, respond: {{ body: hello }} }}\n",
        sockets.url(),
        slow.url()
    );
    let both = document(&[&at(FIRST), &at(SECOND)], &more);
    let gate = Binary::start_with(&both, &["--grace", "1s"], |_| {});
    let second = address(&gate, SECOND);
    let mut socket = WebSocket::begin(Raw::connect(second), "/ws", &[]);
    let mut other = WebSocket::begin(gate.connect(), "/ws", &[]);
    let (mut idle, mut http2, mut stubborn) = (Raw::connect(second), Http2::connect(second), Raw::connect(second));
    assert_eq!(idle.get("/").text(), "hello");
    assert_eq!(http2.ask("GET", &format!("http://{second}/"), &[], b"").unwrap().text(), "hello");
    stubborn.send(request("GET", "/slow", &[("host", "a")], b""));
    assert_eq!(stubborn.head().status(), 200);
    let began = pylon_testkit::wait::now();
    gate.apply(&document(&[&at(FIRST)], &more));
    assert_eq!(socket.frame().code(), Some(1001));
    socket.send(CLOSE, &[3, 233]);
    idle.expect_closed();
    until(ms(5000), "the client of HTTP/2 is told to go", || http2.has_ended());
    let gone = &gate.admin("/api/listeners").json()[1];
    assert_eq!((&gone["accepting"], &gone["address"]), (&false.into(), &second.to_string().into()));
    assert!(gone["leaving"].as_u64().unwrap() >= 1, "{gone}");
    until(ms(9000), "what does not end is cut", || slow.open() == 0);
    assert!(began.elapsed() >= ms(900), "after the grace time, not before");
    until(ms(5000), "it is gone for good", || gate.admin("/api/listeners").json().as_array().unwrap().len() == 1);
    other.echoes(TEXT, b"on the other listener");
}

#[test]
fn where_one_cannot_be_opened_nothing_has_changed_and_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.sock"), folder.path().join("new.sock"));
    let unix = |path: &Path, more: &str| format!("{{ address: \"unix:{}\"{more} }}", path.display());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let gate = Binary::start(&document(&[&at(FIRST), &unix(&old, "")], HELLO));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let hash = gate.admin("/api/snapshot").json()["hash"].clone();
    gate.write(&document(&[&at(FIRST), &unix(&old, ", mode: 666"), &unix(&new, ""), &at(&taken)], "routes: []\n"));
    let answer = gate.reload();
    assert_eq!(answer.status(), 422);
    let wrong = &answer.json()["diagnostics"][0];
    assert!(wrong["title"].as_str().unwrap().starts_with(&format!("cannot listen on {taken}")), "{wrong}");
    assert!(wrong["help"][0].as_str().unwrap().contains("choose another port"), "{wrong}");
    assert_eq!(wrong["place"]["line"], 2);
    assert!(!new.exists(), "what was bound before the error is closed again");
    assert_eq!((mode(&old), gate.get("/").text()), (0o660, "hello".into()));
    assert_eq!(gate.admin("/api/snapshot").json()["hash"], hash);
    // The same port is this gateway's own.
    let own = format!("0.0.0.0:{}", gate.address().port());
    gate.write(&document(&[&at(&own)], HELLO));
    let told = gate.reload().text();
    assert!(told.contains("this gateway itself listens on"), "{told}");
    assert_eq!(gate.get("/").text(), "hello");
}

#[test]
fn a_unix_socket_comes_with_its_permissions_gets_others_and_goes_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let unix = |more: &str| format!("{{ address: \"unix:{}\"{more} }}", path.display());
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let gate = Binary::start(&document(&[&at(FIRST)], HELLO));
    for (more, is) in [(", mode: 600", 0o600), ("", 0o660), (", mode: 666", 0o666)] {
        gate.apply(&document(&[&at(FIRST), &unix(more)], HELLO));
        assert_eq!(mode(), is);
        assert!(UnixStream::connect(&path).is_ok());
    }
    gate.apply(&document(&[&at(FIRST)], HELLO));
    assert!(!path.exists());
}

#[test]
fn a_new_certificate_is_shown_to_whoever_comes_next_and_open_connections_stay() {
    let authority = Authority::default();
    let tls = |name: &str| {
        format!("{{ address: \"{FIRST}\", tls: {{ certificates: [{{ cert: {name}.pem, key: {name}.key }}] }} }}")
    };
    let gate = Binary::start_with(&document(&[&tls("a")], HELLO), &[], |folder| {
        for name in ["a", "b"] {
            authority.issue(&["gate.test"]).write(folder, name);
        }
    });
    let config = authority.plain_client();
    let connect = || Raw::connect(gate.address()).try_tls(&config, "gate.test").unwrap();
    let shown = |client: &Raw| client.session().peer_certificates().unwrap()[0].to_vec();
    let mut open = connect();
    assert_eq!(open.get("/").text(), "hello");
    gate.apply(&document(&[&tls("b")], HELLO));
    assert_ne!(shown(&connect()), shown(&open));
    assert_eq!(open.get("/").text(), "hello");
    assert!(gate.admin("/metrics").text().contains("cert=\"b.pem\""), "the new one is looked after");
    // What cannot be read changes nothing.
    gate.write(&document(&[&tls("missing")], HELLO));
    assert_eq!(gate.reload().status(), 422);
    assert_eq!(connect().get("/").text(), "hello");
}

#[test]
fn whoever_came_before_client_certificates_were_demanded_is_not_served_any_more() {
    let authority = Authority::default();
    let tls = |more: &str| {
        format!("{{ address: \"{FIRST}\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}]{more} }} }}")
    };
    let stream = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegun");
        peer.pause(ms(1500));
        peer.send("ended");
    });
    let more = format!(
        "upstreams: {{ slow: {{ endpoints: [{}] }} }}\nroutes: [{{ match: /slow, forward: slow }}, {{ match: /, respond: {{ body: hello }} }}]\n",
        stream.url()
    );
    let gate = Binary::start_with(&document(&[&tls("")], &more), &[], |folder| {
        authority.issue(&["gate.test"]).write(folder, "a");
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    });
    let config = authority.plain_client();
    let connect = |config| Raw::connect(gate.address()).try_tls(config, "gate.test");
    let (mut idle, mut busy) = (connect(&config).unwrap(), connect(&config).unwrap());
    let mut http2 = Http2::connect_tls(gate.address(), &config, "gate.test");
    assert_eq!(idle.get("/").text(), "hello");
    assert_eq!(http2.ask("GET", "https://gate.test/", &[], b"").unwrap().status, 200);
    busy.send(request("GET", "/slow", &[("host", "gate.test")], b""));
    assert_eq!(busy.head().status(), 200);
    gate.apply(&document(&[&tls(", client_cert: { ca: ca.pem }")], &more));
    // At once, while the connection is still being ended.
    if idle.try_send(request("GET", "/", &[("host", "gate.test")], b"")).is_ok()
        && let Ok(answer) = idle.try_response("GET")
    {
        assert_eq!(answer.status(), 421);
    }
    if let Ok(answer) = http2.ask("GET", "https://gate.test/", &[], b"") {
        assert_eq!(answer.status, 421);
    }
    assert_eq!(busy.exactly(10), b"begunended", "what was under way is finished");
    // TLS 1.3 tells with the first answer.
    let refused = connect(&config).and_then(|mut client| {
        client.try_send(request("GET", "/", &[("host", "gate.test")], b""))?;
        client.some()
    });
    assert!(refused.map_or(true, |bytes| bytes.is_empty()));
    let identity = authority.issue(&["client.test"]);
    let known = Arc::new(authority.client(&[&TLS13], Some(&identity)));
    assert_eq!(connect(&known).unwrap().get("/").text(), "hello");
}

#[test]
fn a_websocket_that_came_before_client_certificates_were_demanded_is_told_to_go_and_cut_when_it_does_not() {
    let authority = Authority::default();
    let tls = |more: &str| {
        format!("{{ address: \"{FIRST}\", tls: {{ certificates: [{{ cert: a.pem, key: a.key }}]{more} }} }}")
    };
    let service = Upstream::script(|peer| {
        let asked = peer.request().unwrap();
        peer.send(switching(&asked, ""));
        peer.wait_for_end(ms(20_000));
    });
    let more = format!(
        "upstreams: {{ ws: {{ endpoints: [{}] }} }}\nroutes: [{{ match: /ws, forward: ws, websocket: true }}]\n",
        service.url()
    );
    let gate = Binary::start_with(&document(&[&tls("")], &more), &["--grace", "1s"], |folder| {
        authority.issue(&["gate.test"]).write(folder, "a");
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    });
    let client = Raw::connect(gate.address()).try_tls(&authority.plain_client(), "gate.test").unwrap();
    let mut socket = WebSocket::begin(client, "/ws", &[]);
    let began = pylon_testkit::wait::now();
    gate.apply(&document(&[&tls(", client_cert: { ca: ca.pem }")], &more));
    assert_eq!(socket.frame().code(), Some(1001));
    // Whoever comes next, on both workers, meets the new terms.
    let later: Vec<_> = (0..16).map(|_| gate.connect()).collect();
    // Neither side answers.
    until(ms(4000), "it is cut", || service.open() == 0);
    assert!(began.elapsed() >= ms(900), "after the grace time, not before");
    drop(later);
}

#[test]
fn bytes_go_to_the_new_target_from_the_next_connection_on() {
    let said = |text: &'static str| {
        Upstream::script(move |peer| {
            peer.send(text);
            while peer.some().is_ok_and(|bytes| !bytes.is_empty() && peer.send(bytes)) {}
        })
    };
    let (one, two) = (said("1"), said("2"));
    let tcp = |target: &str| {
        document(
            &[&format!("{{ address: \"{FIRST}\", tcp: {target} }}")],
            &format!(
                "upstreams: {{ one: {{ endpoints: [\"tcp://{}\"] }}, two: {{ endpoints: [\"tcp://{}\"] }} }}\nroutes: []\n",
                one.address(),
                two.address()
            ),
        )
    };
    let gate = Binary::start(&tcp("one"));
    let mut before = gate.connect();
    assert_eq!(before.exactly(1), b"1");
    gate.apply(&tcp("two"));
    assert_eq!(gate.connect().exactly(1), b"2");
    before.send("still");
    assert_eq!(before.exactly(5), b"still");
    assert_eq!(listener(&gate, FIRST).unwrap()["protocol"], "tcp");
}

/// A process that took over, which is no child of this one. It is killed when it is dropped.
struct Heir(u32);

impl Drop for Heir {
    fn drop(&mut self) {
        kill(self.0);
    }
}

#[test]
fn an_upgrade_hands_over_the_listeners_that_there_are_by_now() {
    let arguments = ["--drain-delay", "off", "--upgrade-socket", "upgrade.sock"];
    let mut gate = Binary::start_with(&document(&[&at(FIRST)], HELLO), &arguments, |_| {});
    gate.apply(&document(&[&at(FIRST), &at(SECOND)], HELLO));
    let second = address(&gate, SECOND);
    let outcome = pylon(gate.folder(), ["upgrade", "--upgrade-socket", "upgrade.sock"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let _heir = Heir(outcome.stdout.split(' ').nth(2).unwrap().parse().unwrap());
    assert_eq!(gate.process.code(ms(9000)), Some(0));
    assert_eq!((get(gate.address(), "/").text(), get(second, "/").text()), ("hello".into(), "hello".into()));
    assert_eq!(address(&gate, SECOND), second);
    gate.apply(&document(&[&at(SECOND)], HELLO));
    assert!(Raw::try_connect(gate.address()).is_err());
    assert_eq!(get(second, "/").text(), "hello");
}

#[test]
fn a_process_that_has_handed_over_looks_after_its_document_no_more() {
    let arguments = ["--watch", "on", "--drain-delay", "60s", "--upgrade-socket", "upgrade.sock"];
    let gate = Binary::start_with(&document(&[&at(FIRST)], HELLO), &arguments, |_| {});
    let outcome = pylon(gate.folder(), ["upgrade", "--upgrade-socket", "upgrade.sock"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let _heir = Heir(outcome.stdout.split(' ').nth(2).unwrap().parse().unwrap());
    gate.write(&document(&[&at(FIRST)], "routes: [{ match: /, respond: { body: new } }]\n"));
    until(ms(9000), "the new process has seen it", || get(gate.address(), "/").text() == "new");
    // The one before would have seen it within the same second; both write to the same file.
    pause(ms(1100));
    let log = gate.stderr();
    assert_eq!(log.lines().filter(|line| line.contains("another document is in force")).count(), 1, "{log}");
    assert!(!log.contains("document is refused"), "{log}");
}

#[test]
fn a_rollback_brings_back_the_listeners_of_its_revision() {
    let gate = Binary::start_with(&document(&[&at(FIRST), &at(SECOND)], HELLO), &["--state", "state"], |_| {});
    let second = address(&gate, SECOND);
    gate.apply(&document(&[&at(FIRST)], HELLO));
    assert!(Raw::try_connect(second).is_err());
    let path = "/api/rollback/1";
    let answer = pylon_testkit::client::ask(gate.admin, "POST", path, &[("host", "localhost")], b"");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let again = eventually(ms(5000), "the listener is back", || listener(&gate, SECOND));
    let again: SocketAddr = again["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(get(again, "/").text(), "hello");
}
