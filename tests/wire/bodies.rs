//! Bodies come through whole: large ones, in chunks with trailers, and byte by byte from whoever is slow.

use std::io::Write;

use pylon_testkit::answer::{Answer, alphabet, chunk};
use pylon_testkit::client::{Raw, request};
use pylon_testkit::upstream::Upstream;
use pylon_testkit::wait::{ms, pause};

use crate::before;

const LARGE: usize = 16 << 20;

/// Sends in a thread of its own while the answer is read.
fn exchange(client: &mut Raw, bytes: Vec<u8>) -> pylon_testkit::message::Message {
    let mut sender = client.second_hand();
    let sending = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
    let answer = client.response();
    sending.join().unwrap();
    answer
}

#[test]
fn large_bodies_in_chunks_with_trailers_come_through_whole() {
    let upstream = Upstream::http(|seen| {
        // Sizes that are no power of two, so that pieces and buffers do not meet.
        let pieces = seen.body.chunks(50_021).map(<[u8]>::to_vec).collect();
        let answer = Answer::new(200).field("trailer", "x-sum").pieces(pieces, ms(0));
        answer.trailer("x-sum", &seen.trailer("x-sum").unwrap_or_default())
    });
    let gate = before(&upstream, "");
    let body = alphabet(LARGE);
    let mut wire = request("POST", "/", &[("transfer-encoding", "chunked"), ("te", "trailers")], b"");
    for piece in body.chunks(70_001) {
        wire.extend(chunk(piece));
    }
    wire.extend_from_slice(b"0\r\nx-sum: sixteen\r\n\r\n");
    let answer = exchange(&mut gate.connect(), wire);
    assert!(upstream.last().body == body, "the service got another body of {} bytes", upstream.last().body.len());
    assert!(answer.body == body, "the client got another body of {} bytes", answer.body.len());
    assert_eq!(answer.trailer("x-sum").as_deref(), Some("sixteen"));
}

#[test]
fn large_bodies_of_known_length_come_through_whole() {
    let upstream = Upstream::http(|seen| Answer::new(200).body(seen.body.clone()));
    let gate = before(&upstream, "");
    let body = alphabet(LARGE);
    let mut client = gate.connect();
    for _ in 0..2 {
        let answer = exchange(&mut client, request("POST", "/", &[], &body));
        assert_eq!(answer.field("content-length").as_deref(), Some("16777216"));
        assert!(answer.body == body, "the client got another body of {} bytes", answer.body.len());
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_body_up_to_the_end_of_the_connection_comes_through_whole_and_a_cut_one_does_not_look_whole() {
    let body = alphabet(1_000_003);
    let sent = body.clone();
    let upstream = Upstream::script(move |peer| {
        let Ok(request) = peer.request() else { return };
        if request.target() == "/whole" {
            peer.send([b"HTTP/1.1 200 OK\r\n\r\n", &sent[..]].concat());
        } else {
            peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        }
    });
    let gate = before(&upstream, "");
    let whole = gate.get("/whole");
    assert!(whole.body == body, "{} bytes", whole.body.len());
    let mut client = gate.connect();
    client.send(request("GET", "/cut", &[], b""));
    assert!(client.try_response("GET").is_err(), "half an answer looked whole");
}

/// Sends byte by byte.
fn drip(client: &mut Raw, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
        pause(ms(1));
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_understood() {
    let upstream = Upstream::echo();
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for _ in 0..2 {
        drip(&mut client, &request("POST", "/known?a=b", &[("x-slow", "yes")], b"hello"));
        let seen = client.response().json();
        assert_eq!((seen["path"].as_str(), seen["body"].as_str()), (Some("/known?a=b"), Some("hello")));
        let chunked = request(
            "POST",
            "/chunked",
            &[("transfer-encoding", "chunked"), ("te", "trailers")],
            b"5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 6\r\n\r\n",
        );
        drip(&mut client, &chunked);
        let seen = client.response().json();
        assert_eq!((seen["body"].as_str(), seen["trailers"]["x-sum"].as_str()), (Some("hello!"), Some("6")));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_service_that_answers_byte_by_byte_is_understood() {
    let upstream = Upstream::script(|peer| {
        while let Ok(request) = peer.request() {
            let answer = match request.target() {
                "/known" => "HTTP/1.1 200 OK\r\nx-slow: yes\r\ncontent-length: 5\r\n\r\nhello",
                "/chunked" => {
                    "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 6\r\n\r\n"
                }
                "/interim" => {
                    "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                }
                _ => "HTTP/1.1 204 No Content\r\n\r\n",
            };
            peer.drip(answer, ms(1));
        }
    });
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/known").text(), "hello");
        let chunked = client.ask("GET", "/chunked", &[("te", "trailers")], b"");
        assert_eq!((chunked.text().as_str(), chunked.trailer("x-sum").as_deref()), ("hello!", Some("6")));
        assert_eq!(client.get("/interim").status(), 103);
        assert_eq!(client.response().text(), "ok");
        assert_eq!(client.get("/none").status(), 204);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_client_that_reads_byte_by_byte_gets_everything() {
    let upstream = Upstream::http(|_| Answer::bytes(2_000_000));
    let gate = before(&upstream, "");
    let mut client = gate.connect();
    client.send(request("GET", "/", &[], b""));
    assert_eq!(client.head().status(), 200);
    let mut body = Vec::new();
    for _ in 0..200 {
        body.extend(client.exactly(1));
        pause(ms(1));
    }
    body.extend(client.exactly(2_000_000 - 200));
    assert!(body == alphabet(2_000_000));
    assert_eq!(client.get("/").body.len(), 2_000_000);
}
