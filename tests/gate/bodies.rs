//! Failure 36: whole bodies in memory. Scaled: 16 MiB each, to somebody who does not read.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use pylon_testkit::answer::{alphabet, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::nginx::Nginx;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

use crate::forwarding::before;

const MANY: usize = 100;
const LENGTH: usize = 16 << 20;
const MOST: u64 = 200 << 20;

#[test]
fn a_hundred_large_uploads_to_a_service_that_sleeps_stay_out_of_memory() {
    let awake = Arc::new(AtomicBool::new(false));
    let sleeper = Arc::clone(&awake);
    let upstream = Upstream::script(move |peer| {
        let Ok(head) = peer.head() else { return };
        until(ms(20_000), "the service is woken", || sleeper.load(SeqCst));
        // One of them is read to its end, to see that nothing was lost while it waited.
        if head.target() == "/whole" {
            let body = peer.exactly(LENGTH).unwrap_or_default();
            let same = body == alphabet(LENGTH);
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{same}", same.to_string().len()));
        }
    });
    let gate = before(&upstream, "");
    let sent = Arc::new(AtomicUsize::new(0));
    let body: Arc<[u8]> = alphabet(LENGTH).into();
    let mut clients = Vec::new();
    for number in 0..MANY {
        let mut client = gate.connect();
        let path = if number == 0 { "/whole" } else { "/upload" };
        client.send(request("POST", path, &[("content-length", &LENGTH.to_string())], b""));
        let (mut socket, sent, body) = (client.second_hand(), Arc::clone(&sent), Arc::clone(&body));
        clients.push(client);
        std::thread::spawn(move || {
            for piece in body.chunks(64 << 10) {
                if socket.write_all(piece).is_err() {
                    return;
                }
                sent.fetch_add(piece.len(), SeqCst);
            }
        });
    }
    settles("the uploads stand still", || sent.load(SeqCst));
    assert!(sent.load(SeqCst) < MANY * LENGTH * 9 / 10, "the sockets alone hold the bodies: this shows nothing");
    let memory = gate.process.memory();
    assert!(memory <= MOST, "{} MiB resident", memory >> 20);
    awake.store(true, SeqCst);
    let answer = clients[0].patience(ms(20_000)).response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "true"));
}

#[test]
fn a_hundred_large_downloads_to_clients_that_sleep_stay_out_of_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let body: Arc<[u8]> = alphabet(LENGTH).into();
    let upstream = Upstream::script(move |peer| {
        if peer.request().is_err() || !peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")) {
            return;
        }
        for piece in body.chunks(64 << 10) {
            if !peer.send(piece) {
                return;
            }
            count.fetch_add(piece.len(), SeqCst);
        }
    });
    let gate = before(&upstream, "");
    let mut clients: Vec<Raw> = (0..MANY).map(|_| gate.connect()).collect();
    for client in &mut clients {
        client.send(request("GET", "/download", &[], b""));
        assert_eq!(client.head().status(), 200);
    }
    settles("the downloads stand still", || sent.load(SeqCst));
    assert!(sent.load(SeqCst) < MANY * LENGTH * 9 / 10, "the sockets alone hold the bodies: this shows nothing");
    let memory = gate.process.memory();
    assert!(memory <= MOST, "{} MiB resident", memory >> 20);
    let body = clients[0].patience(ms(20_000)).exactly(LENGTH);
    assert!(body == alphabet(LENGTH), "what waited came changed");
}

/// Waits until a count has not moved for a while.
fn settles(what: &str, count: impl Fn() -> usize) {
    let mut last = (count(), now());
    until(ms(20_000), what, || {
        if count() != last.0 {
            last = (count(), now());
        }
        pause(ms(20));
        last.1.elapsed() > ms(500)
    });
}

#[test]
fn a_body_over_its_cap_is_refused_by_its_length_before_a_byte_is_read() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "defaults: { request_limits: { body: 1KiB } }");
    let mut client = gate.connect();
    // Nothing of the body is ever sent.
    client.send(request("POST", "/big", &[("content-length", "1073741824")], b""));
    let answer = client.response();
    assert_eq!((answer.status(), answer.code().as_deref()), (413, Some("request_limits.body")));
    client.expect_closed();
    assert_eq!(upstream.connections(), 0);
    assert_eq!(gate.logged("/big")["reason"], "request_limits.body");
}

