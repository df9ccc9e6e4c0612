//! Failure 38: `Expect: 100-continue`, early answers and interim ones.

use pylon_testkit::answer::{alphabet, chunk};
use pylon_testkit::client::request;
use pylon_testkit::http2::Http2;
use pylon_testkit::upstream::{End, Upstream};
use pylon_testkit::wait::{ms, now};

use crate::forwarding::before;

const EXPECTS: [(&str, &str); 2] = [("expect", "100-continue"), ("content-length", "5")];

#[test]
fn the_service_says_100_and_the_client_hears_it_before_it_sends_its_body() {
    let upstream = Upstream::script(|peer| {
        let Ok(head) = peer.head() else { return };
        assert_eq!(head.field("expect").as_deref(), Some("100-continue"));
        peer.pause(ms(100));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = peer.exactly(5).unwrap_or_default();
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        peer.send(body);
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let begun = now();
    client.send(request("POST", "/", &EXPECTS, b""));
    assert_eq!(client.response().status(), 100);
    assert!(begun.elapsed() >= ms(100), "the gateway spoke for the service");
    assert!(begun.elapsed() < ms(900), "the service's 100 did not come through");
    let answer = client.send("hello").response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
}

#[test]
fn an_early_refusal_reaches_the_client_without_its_body_and_without_a_reset() {
    for status in [401, 413] {
        let upstream = Upstream::script(move |peer| {
            if peer.head().is_ok() {
                peer.send(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno"));
                peer.wait_for_end(ms(5000));
            }
        });
        let gate = before(&upstream, "");
        let mut client = gate.connect();
        client.send(request("POST", "/", &EXPECTS, b""));
        let answer = client.response();
        assert_eq!((answer.status(), answer.text().as_str()), (status, "no"), "no 100 before it");
        // What is sent now is either the rest of this request or nothing: the connection has to end.
        client.expect_closed();
        assert!(!upstream.received(0).ends_with(b"hello"));
    }
}

#[test]
fn an_early_answer_to_a_large_upload_is_read_whole() {
    let upstream = Upstream::script(|peer| {
        if peer.head().is_ok() {
            peer.send("HTTP/1.1 413 Too Much\r\ncontent-length: 4\r\nconnection: close\r\n\r\nmuch");
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let mut sender = client.second_hand();
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        let head = request("POST", "/", &[("content-length", "8000000")], b"");
        // It may be cut short: that is the point.
        let _ = sender.write_all(&head).and_then(|()| sender.write_all(&alphabet(8_000_000)));
    });
    let answer = client.response();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "much"));
    drop(client);
    sending.join().unwrap();
}

#[test]
fn a_service_that_does_not_know_expectations_gets_the_body_after_a_second() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    let begun = now();
    client.send(request("POST", "/", &EXPECTS, b""));
    assert_eq!(client.response().status(), 100);
    let took = begun.elapsed();
    assert!(took >= ms(900) && took < ms(2500), "after {took:?}");
    assert_eq!(client.send("hello").response().json()["body"], "hello");
}

#[test]
fn a_body_that_comes_without_waiting_for_100_is_not_lost() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("POST", "/", &EXPECTS, b"hello"));
    let mut answer = client.response();
    if answer.status() == 100 {
        answer = client.response();
    }
    assert_eq!(answer.json()["body"], "hello");
    assert_eq!(client.get("/next").json()["path"], "/next");
}

#[test]
fn a_policy_refuses_before_the_client_is_told_to_go_on() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "defaults: { ip_filter: { deny: 127.0.0.1 } }");
    let mut client = gate.connect();
    client.send(request("POST", "/", &EXPECTS, b""));
    assert_eq!(client.response().status(), 403);
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn an_expectation_that_nobody_knows_is_refused() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let answer = gate.ask("POST", "/", &[("expect", "a-miracle"), ("content-length", "0")], b"");
    assert_eq!((answer.status(), answer.code().as_deref()), (417, Some("request.expectation")));
}

#[test]
fn early_hints_are_relayed_before_the_answer() {
    let upstream = Upstream::script(|peer| {
        while peer.request().is_ok() {
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\nconnection: x-inner\r\nx-inner: 1\r\n\r\n");
            peer.pause(ms(200));
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for _ in 0..2 {
        let begun = now();
        let hint = client.get("/");
        assert_eq!((hint.status(), hint.field("link").as_deref()), (103, Some("</style.css>; rel=preload")));
        assert_eq!(hint.field("x-inner"), None);
        assert!(begun.elapsed() < ms(190), "the hint waited for the answer: {:?}", begun.elapsed());
        assert_eq!(client.response().text(), "ok");
    }
    let mut old = gate.connect();
    old.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(old.response().status(), 200, "HTTP/1.0 knows no interim answers");
}

#[test]
fn interim_answers_reach_clients_of_http_2_on_their_own_streams() {
    let upstream = Upstream::script(|peer| {
        let Ok(head) = peer.head() else { return };
        if head.field("expect").is_some() {
            peer.pause(ms(100));
            peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = peer.exactly(5).unwrap_or_default();
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
            peer.send(body);
        } else {
            peer.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n");
            peer.pause(ms(300));
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate");
        }
    });
    let gate = before(&upstream, "");
    let mut client = Http2::connect(gate.address());
    let mut hinted = client.open("GET", "http://a.test/", &[], true).unwrap();
    let mut expecting = client.open("POST", "http://a.test/", &EXPECTS, false).unwrap();
    for link in ["</a>", "</b>"] {
        let hint = client.interim(&mut hinted).unwrap();
        assert_eq!((hint.status().as_u16(), hint.headers()["link"].to_str().unwrap()), (103, link));
    }
    assert_eq!(client.interim(&mut expecting).unwrap().status(), 100);
    expecting.sending.send_data("hello".into(), true).unwrap();
    assert_eq!(client.answer(expecting).unwrap().text(), "hello");
    assert!(client.interim(&mut hinted).is_none());
    assert_eq!(client.answer(hinted).unwrap().text(), "late");
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_an_error_of_the_service() {
    let upstream = Upstream::script(|peer| {
        if peer.request().is_ok() {
            peer.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw");
            peer.wait_for_end(ms(5000));
        }
    });
    let gate = before(&upstream, "");
    let answer = gate.ask("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")], b"");
    assert_eq!((answer.status(), answer.code().as_deref()), (502, Some("upstream.protocol")));
    assert!(!String::from_utf8_lossy(&upstream.received(0)).to_ascii_lowercase().contains("upgrade"));
}

#[test]
fn a_client_that_gives_up_waiting_for_100_leaves_nothing_behind() {
    let (told, ended) = std::sync::mpsc::channel();
    let upstream = Upstream::script(move |peer| {
        if peer.head().is_ok() {
            let _ = told.send(peer.wait_for_end(ms(5000)));
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("POST", "/", &EXPECTS, b""));
    pylon_testkit::wait::until(ms(5000), "the service has the head", || !upstream.received(0).is_empty());
    client.abort();
    assert_ne!(ended.recv_timeout(ms(5000)).unwrap(), End::Open);
}

#[test]
fn a_chunked_body_waits_for_100_as_well() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("POST", "/", &[("expect", "100-continue"), ("transfer-encoding", "chunked")], b""));
    assert_eq!(client.response().status(), 100);
    client.send(chunk(b"hello")).send("0\r\n\r\n");
    assert_eq!(client.response().json()["body"], "hello");
}
