//! Failure 34: slow clients. Deadlines and rates are the same on HTTP/1 and HTTP/2, and spare whoever is merely slow.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use pylon_testkit::answer::{Answer, alphabet, chunk};
use pylon_testkit::binary::Binary;
use pylon_testkit::client::{Raw, request};
use pylon_testkit::http2::{Http2, PREFACE, frame, hpack, send};
use pylon_testkit::tls::Authority;
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, now, pause, until};

use crate::forwarding::before;

/// How much later than its limit a timer may fire on a machine that is busy.
const SLACK: Duration = Duration::from_millis(2000);

#[test]
fn an_upload_slower_than_the_rate_is_told_so_and_a_steady_one_passes() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "limits: { body_timeout: 1s, body_rate: 1000B/s }");
    for (bytes, passes) in [(50, false), (400, true)] {
        let mut client = gate.connect();
        client.send(request("POST", "/up", &[("transfer-encoding", "chunked")], b""));
        let begun = now();
        let mut whole = true;
        for _ in 0..15 {
            whole &= client.try_send(chunk(&alphabet(bytes))).is_ok();
            pause(ms(200));
        }
        let _ = client.try_send("0\r\n\r\n");
        let answer = client.response();
        if passes {
            assert!(whole && answer.status() == 200, "{}", answer.text());
        } else {
            assert_eq!((answer.status(), answer.code().as_deref()), (408, Some("request.timeout")));
            assert_eq!(answer.json()["detail"], "the client_body_rate timer fired (limits.body_rate)");
            assert!(begun.elapsed() < ms(3000) + SLACK);
        }
    }
    let mut client = Http2::connect(gate.address());
    for (bytes, status) in [(50, 408), (400, 200)] {
        let mut stream = client.open("POST", "http://gate.test/up", &[], false).unwrap();
        for _ in 0..15 {
            let data = Bytes::from(alphabet(bytes));
            if client.wait(send(&mut stream.sending, data)).is_err() {
                break;
            }
            pause(ms(200));
        }
        let _ = stream.sending.send_data(Bytes::new(), true);
        let answer = client.answer(stream).unwrap();
        assert_eq!(answer.status, status, "{bytes}: {}", answer.text());
    }
}

#[test]
fn a_client_of_http_2_that_is_silent_in_its_body_is_cut_as_one_of_http_1_is() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "limits: { body_timeout: 300ms }");
    let mut client = Http2::connect(gate.address());
    let mut stream = client.open("POST", "http://gate.test/up", &[], false).unwrap();
    client.wait(send(&mut stream.sending, Bytes::from_static(b"some"))).unwrap();
    let begun = now();
    let answer = client.answer(stream).unwrap();
    assert!(begun.elapsed() >= ms(250) && begun.elapsed() < ms(300) + SLACK);
    assert_eq!((answer.status, answer.text().contains("(limits.body_timeout)")), (408, true), "{}", answer.text());
    assert_eq!(client.ask("GET", "http://gate.test/", &[], b"").unwrap().status, 200);
}

#[test]
fn few_and_small_messages_of_a_call_are_not_slow() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "limits: { body_timeout: 1s, body_rate: 1000B/s }");
    let mut client = Http2::connect(gate.address());
    let fields = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut stream = client.open("POST", "http://gate.test/up", &fields, false).unwrap();
    for _ in 0..12 {
        client.wait(send(&mut stream.sending, Bytes::from_static(b"\0\0\0\0\0"))).unwrap();
        pause(ms(150));
    }
    stream.sending.send_data(Bytes::new(), true).unwrap();
    assert_eq!(client.answer(stream).unwrap().status, 200);
}

