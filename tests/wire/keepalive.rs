//! Failure 15: a request meets an idle upstream connection just as the service closes it, and comes back as 502.
//!
//! At its natural scale (5 s, for an hour) it is run by `cargo xtask soak keepalive`; here the service closes after 500 ms.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::figures::figure;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

use crate::{before, counter};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A service that closes a connection on which nothing came for so long.
fn impatient(keep_alive: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(keep_alive)).unwrap();
                let mut writer = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.is_empty() && writer.write_all(OK.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Clients that each ask, for so long, a little before and a little after the service closes.
fn never_fails(keep_alive: Duration, clients: u32, span: Duration) {
    let address = impatient(keep_alive);
    let gate = Binary::start(&format!(
        "workers: 1
upstreams: {{ api: {{ endpoints: [http://{address}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
    ));
    std::thread::scope(|scope| {
        for thread in 0..clients {
            let gate = &gate;
            scope.spawn(move || {
                let (mut client, end) = (gate.connect(), now() + span);
                for round in 0.. {
                    let method = ["GET", "OPTIONS", "PUT", "DELETE"][(round + thread) as usize % 4];
                    let answer = client.ask(method, "/", &[], b"");
                    assert_eq!(answer.status(), 200, "{method}, round {round} of {thread}: {}", answer.text());
                    if now() > end {
                        return;
                    }
                    // From 98 % to 102 % of the time.
                    pause(keep_alive * (980 + (thread * 7 + round * 3) % 41) / 1000);
                }
            });
        }
    });
    let failures = gate.log().iter().filter(|line| line["status"].as_u64() >= Some(500)).count();
    assert_eq!(failures, 0);
}

#[test]
fn requests_around_the_keep_alive_time_of_a_service_never_fail() {
    never_fails(ms(500), 24, ms(6_000));
}

#[test]
#[ignore = "takes an hour"]
fn requests_around_a_keep_alive_of_five_seconds_never_fail_for_an_hour() {
    never_fails(ms(5_000), 100, Duration::from_secs(figure("SECONDS", 3600) as u64));
}

/// Five seconds is what the shortest of common services have, Node.js.
#[test]
fn a_connection_idles_for_less_than_common_services_keep_one() {
    let upstream = Upstream::script(|peer| {
        while peer.request().is_ok() {
            peer.send(OK);
        }
    });
    let gate = before(&upstream, "");
    let asked = now();
    assert_eq!(gate.get("/").status(), 200);
    assert_eq!(counter(&gate, "api", "idle"), 1);
    until(ms(8_000), "the connection is closed by the gateway", || upstream.open() == 0);
    let idled = asked.elapsed();
    assert!(idled >= ms(3_900) && idled < ms(5_000) + ms(1_000), "{idled:?}");
}

#[test]
fn a_connection_that_the_service_closed_is_dropped_without_a_request() {
    let upstream = Upstream::script(|peer| {
        let _ = peer.request();
        peer.send(OK);
    });
    let gate = before(&upstream, "");
    for _ in 0..4 {
        assert_eq!(gate.get("/").status(), 200);
    }
    until(ms(3000), "no closed connection idles", || counter(&gate, "api", "idle") == 0);
    // By POST, which would not be sent twice: none of them can have met a closed connection.
    for _ in 0..20 {
        assert_eq!(gate.ask("POST", "/", &[], b"hello").status(), 200);
        pause(ms(5));
    }
}

/// A service whose connections die under their second request, before a byte of the answer; `seen` counts requests.
fn dies_on_the_second(seen: &Arc<AtomicUsize>) -> Upstream {
    let seen = Arc::clone(seen);
    Upstream::script(move |peer| {
        if peer.request().is_ok() {
            seen.fetch_add(1, SeqCst);
            peer.send(OK);
        }
        if peer.request().is_ok() {
            seen.fetch_add(1, SeqCst);
        }
    })
}

#[test]
fn a_request_whose_used_connection_dies_before_a_byte_is_tried_once_more_where_that_is_safe() {
    for (method, body, status, times) in [
        ("GET", &b""[..], 200, 2),
        ("HEAD", b"", 200, 2),
        ("DELETE", b"", 200, 2),
        ("POST", b"hello", 502, 1),
        ("PATCH", b"hello", 502, 1),
        ("POST", b"", 502, 1),
    ] {
        let seen = Arc::new(AtomicUsize::new(0));
        let upstream = dies_on_the_second(&seen);
        let gate = before(&upstream, "workers: 1");
        let mut client: Raw = gate.connect();
        assert_eq!(client.get("/warm").status(), 200);
        assert_eq!(client.ask(method, "/case", &[], body).status(), status, "{method}");
        assert_eq!(seen.load(SeqCst), 1 + times, "{method}");
    }
}
