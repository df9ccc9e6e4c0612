//! Failure 15: a request meets an idle upstream connection just as the service closes it, and comes back as 502.
//!
//! At its natural scale (5 s, for an hour) this is a soak; here the service closes after 500 ms.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pylon_testkit::binary::Binary;
use pylon_testkit::client::Raw;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause, until};

use crate::{before, counter};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A service that closes a connection on which nothing came for 500 ms.
fn impatient() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(ms(500))).unwrap();
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

#[test]
fn requests_around_the_keep_alive_time_of_a_service_never_fail() {
    let address = impatient();
    let gate = Binary::start(&format!(
        "workers: 1
upstreams: {{ api: {{ endpoints: [http://{address}] }} }}
routes: [{{ match: \"/{{*rest}}\", forward: api }}]"
    ));
    std::thread::scope(|scope| {
        for thread in 0..24_u64 {
            let gate = &gate;
            scope.spawn(move || {
                let mut client = gate.connect();
                for round in 0..12_u64 {
                    let answer = client.get("/");
                    assert_eq!(answer.status(), 200, "round {round} of {thread}: {}", answer.text());
                    pause(ms(490 + (thread * 7 + round * 3) % 21));
                }
            });
        }
    });
    let failures = gate.log().iter().filter(|line| line["status"].as_u64() >= Some(500)).count();
    assert_eq!(failures, 0);
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
