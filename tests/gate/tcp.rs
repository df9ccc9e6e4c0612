//! Listeners that carry bytes: both ways, half-closed, with slow readers, dead services, and to the gate's own end.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::alphabet;
use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::command::pylon;
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{eventually, ms, now, until};
use serde_json::Value;

/// A gateway that carries bytes to these endpoints; `more` stands in the map of `tcp`.
fn gate(endpoints: &[SocketAddr], more: &str) -> Binary {
    Binary::start(&document(endpoints, more))
}

fn document(endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"tcp://{address}\"")).collect();
    format!(
        "listeners: [{{ address: 127.0.0.1:0, tcp: {{ forward: db{more} }} }}]\n\
         upstreams: {{ db: {{ endpoints: [{}] }} }}\nroutes: []\n",
        endpoints.join(", ")
    )
}

/// A service that gives everything back.
fn echo() -> Upstream {
    Upstream::script(|peer| {
        while let Ok(bytes) = peer.some() {
            if bytes.is_empty() || !peer.send(bytes) {
                return;
            }
        }
    })
}

/// Waits for the line of a connection that ended so.
fn logged(gate: &Binary, end: &str) -> Value {
    eventually(ms(5000), &format!("a line that says {end}"), || gate.log().into_iter().find(|line| line["end"] == end))
}

#[test]
fn bytes_go_both_ways_as_they_are() {
    let echo = echo();
    let gate = gate(&[echo.address()], "");
    let mut client = gate.connect();
    let (bytes, mut sender) = (alphabet(10 << 20), client.second_hand());
    std::thread::scope(|scope| {
        scope.spawn(|| std::io::Write::write_all(&mut sender, &bytes).unwrap());
        assert!(client.exactly(bytes.len()) == bytes);
    });
    client.half_close().expect_closed();
    let line = logged(&gate, "complete");
    for (member, value) in [("protocol", "tcp"), ("client", "127.0.0.1"), ("upstream", "db")] {
        assert_eq!(line[member], value);
    }
    assert_eq!(line["endpoint"], echo.address().to_string());
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&Value::from(10 << 20), &Value::from(10 << 20)));
    assert!(line.get("method").is_none() && line.get("path").is_none(), "{line}");
    assert_eq!(gate.metric("pylon_tcp_connections_total{end=\"complete\"}"), Some(1.0));
    assert_eq!(gate.metric("pylon_tcp_bytes_total{direction=\"out\"}"), Some(f64::from(10 << 20)));
    assert_eq!(gate.metric("pylon_upstream_connects_total{upstream=\"db\"}"), Some(1.0));
    until(ms(2000), "nothing is open", || gate.metric("pylon_upstream_connections{upstream=\"db\"}") == Some(0.0));
}

#[test]
fn one_side_may_have_said_all_while_the_other_goes_on() {
    // Answers once it has heard everything.
    let late = Upstream::script(|peer| {
        let mut heard = 0;
        while let Ok(bytes) = peer.some() {
            if bytes.is_empty() {
                peer.send(format!("heard {heard}"));
                return;
            }
            heard += bytes.len();
        }
    });
    let gate_to_late = gate(&[late.address()], "");
    assert_eq!(gate_to_late.connect().send("a question").half_close().rest(), b"heard 10");
    // Says goodbye first, and listens on.
    let early = Upstream::script(|peer| {
        peer.send("ready");
        peer.half_close();
        let _ = peer.wait_for_end(ms(10_000));
    });
    let gate_to_early = gate(&[early.address()], "");
    let mut client = gate_to_early.connect();
    assert_eq!(client.rest(), b"ready");
    client.send("after").send(" all").half_close();
    until(ms(5000), "the service has heard it", || early.received(0) == b"after all");
    logged(&gate_to_early, "complete");
}