#[test]
fn a_body_of_unknown_length_over_its_cap_is_refused_while_it_streams() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "defaults: { request_limits: { body: 1KiB } }");
    let mut client = gate.connect();
    client.send(request("POST", "/big", &[("transfer-encoding", "chunked")], b""));
    for _ in 0..3 {
        let _ = client.try_send(chunk(&alphabet(600)));
    }
    let answer = client.response();
    assert_eq!(answer.status(), 413, "{}", answer.text());
    assert_eq!(upstream.requests(), 0, "the service never had a whole request");
    let mut again = gate.connect();
    assert_eq!(again.ask("POST", "/", &[], &alphabet(1024)).status(), 200, "exactly the cap is allowed");
}

#[test]
fn a_service_that_breaks_off_never_looks_whole() {
    for (name, bytes) in [
        ("sized", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"),
        ("chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ] {
        let upstream = Upstream::script(move |peer| {
            if peer.request().is_ok() {
                peer.send(bytes);
                peer.pause(ms(50));
                peer.reset();
            }
        });
        let gate = before(&upstream, "");
        let mut client = gate.connect();
        client.send(request("GET", "/broken", &[], b""));
        assert!(client.try_response("GET").is_err(), "{name}");
        let line = gate.logged("/broken");
        assert_eq!((line["end"].as_str(), line["status"].as_u64()), (Some("upstream_broke"), Some(200)), "{name}");
    }
}

#[test]
fn a_body_up_to_the_close_of_its_connection_is_passed_in_chunks() {
    let upstream = Upstream::script(|peer| {
        if peer.request().is_ok() {
            peer.send("HTTP/1.1 200 OK\r\n\r\nhello");
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let answer = client.get("/");
    assert_eq!((answer.text().as_str(), answer.chunks.is_some()), ("hello", true));
    assert_eq!(client.get("/").text(), "hello");
}

#[test]
fn nginx_behind_the_gate_serves_files_and_ranges() {
    let nginx = Nginx::start("location = /up { return 200 up; }");
    std::fs::write(nginx.root().join("large"), alphabet(2_000_000)).unwrap();
    let gate = Binary::start(&format!(
        "upstreams: {{ files: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: files }}]",
        nginx.url()
    ));
    let mut client = gate.connect();
    for _ in 0..3 {
        assert!(client.get("/large").body == alphabet(2_000_000));
        let part = client.ask("GET", "/large", &[("range", "bytes=26-51")], b"");
        assert_eq!((part.status(), part.text().as_str()), (206, "abcdefghijklmnopqrstuvwxyz"));
        let etag = client.ask("HEAD", "/large", &[], b"").field("etag").unwrap();
        assert_eq!(client.ask("GET", "/large", &[("if-none-match", &etag)], b"").status(), 304);
        assert_eq!(client.get("/none").status(), 404);
        assert_eq!(client.get("/up").text(), "up");
    }
    let url = format!("http://{}/large", gate.address());
    let curl = Command::new("curl").args(["--silent", "--fail", &url]).output();
    let curl = curl.expect("curl is installed: run `./test --install`");
    assert!(curl.status.success() && curl.stdout == alphabet(2_000_000));
}

#[test]
fn under_wrk_every_request_is_answered_and_counted() {
    let nginx = Nginx::start("location = /up { return 200 up; }");
    let gate = Binary::start(&format!(
        "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", name: all, forward: api }}]",
        nginx.url()
    ));
    let url = format!("http://{}/up", gate.address());
    let wrk = Command::new("wrk").args(["-t1", "-c16", "-d1s", &url]).output();
    let wrk = wrk.expect("wrk is installed: run `./test --install`");
    let summary = String::from_utf8_lossy(&wrk.stdout).into_owned();
    assert!(wrk.status.success() && !summary.contains("Non-2xx") && !summary.contains("Socket errors"), "{summary}");
    let line = summary.lines().find(|line| line.contains(" requests in ")).expect("a summary");
    let answered: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
    assert!(answered > 100.0, "{summary}");
    until(ms(5000), "nothing is in flight", || gate.metric("pylon_requests_in_flight") == Some(0.0));
    let counted = gate.metric("pylon_requests_total{route=\"all\",status_class=\"2xx\"}").unwrap();
    // wrk leaves in the middle of its last requests.
    assert!((answered..=answered + 16.0).contains(&counted), "{answered} by wrk, {counted} by the gateway");
    assert_eq!(gate.metric("pylon_upstream_connect_failures_total{upstream=\"api\"}"), Some(0.0));
}