#[test]
fn a_service_that_is_slow_to_read_is_not_the_clients_fault() {
    let upstream = Upstream::script(|peer| {
        let Ok(_) = peer.head() else { return };
        peer.pause(ms(1500));
        let whole = peer.exactly(16 << 20).is_ok();
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-whole: {whole}\r\n\r\n"));
    });
    let gate = before(&upstream, "limits: { body_timeout: 500ms, body_rate: 1MiB/s }");
    let answer = gate.ask("POST", "/up", &[], &alphabet(16 << 20));
    assert_eq!((answer.status(), answer.field("x-whole").as_deref()), (200, Some("true")), "{}", answer.text());
    let mut client = Http2::connect(gate.address());
    assert_eq!(client.ask("POST", "http://gate.test/up", &[], &alphabet(16 << 20)).unwrap().status, 200);
}

/// A service with a large answer under `/large`.
fn large() -> Upstream {
    Upstream::http(|request| if request.target() == "/small" { Answer::text("small") } else { Answer::bytes(24 << 20) })
}

fn let_go(gate: &Binary, upstream: &Upstream, begun: std::time::Instant) {
    until(ms(10_000), "the service is let go", || upstream.open() == 0);
    assert!(begun.elapsed() < ms(700) + SLACK, "{:?}", begun.elapsed());
    let line = gate.logged("/large");
    assert_eq!((line["end"].as_str(), line["timer"].as_str()), (Some("timeout"), Some("client_read")), "{line}");
    assert_eq!(line["status"], 200);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_let_go_and_so_is_the_service() {
    let authority = Authority::default();
    for tls in [false, true] {
        let upstream = large();
        let more = "limits: { write_timeout: 700ms }";
        let listener = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]";
        let document = format!(
            "upstreams: {{ api: {{ endpoints: [{}] }} }}\nroutes: [{{ match: \"/{{*rest}}\", forward: api }}]\n{more}\n{}",
            upstream.url(),
            if tls { listener } else { "" }
        );
        let gate = Binary::start_with(&document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
        let mut client = gate.connect();
        if tls {
            client = client.try_tls(&authority.plain_client(), "gate.test").unwrap();
        }
        client.send(request("GET", "/large", &[], b""));
        assert_eq!(client.head().status(), 200);
        let_go(&gate, &upstream, now());
        until(ms(5000), "the connection is gone", || gate.metric("pylon_connections") == Some(0.0));
    }
}

#[test]
fn a_client_that_takes_little_and_steadily_is_not() {
    let upstream = large();
    let gate = before(&upstream, "limits: { write_timeout: 1s }");
    let mut client = gate.connect();
    client.send(request("GET", "/large", &[], b""));
    assert_eq!(client.head().status(), 200);
    // So little that the system has room for more only every few seconds.
    let mut socket = client.second_hand();
    let mut piece = vec![0; 96 << 10];
    for _ in 0..30 {
        socket.read_exact(&mut piece).unwrap();
        pause(ms(100));
    }
    assert_eq!((upstream.open(), gate.metric("pylon_connections")), (1, Some(1.0)));
}

#[test]
fn a_window_that_is_never_opened_ends_its_stream_alone() {
    let upstream = large();
    let gate = before(&upstream, "limits: { write_timeout: 700ms }");
    let mut client = Http2::connect(gate.address());
    let stream = client.open("GET", "http://gate.test/large", &[], true).unwrap();
    let mut answer = client.head(stream).unwrap();
    assert_eq!(answer.status(), 200);
    let begun = now();
    let line = gate.logged("/large");
    assert!(begun.elapsed() < ms(700) + SLACK);
    assert_eq!((line["end"].as_str(), line["timer"].as_str()), (Some("timeout"), Some("client_read")), "{line}");
    // What was in the window comes, and then the reset.
    let error = client.wait(async {
        loop {
            match answer.body_mut().data().await {
                Some(Ok(data)) => answer.body_mut().flow_control().release_capacity(data.len()).unwrap(),
                Some(Err(error)) => break error,
                None => panic!("the answer looks whole"),
            }
        }
    });
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.ask("GET", "http://gate.test/small", &[], b"").unwrap().text(), "small");
    assert_eq!(gate.logged("/small")["end"], "complete");
}