#[test]
fn a_slow_reader_holds_the_service_back_and_not_the_gates_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let flood = Upstream::script(move |peer| {
        let piece = vec![b'x'; 64 << 10];
        while counted.load(SeqCst) < 256 << 20 && peer.send(&piece) {
            counted.fetch_add(piece.len(), SeqCst);
        }
    });
    let gate = gate(&[flood.address()], "");
    let before = gate.process.memory();
    let clients: Vec<Raw> = (0..4).map(|_| gate.connect()).collect();
    // Sockets take what they can; then nothing moves.
    let mut last = 0;
    until(ms(10_000), "the service is held back", || {
        pylon_testkit::wait::pause(ms(200));
        let moved = sent.load(SeqCst);
        std::mem::replace(&mut last, moved) == moved && moved > 0
    });
    assert!(sent.load(SeqCst) < 200 << 20, "{} bytes were taken", sent.load(SeqCst));
    let grown = gate.process.memory().saturating_sub(before);
    assert!(grown < 4 << 20, "grown by {grown}");
    drop(clients);
    until(ms(5000), "all are told of", || gate.metric("pylon_connections") == Some(0.0));
}

#[test]
fn a_dead_endpoint_is_passed_over_and_where_all_are_dead_the_client_is_let_go() {
    let (echo, dead) = (echo(), Upstream::nobody());
    let gate_to_both = gate(&[dead, echo.address()], "");
    for _ in 0..6 {
        let mut client = gate_to_both.connect();
        assert_eq!(client.send("hello").exactly(5), b"hello");
        client.half_close().expect_closed();
    }
    let failures = gate_to_both.metric("pylon_upstream_connect_failures_total{upstream=\"db\"}");
    assert!(failures >= Some(1.0), "{failures:?}");
    let gate_to_none = gate(&[dead], "");
    gate_to_none.connect().expect_closed();
    let line = logged(&gate_to_none, "unreached");
    assert!(line["detail"].as_str().unwrap().contains("refused") && line["attempts"] == 1, "{line}");
}

#[test]
fn where_one_side_breaks_the_other_does_not_take_it_for_an_end() {
    let breaks = Upstream::script(|peer| {
        peer.send("half of it");
        let _ = peer.some();
        peer.reset();
    });
    let gate_to_breaks = gate(&[breaks.address()], "");
    let mut client = gate_to_breaks.connect();
    assert_eq!(client.exactly(10), b"half of it");
    client.send("go");
    assert!(client.some().is_err(), "a reset must not look like the end");
    logged(&gate_to_breaks, "upstream_broke");

    let ends = Arc::new(std::sync::Mutex::new(None));
    let seen = Arc::clone(&ends);
    let listens = Upstream::script(move |peer| {
        peer.send("hello");
        *seen.lock().unwrap() = Some(peer.wait_for_end(ms(10_000)));
    });
    let gate_to_listens = gate(&[listens.address()], "");
    let mut client = gate_to_listens.connect();
    assert_eq!(client.exactly(5), b"hello");
    client.abort();
    until(ms(5000), "the service sees the reset", || *ends.lock().unwrap() == Some(End::Reset));
    logged(&gate_to_listens, "client_gone");
}

#[test]
fn a_connection_on_which_nothing_moves_is_closed_and_one_that_drips_is_not() {
    let echo = echo();
    let gate = gate(&[echo.address()], ", idle: 400ms");
    let mut client = gate.connect();
    let began = now();
    for _ in 0..6 {
        assert_eq!(client.send("x").exactly(1), b"x");
        pylon_testkit::wait::pause(ms(150));
    }
    assert!(began.elapsed() > ms(800));
    let quiet = now();
    client.expect_closed();
    assert!(quiet.elapsed() < ms(5000));
    assert_eq!(logged(&gate, "idle")["bytes_in"], 6);
}

#[test]
fn connections_go_on_until_the_grace_is_over() {
    let echo = echo();
    let mut gate = Binary::start_with(&document(&[echo.address()], ""), &["--grace", "2s"], |_| {});
    let (mut stays, mut ends) = (gate.connect(), gate.connect());
    assert_eq!(stays.send("a").exactly(1), b"a");
    assert_eq!(ends.send("a").exactly(1), b"a");
    let began = now();
    gate.process.terminate();
    // Whoever knocks while the socket is being closed hears nothing for a second, and then that nobody is there.
    until(ms(2000), "nobody is accepted any more", || Raw::try_connect(gate.address()).is_err());
    assert_eq!(stays.send("still here").exactly(10), b"still here");
    assert_eq!(ends.send("bye").exactly(3), b"bye");
    ends.half_close().expect_closed();
    let mut end = Vec::new();
    let _ = stays.second_hand().read_to_end(&mut end);
    assert!(end.is_empty() && began.elapsed() >= ms(1900), "{:?}", began.elapsed());
    assert_eq!(gate.process.code(ms(5000)), Some(0));
    for (end, bytes) in [("cut", 11), ("complete", 4)] {
        let is_told = |line: &Value| line["end"] == end && line["bytes_in"] == bytes;
        until(ms(2000), &format!("a line that says {end}"), || gate.log().iter().any(is_told));
    }
}

#[test]
fn tls_may_be_ended_before_the_bytes_go_on() {
    let (echo, other, authority) = (echo(), Upstream::script(|peer| _ = peer.send("other")), Authority::default());
    let document = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ cert: a.pem, key: a.key }}] }}, \
         tcp: {{ forward: db, sni: {{ other.test: other }} }} }}]\n\
         upstreams: {{ db: {{ endpoints: [\"tcp://{}\"] }}, other: {{ endpoints: [\"tcp://{}\"] }} }}\n",
        echo.address(),
        other.address()
    );
    let gate = Binary::start_with(&document, &[], |folder| {
        authority.issue(&["gate.test", "other.test"]).write(folder, "a");
    });
    // Whatever protocol is offered is none of ours.
    let mut config = authority.client(rustls::DEFAULT_VERSIONS, None);
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let config = Arc::new(config);
    let mut client = gate.connect().try_tls(&config, "gate.test").unwrap();
    let bytes = alphabet(300_000);
    client.send(&bytes);
    assert!(client.exactly(bytes.len()) == bytes);
    assert_eq!(gate.connect().try_tls(&config, "other.test").unwrap().rest(), b"other");
    // An end without the notice of TLS may be a cut by somebody between, so it is none.
    drop(client);
    let line =
        eventually(ms(5000), "a line about it", || gate.log().into_iter().find(|line| line["host"] == "gate.test"));
    assert_eq!(line["end"], "client_gone");
    // Cleartext gets no answer of HTTP here.
    gate.connect().send("GET / HTTP/1.1\r\n\r\n").expect_closed();
}

#[test]
fn what_is_wrong_with_such_a_listener_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let upstreams =
        "upstreams: { db: { endpoints: [\"tcp://127.0.0.1:1\"] }, api: { endpoints: [\"http://127.0.0.1:1\"] } }";
    for (listener, more, words) in [
        ("tcp: nobody", "", "this listener forwards to an upstream that does not exist"),
        ("tcp: dbs", "", "did you mean `db`"),
        ("tcp: api", "", "write its endpoints as `tcp://host:port`"),
        ("tcp: { sni: { a.test: api } }", "", "write its endpoints as `tcp://host:port`"),
        ("tcp: { sni: { \"*\": db } }", "", "`*` is every name"),
        ("tcp: { sni: { a b: db } }", "", "is no name of a host"),
        ("tcp: { sni: { a.test: db, A.test: db } }", "", "is written twice"),
        ("tcp: {}", "", "this leads nowhere"),
        ("tcp:", "", "tcp"),
        ("tcp: { forward: db, idel: 1h }", "", "did you mean `idle`"),
        ("tcp: db, http2: true", "", "leave `http2` out"),
        ("http2: true", "routes: [{ match: /, forward: db }]", "`tcp://`, which is not HTTP"),
    ] {
        let document = format!("listeners: [{{ address: 127.0.0.1:0, {listener} }}]\n{upstreams}\n{more}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        let outcome = pylon(folder.path(), ["check", "pylon.yaml"]);
        assert_eq!(outcome.code, Some(2), "{listener}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(words) && outcome.stderr.contains("pylon.yaml:"), "{}", outcome.stderr);
    }
    for endpoints in ["\"tcp://a\"", "\"tcp://a:1\", \"http://a:1\"", "\"tcp://a:1/x\""] {
        let document =
            format!("listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ db: {{ endpoints: [{endpoints}] }} }}\n");
        std::fs::write(folder.path().join("pylon.yaml"), document).unwrap();
        assert_eq!(pylon(folder.path(), ["check", "pylon.yaml"]).code, Some(2), "{endpoints}");
    }
}