#[test]
fn a_client_of_http_2_that_reads_nothing_at_all_loses_its_connection() {
    let upstream = large();
    let gate = before(&upstream, "limits: { write_timeout: 700ms }");
    let mut client = gate.connect();
    let get = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/large")]);
    // Windows as large as they can be: only the socket stands in the way.
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = 0x7fff_0000_u32.to_be_bytes();
    client.send([PREFACE, &frame(4, 0, 0, &settings), &frame(8, 0, 0, &window), &frame(1, 0x5, 1, &get)].concat());
    let_go(&gate, &upstream, now());
    until(ms(5000), "the connection is gone", || gate.metric("pylon_connections") == Some(0.0));
}

#[test]
fn a_client_of_http_2_that_is_slow_and_steady_is_not_cut() {
    let upstream = large();
    let gate = before(&upstream, "limits: { write_timeout: 600ms }");
    let mut client = Http2::connect(gate.address());
    let stream = client.open("GET", "http://gate.test/large", &[], true).unwrap();
    let mut answer = client.head(stream).unwrap();
    let mut taken = 0;
    for _ in 0..20 {
        let data = client.wait(answer.body_mut().data()).unwrap().unwrap();
        answer.body_mut().flow_control().release_capacity(data.len()).unwrap();
        taken += data.len();
        pause(ms(100));
    }
    assert!(taken > 0 && upstream.open() == 1, "{taken}");
}

#[test]
fn heads_of_http_2_that_do_not_end_have_the_time_that_heads_of_http_1_have() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "limits: { header_timeout: 500ms }");
    let get = hpack(&[(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")]);
    let more = hpack(&[("x-a", "b")]);
    let begun_well = [PREFACE, &frame(4, 0, 0, &[])].concat();
    let (drip, piece) = ([&begun_well[..], &frame(1, 0, 1, &get)].concat(), frame(9, 0, 1, &more));
    for (name, first, then) in [
        ("half a preface", &PREFACE[..20], &b""[..]),
        ("a preface without settings", PREFACE, b""),
        ("half of the settings", &begun_well[..30], b""),
        ("continuations without end", &drip, &piece),
        ("half a frame of headers", &drip[..drip.len() - 3], b""),
    ] {
        let mut client = gate.connect();
        client.send(first);
        let begun = now();
        // h2 itself takes no more than five of them.
        client.patience(ms(140));
        until(ms(5000), &format!("{name}: the connection ends"), || {
            let _ = client.try_send(then);
            match client.some() {
                Ok(bytes) => bytes.is_empty(),
                Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            }
        });
        let took = begun.elapsed();
        assert!(took >= ms(400) && took < ms(500) + SLACK, "{name} ended after {took:?}");
    }
    // Many heads one after the other are no long one, and a connection without any lives on.
    let mut client = Http2::connect(gate.address());
    for _ in 0..8 {
        assert_eq!(client.ask("GET", "http://gate.test/", &[], b"").unwrap().status, 200);
        pause(ms(100));
    }
    assert!(!client.has_ended());
}

#[test]
fn under_tls_http_2_has_to_begin_in_time() {
    let authority = Authority::default();
    let document = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }]
limits: { header_timeout: 300ms }
routes: [{ match: \"/{*rest}\", respond: 200 }]";
    let gate = Binary::start_with(document, &[], |folder| authority.issue(&["gate.test"]).write(folder, "a"));
    let mut config = rustls::ClientConfig::clone(&authority.plain_client());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut client = Raw::connect(gate.address()).try_tls(&std::sync::Arc::new(config), "gate.test").unwrap();
    let begun = now();
    while client.some().is_ok_and(|bytes| !bytes.is_empty()) {}
    assert!(begun.elapsed() < ms(300) + SLACK);
}
